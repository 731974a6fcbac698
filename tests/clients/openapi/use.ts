// A program that knows Roomkey by what openapi-typescript makes of its contract, and by nothing else.
import createClient from "openapi-fetch"
import type { components, paths } from "./schema.js"

declare const process: { argv: string[] }

const [, , server, key] = process.argv
const api = createClient<paths>({ baseUrl: server!, headers: { Authorization: `Bearer ${key}` } })

function given<T>(answer: { data?: T; error?: components["schemas"]["Problem"] }): T {
  if (answer.data === undefined) throw new Error(answer.error?.code ?? "no answer")
  return answer.data
}

// What may be left out is left out, and metadata are what the application wants.
const created = await api.POST("/sessions", {
  body: { user_id: "ts", activate: true, metadata: { theme: "dark" }, grants: [{ documents: "ts/**", access: "write" }] },
  params: { header: { "Idempotency-Key": "from-typescript" } },
})
const { session } = given(created)
const id: string = session.id
const state: "active" | "expired" | "invalidated" | "pending" | "suspended" = session.state

const name = "ts/plan"
given(await api.PUT("/documents/{name}", { params: { path: { name } }, body: { content: "Hello" } }))
await api.PATCH("/documents/{name}", {
  params: { path: { name } },
  headers: { "Content-Type": "application/vnd.roomkey.text-edits+json" },
  body: { edits: [{ root: "content", index: 5, insert: ", world" }] },
})
const text = await api.GET("/documents/{name}", {
  params: { path: { name } },
  headers: { Accept: "text/plain" },
  parseAs: "text",
})
const outdated = await api.PUT("/documents/{name}", {
  params: { path: { name }, header: { "If-Match": '"another.1"' } },
  body: { content: "overwritten" },
})
const code: components["schemas"]["Problem"]["code"] | undefined = outdated.error?.code

const suspended = await api.PUT("/sessions/{id}/suspend", { params: { path: { id } }, body: { reason: "under review" } })
const { sessions } = given(await api.GET("/users/{user_id}/sessions", { params: { path: { user_id: "ts" } } }))
await api.DELETE("/sessions/{id}", { params: { path: { id } } })

console.log(JSON.stringify({ state, text: text.data, code, then: given(suspended).state, listed: sessions.length }))
