// Says what the parser of AsyncAPI finds wrong with a document, and what is in it.
import { readFileSync } from "node:fs"
import { Parser } from "@asyncapi/parser"

const { document, diagnostics } = await new Parser().parse(readFileSync(process.argv[2], "utf8"))
const wrong = diagnostics.map(({ severity, message, path }) => ({ severity, message, path: path.join(".") }))
const channels = Object.fromEntries(
  (document?.channels().all() ?? []).map((channel) => [channel.id(), channel.messages().all().map((each) => each.id())]),
)
console.log(JSON.stringify({ wrong, channels, operations: document?.operations().all().length ?? 0 }))
process.exit(0)
