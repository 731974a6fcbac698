// Requests that a reader sends from the page, and the same as a line for a terminal.

const PATIENCE_MS = 30_000;
const MOST_SHOWN = 64 * 1024; // characters of an answer; the whole of it can be downloaded

// Paths begin where the page is, wherever Roomkey is mounted.
const base = new URL(".", location.href).href.replace(/\/$/, "");

// Numbers that JavaScript would round: an answer that may have some is shown as it came.
const LONG_INTEGER = /[:,[]\s*-?\d{16,}/;

// In memory and nowhere else: it is gone when the page is closed.
let key = "";

function useKey(text) {
  key = text.trim();
  document.getElementById("key").value = key;
  document.dispatchEvent(new Event("key-changed"));
}

function keyField() {
  const input = h("input", {
    id: "key", type: "password", autocomplete: "off", spellcheck: "false", "aria-describedby": "key-hint",
    placeholder: "rkey_… or the token of a session",
  });
  const show = h("input", { id: "show-key", type: "checkbox" });
  input.addEventListener("input", () => useKey(input.value));
  show.addEventListener("change", () => { input.type = show.checked ? "text" : "password"; });
  return h("section", { class: "key", "aria-labelledby": "key-title" },
    h("h2", { id: "key-title" }, "Try it as"),
    h("div", { class: "field" }, h("label", { for: "key" }, "API key or token"), input),
    h("p", { class: "soft", id: "key-hint" },
      "It is kept in the memory of this page until you close it, and sent to this server alone."),
    h("p", {}, show, " ", h("label", { for: "show-key" }, "Show it")));
}

function choicesOf(schema) {
  const whole = follow(schema);
  if (whole.enum) return whole.enum;
  if (whole.type === "boolean") return ["true", "false"];
  return whole.anyOf && whole.anyOf.every((each) => follow(each).enum) ? whole.anyOf.flatMap((each) => follow(each).enum) : null;
}

function exampleOf(schema) {
  const whole = follow(schema || {});
  const [example] = whole.examples || [];
  if (example !== undefined) return example;
  if (whole.default !== undefined) return whole.default;
  if (whole.const !== undefined) return whole.const;
  if (whole.enum) return whole.enum[0];
  if (whole.anyOf && !whole.type) return exampleOf(whole.anyOf[0]);
  switch (whole.type) {
    case "object":
      return Object.fromEntries((whole.required || []).map((name) => [name, exampleOf((whole.properties || {})[name])]));
    case "array":
      return [exampleOf(whole.items)];
    case "integer":
    case "number":
      return whole.minimum || 0;
    case "boolean":
      return false;
    default:
      return "";
  }
}

function chooser(id, options) {
  return h("select", { id }, options.map((each) => h("option", { value: each }, each)));
}

function labelled(text, input, needed) {
  return h("div", { class: "field" },
    h("label", { for: input.id }, text, needed ? h("span", { class: "needed" }, "required") : null), input);
}

function fieldOf(id, parameter) {
  const choices = choicesOf(parameter.schema);
  const example = parameter.example || exampleOf(parameter.schema);
  const input = choices
    ? chooser(id, parameter.required ? choices : ["", ...choices])
    : h("input", { id, type: "text", autocomplete: "off", spellcheck: "false", placeholder: example === "" ? "" : `e.g. ${example}` });
  input.required = Boolean(parameter.required);
  return input;
}

// The body in one of the forms that the operation takes: text to write, or a file to choose.
function bodyFields(id, requestBody) {
  const contents = requestBody.content;
  const type = chooser(`${id}-type`, Object.keys(contents));
  const text = h("textarea", { id: `${id}-body`, spellcheck: "false", autocomplete: "off" });
  const file = h("input", { id: `${id}-file`, type: "file" });
  const lines = [labelled("Body", text, requestBody.required), labelled("File", file, requestBody.required)];
  const isFile = () => contents[type.value].schema.format === "binary";
  const takesFiles = Object.values(contents).some(({ schema }) => schema.format === "binary");
  const fill = () => {
    const { schema, example } = contents[type.value];
    const written = type.value.endsWith("json") ? JSON.stringify(example || exampleOf(schema), null, 2) : "";
    // What may be left out is left out unless somebody writes something.
    text.value = requestBody.required ? written : "";
    text.placeholder = requestBody.required ? "" : written;
    text.rows = Math.min(16, Math.max(4, written.split("\n").length));
    lines[0].classList.toggle("hidden", isFile());
    lines[1].classList.toggle("hidden", !isFile());
    text.required = Boolean(requestBody.required) && !isFile() && type.value.endsWith("json");
    file.required = Boolean(requestBody.required) && isFile();
  };
  type.addEventListener("change", fill);
  fill();
  return {
    elements: [Object.keys(contents).length > 1 ? labelled("Content-Type", type) : null, lines[0], takesFiles ? lines[1] : null],
    read() {
      const content = isFile() ? file.files[0] : text.value;
      const isThere = Boolean(content) || (type.value.startsWith("text/") && requestBody.required);
      return isThere ? { type: type.value, content } : null;
    },
  };
}

const quoted = (text) => "'" + text.replace(/'/g, "'\\''") + "'";

function curlOf({ method, url, headers, withKey, body }) {
  const lines = [`curl ${method === "GET" ? "" : `-X ${method} `}${quoted(url)}`];
  if (withKey) lines.push('-H "Authorization: Bearer $ROOMKEY_KEY"');
  for (const [name, value] of headers) lines.push("-H " + quoted(`${name}: ${value}`));
  if (body) lines.push(typeof body.content === "string" ? "--data-binary " + quoted(body.content) : "--data-binary @" + quoted(body.content.name));
  return lines.join(" \\\n  ");
}

function tryIt(method, path, operation) {
  const id = `try-${operation.operationId}`;
  const parameters = (operation.parameters || []).map(follow).map((parameter) => [parameter, fieldOf(`${id}-${parameter.name}`, parameter)]);
  const body = operation.requestBody ? bodyFields(id, operation.requestBody) : null;
  const answers = Object.entries(operation.responses).filter(([status]) => status < 300).flatMap(([, answer]) => Object.keys(answer.content || {}));
  const accept = chooser(`${id}-accept`, [...new Set(answers)]);
  const button = h("button", { type: "submit", class: "send " + method }, `Send ${method.toUpperCase()}`);
  const line = code("");
  const said = h("div", { class: "said" }, h("p", { role: "status" }));
  const kinds = operation.security || [];
  const needsNobody = !kinds.length;
  const needsKey = !needsNobody && kinds.every((kind) => Object.keys(kind).length);

  const written = (place) => parameters.filter(([{ in: each }, input]) => each === place && input.value !== "");
  const request = () => {
    const values = Object.fromEntries(written("path").map(([{ name }, input]) => [name, encodeURIComponent(input.value)]));
    const query = new URLSearchParams(written("query").map(([{ name }, input]) => [name, input.value])).toString();
    const headers = written("header").map(([{ name }, input]) => [name, input.value]);
    if (accept.options.length > 1) headers.push(["Accept", accept.value]);
    const content = body && body.read();
    if (content) headers.push(["Content-Type", content.type]);
    const url = base + path.replace(/{(\w+)}/g, (whole, name) => values[name] || whole) + (query ? `?${query}` : "");
    return { method: method.toUpperCase(), url, headers, withKey: needsKey || (!needsNobody && key !== ""), body: content };
  };
  const refresh = () => line.show(curlOf(request()));

  const form = h("form", { class: "try", "aria-label": `Try it: ${operation.summary}` },
    parameters.map(([parameter, input]) => labelled(parameter.name, input, parameter.required)),
    body ? body.elements : null,
    accept.options.length > 1 ? labelled("Accept", accept) : null,
    h("p", {}, button, needsNobody ? null : [" ", h("a", { href: "#key", class: "aside" }, "As whom?")]));
  form.addEventListener("input", refresh);
  form.addEventListener("change", refresh);
  document.addEventListener("key-changed", refresh);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await send(request(), said);
    } finally {
      button.disabled = false;
    }
  });
  refresh();
  return [form, said, line.element];
}

async function send({ method, url, headers, withKey, body }, said) {
  const [status] = said.children;
  const all = withKey && key ? [...headers, ["Authorization", `Bearer ${key}`]] : headers;
  const begun = performance.now();
  status.textContent = "Waiting for the answer…";
  try {
    const response = await fetch(url, {
      // The key in the field and nothing else: no cookie of this site, and no copy in a cache.
      method, headers: all, body: body ? body.content : undefined, credentials: "omit", cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
    });
    const content = await response.arrayBuffer();
    const took = Math.round(performance.now() - begun);
    said.replaceChildren(status, ...shownAnswer(response, content));
    status.replaceChildren(h("b", { class: response.ok ? "get" : "delete" }, `${response.status} ${response.statusText}`), ` · ${took} ms`);
  } catch (error) {
    said.replaceChildren(status);
    status.textContent = error.name === "TimeoutError" ? "There was no answer within 30 seconds." : `There was no answer: ${error.message}`;
  }
}

function shownAnswer(response, content) {
  const type = response.headers.get("content-type") || "";
  const parts = [];
  if (type.includes("json") || type.startsWith("text/")) {
    const text = new TextDecoder().decode(content);
    const value = type.includes("json") ? JSON.parse(text) : null;
    const whole = value === null || LONG_INTEGER.test(text) ? text : JSON.stringify(value, null, 2);
    parts.push(h("pre", { tabindex: "0", role: "group", "aria-label": "Answer" }, h("code", {}, whole.slice(0, MOST_SHOWN))));
    const secret = value && (value.token || value.secret);
    if (typeof secret === "string") parts.push(action("Use it as the key from now on", () => useKey(secret)));
    if (whole.length > MOST_SHOWN) parts.push(h("p", { class: "soft" }, "The rest is not shown."), download(content, type));
  } else if (content.byteLength) {
    parts.push(download(content, type));
  }
  parts.push(h("details", {}, h("summary", {}, "Headers"),
    h("dl", {}, [...response.headers].map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))))));
  return parts;
}

function action(text, act) {
  const button = h("button", { type: "button" }, text);
  button.addEventListener("click", () => {
    act();
    button.textContent = "Done";
  });
  return h("p", {}, button);
}

function download(content, type) {
  const link = h("a", { href: URL.createObjectURL(new Blob([content], { type })), download: "answer" });
  link.textContent = `Download ${content.byteLength.toLocaleString("en")} bytes`;
  return h("p", {}, link);
}
