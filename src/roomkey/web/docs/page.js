// The page: a card for each operation, drawn when it is first opened.

function parameters(operation) {
  const all = (operation.parameters || []).map(follow);
  if (!all.length) return null;
  return [h("h3", {}, "Parameters"), h("dl", {}, all.map((parameter) =>
    row(parameter.name, parameter.schema, parameter.required,
      [parameter.in, parameter.description || note(parameter.schema)].filter(Boolean).join(" · "))))];
}

function body(operation) {
  if (!operation.requestBody) return null;
  const kinds = Object.entries(operation.requestBody.content);
  return [h("h3", {}, operation.requestBody.required ? "Body" : "Body, may be left out"),
    kinds.map(([type, media]) => {
      const schema = media.schema.items || media.schema;
      return [kinds.length > 1 ? h("h3", {}, type) : null, prose(follow(schema).description), shape(schema)];
    })];
}

function answers(operation) {
  return [h("h3", {}, "Answers"), h("div", { class: "answers" }, Object.entries(operation.responses).map(([status, answer]) => {
    const content = answer.content || {};
    const json = content["application/json"];
    const codes = Object.keys((content["application/problem+json"] || {}).examples || {});
    const headers = Object.entries(answer.headers || {});
    return h("details", {},
      h("summary", {}, h("b", { class: status < 400 ? "get" : "delete" }, status), h("span", {}, answer.description.replace(/`/g, ""))),
      h("div", { class: "inside" },
        Object.keys(content).some((type) => !type.endsWith("json")) ? h("p", { class: "soft" }, Object.keys(content).join(", ")) : null,
        json && json.schema.$ref ? [prose(follow(json.schema).description), shape(json.schema)] : null,
        codes.length ? h("p", {}, "Problem with the code ", codes.map((each, index) => [index ? ", " : "", h("code", {}, each)]), ".") : null,
        headers.length ? h("p", { class: "soft" }, "Headers: ", headers.map(([name]) => name).join(", ")) : null));
  }))];
}

function credentials(operation) {
  const names = [...new Set((operation.security || []).flatMap((each) => {
    const keys = Object.keys(each);
    return keys.length ? keys.map((key) => WHO[key] || key) : ["Nobody in particular"];
  }))];
  return h("ul", { class: "tags", "aria-label": "Credentials" }, (names.length ? names : ["Anyone"]).map((name) => h("li", {}, name)));
}

function card(method, path, operation) {
  const element = h("details", { class: "operation", id: operation.operationId },
    h("summary", {}, h("span", { class: "method " + method }, method.toUpperCase()), h("span", { class: "path" }, path),
      h("span", { class: "title" }, operation.summary)));
  element.dataset.words = [method, path, operation.summary, operation.description].join(" ").toLowerCase();
  // Drawn when it is first opened: most never are.
  element.addEventListener("toggle", () => {
    if (element.open && element.children.length === 1) {
      element.append(h("div", { class: "inside" }, credentials(operation), prose(operation.description),
        parameters(operation), body(operation), h("h3", {}, "Try it"), tryIt(method, path, operation), answers(operation)));
    }
  });
  return element;
}

function draw() {
  const main = document.getElementById("main");
  const nav = document.getElementById("nav");
  document.getElementById("version").textContent = contract.info.version;
  const groups = new Map(contract.tags.map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(contract.paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      groups.get(methods[method].tags[0]).push([method, path, methods[method]]);
    }
  }
  const empty = h("p", { class: "empty hidden", id: "empty" }, "Nothing matches.");
  main.replaceChildren(h("div", { class: "lead" }, h("h1", {}, contract.info.title + " API"), prose(contract.info.description),
    h("p", {}, h("a", { href: "openapi.json" }, "openapi.json"), h("span", { class: "soft" }, " · the same for machines"),
      h("br"), h("a", { href: "asyncapi.json" }, "asyncapi.json"),
      h("span", { class: "soft" }, " · what is said on sockets, and what your application is asked")),
    keyField()));
  nav.replaceChildren();
  for (const tag of contract.tags) {
    const operations = groups.get(tag.name);
    main.append(h("section", { class: "operations" }, h("h2", { id: slug(tag.name) }, tag.name), h("div", { class: "soft" }, prose(tag.description)),
      operations.map((each) => card(...each))));
    nav.append(h("h2", {}, tag.name), ...operations.map(([, , operation]) =>
      h("a", { href: "#" + operation.operationId }, operation.summary)));
  }
  main.append(empty);
}

function filter(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const section of document.querySelectorAll("main section.operations")) {
    let inSection = 0;
    for (const element of section.querySelectorAll("details.operation")) {
      const matches = words.every((word) => element.dataset.words.includes(word));
      element.classList.toggle("hidden", !matches);
      inSection += matches;
    }
    section.classList.toggle("hidden", inSection === 0);
    shown += inSection;
  }
  document.getElementById("empty").classList.toggle("hidden", shown > 0);
}

function reveal() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
}

async function start() {
  try {
    const response = await fetch("openapi.json");
    if (!response.ok) throw new Error("The server answered " + response.status + ".");
    contract = await response.json();
  } catch (error) {
    document.getElementById("main").replaceChildren(
      h("p", { class: "failed" }, "The contract could not be loaded. " + error.message));
    return;
  }
  draw();
  reveal();
  document.getElementById("filter").addEventListener("input", (event) => filter(event.target.value));
  addEventListener("hashchange", reveal);
}

start();
