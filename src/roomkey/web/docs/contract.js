// The contract, and how what is in it is shown.

const METHODS = ["get", "post", "put", "patch", "delete"];
const WHO = {
  apiKey: "API key", sessionToken: "Session token", sessionHeader: "X-Session-ID", sessionCookie: "Session cookie",
};
let contract;

// Everything that comes from the contract becomes text, never markup.
function h(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) element.setAttribute(key, value);
  element.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

const follow = (value) =>
  value && value.$ref ? value.$ref.slice(2).split("/").reduce((node, step) => node[step], contract) : value;
const nameOf = (value) => (value && value.$ref ? value.$ref.split("/").pop() : null);
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-");

// The little Markdown that descriptions use: paragraphs, **strong**, `code`.
function prose(text) {
  return (text || "").split(/\n\s*\n/).map((paragraph) =>
    h("p", {}, paragraph.split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) => {
      if (part.startsWith("`")) return h("code", {}, part.slice(1, -1));
      if (part.startsWith("**")) return h("strong", {}, part.slice(2, -2));
      return part;
    })));
}

function typeOf(schema) {
  const name = nameOf(schema);
  if (name) {
    const target = follow(schema);
    return target.enum ? target.enum.join(" | ") : name;
  }
  if (schema.anyOf && !schema.type) return [...new Set(schema.anyOf.map(typeOf))].join(" | ");
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.type === "array") return typeOf(schema.items || {}) + "[]";
  if (schema.format) return schema.type + " (" + schema.format + ")";
  return schema.type || "any";
}

function limits(schema) {
  const said = [];
  const range = (low, high, what) => {
    if (low !== undefined && high !== undefined) said.push(low + " to " + high + what);
    else if (high !== undefined) said.push("at most " + high + what);
    else if (low !== undefined && low > 0) said.push("at least " + low + what);
  };
  for (const part of schema.type ? [schema] : [schema, ...(schema.anyOf || [])]) {
    range(part.minimum, part.maximum, "");
    range(part.minLength, part.maxLength, " characters");
    range(part.minItems, part.maxItems, " entries");
    range(part.minProperties, part.maxProperties, " entries");
  }
  if (schema.default !== undefined && schema.default !== null && JSON.stringify(schema.default) !== "[]") {
    said.push("default " + JSON.stringify(schema.default));
  }
  return said.join(", ");
}

function note(schema) {
  const parts = [schema, ...(schema.anyOf || [])];
  return parts.map((part) => part.description).find(Boolean) || "";
}

function row(name, schema, needed, text) {
  const bounds = limits(schema);
  return h("div", {},
    h("dt", {}, name, needed ? h("span", { class: "needed" }, "required") : null),
    h("dd", {}, h("span", { class: "type" }, typeOf(schema)), bounds ? h("span", { class: "soft" }, " · " + bounds) : null,
      prose(text || note(schema))));
}

function fields(schema) {
  const target = follow(schema);
  const required = new Set(target.required || []);
  return h("dl", {}, Object.entries(target.properties || {}).map(([name, field]) => row(name, field, required.has(name))));
}

function inner(schema, seen) {
  const names = [];
  JSON.stringify(follow(schema), (key, value) => {
    if (key === "$ref") {
      const name = value.split("/").pop();
      const target = follow({ $ref: value });
      if (!seen.has(name) && target.properties) {
        seen.add(name);
        names.push(name, ...inner({ $ref: value }, seen));
      }
    }
    return value;
  });
  return names;
}

function shape(schema) {
  const target = follow(schema);
  if (!target.properties) return null;
  const parts = [fields(schema)];
  for (const name of inner(schema, new Set([nameOf(schema)]))) {
    parts.push(h("h3", {}, name), fields({ $ref: "#/components/schemas/" + name }));
  }
  return parts;
}

// Text that can be copied; ``show`` replaces it.
function code(text) {
  const content = h("code", {}, text);
  const button = h("button", { type: "button" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(content.textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Not allowed";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  const element = h("div", { class: "copy" }, h("pre", { tabindex: "0", role: "group", "aria-label": "For a terminal" }, content), button);
  return { element, show(written) { content.textContent = written; } };
}
