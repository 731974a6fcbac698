// The page of docs/realtime.md: node page.mjs MODULE URL TOKEN ORIGIN, where MODULE is a file with its functions.
// Prints what it shows.
import { socketOf } from "./driver.mjs";

const [module, url, token, origin] = process.argv.slice(2);
const { follow } = await import(module);
const show = (state, told) => process.stdout.write(JSON.stringify({ event: "shown", state, told }) + "\n");
follow(url, token, show, socketOf(origin));
process.stdin.resume().on("end", () => process.exit(0));
