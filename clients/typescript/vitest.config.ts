import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    pool: "threads",
    testTimeout: 20_000,
    // The processes of a test machine are few.
    maxWorkers: 1,
    isolate: false,
  },
});
