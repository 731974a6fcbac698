import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const application = "http://127.0.0.1:8000";

export default defineConfig({
  plugins: [react()],
  server: {
    // While you develop, Vite serves the pages, and passes on what is for the application.
    proxy: { "/api": application, "/rooms": { target: application, ws: true } },
  },
});
