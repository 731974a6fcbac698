/** Elements of the page: those that index.html has, and new ones. Text is only ever set as text. */

export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (found === null) {
    throw new Error(`the page has no #${id}`);
  }
  return found as T;
}

/** A new element of a class, with children. */
export function element<K extends keyof HTMLElementTagNameMap>(
  name: K,
  className = "",
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
}

export function button(text: string, press: () => void, className = ""): HTMLButtonElement {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", press);
  return made;
}

/** Change the text only when it differs, so that screen readers and selections are left alone. */
export function setText(node: HTMLElement, text: string): void {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

/** Text that may be cut: what it says is there in full when one looks closer. */
export function setCutText(node: HTMLElement, text: string): void {
  setText(node, text);
  node.title = text;
}

/** Make `parent` have exactly these children, in this order; those that are there already keep their focus. */
export function arrange(parent: HTMLElement, children: readonly HTMLElement[]): void {
  const wanted = new Set<Element>(children);
  for (const child of [...parent.children]) {
    if (!wanted.has(child)) {
      child.remove();
    }
  }
  children.forEach((child, index) => {
    const present = parent.children[index];
    if (present !== child) {
      parent.insertBefore(child, present ?? null);
    }
  });
}

/** A moment: today's with its time, others with their day, too; and all of it for machines and on closer look. */
export function timeOf(moment: string): HTMLTimeElement {
  const at = new Date(moment);
  const today = at.toDateString() === new Date().toDateString();
  const made = element("time");
  made.dateTime = moment;
  made.title = at.toLocaleString(undefined, { dateStyle: "full", timeStyle: "medium" });
  made.textContent = at.toLocaleString(
    undefined,
    today ? { timeStyle: "short" } : { dateStyle: "medium", timeStyle: "short" },
  );
  return made;
}
