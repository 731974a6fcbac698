import { defineConfig } from "vite";

/** The client of this very version, from its sources. */
const client = decodeURIComponent(new URL("../../../clients/typescript/src", import.meta.url).pathname);

export default defineConfig({
  root: "demo",
  // Relative, because Roomkey may be mounted under any path.
  base: "./",
  resolve: {
    alias: [
      { find: /^@roomkey\/client$/, replacement: `${client}/index.ts` },
      { find: /^@roomkey\/client\/(.*)$/, replacement: `${client}/$1.ts` },
    ],
    // What it imports is what this page imports.
    dedupe: ["yjs", "y-websocket"],
  },
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
