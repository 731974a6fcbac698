import { defineConfig } from "vite";

export default defineConfig({
  root: "demo",
  // Relative, because Roomkey may be mounted under any path.
  base: "./",
  build: {
    outDir: "../dist/demo",
    emptyOutDir: true,
    target: "es2023",
    // Nothing in data: URLs, which the page's policy would have to allow.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The notices that the licences of what is bundled ask for.
    license: { fileName: "licenses.md" },
  },
});
