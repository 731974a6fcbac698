/** Markdown as far as an editor of notes needs it: what is bold looks bold. */

import { defineLanguageFacet, HighlightStyle, Language, syntaxHighlighting } from "@codemirror/language";
import type { Extension } from "@codemirror/state";
import { tags } from "@lezer/highlight";
import { parser } from "@lezer/markdown";

const language = new Language(defineLanguageFacet(), parser, [], "markdown");

const looks = HighlightStyle.define([
  { tag: tags.heading1, fontSize: "1.6em", fontWeight: "700", letterSpacing: "-.02em" },
  { tag: tags.heading2, fontSize: "1.3em", fontWeight: "700", letterSpacing: "-.01em" },
  { tag: tags.heading, fontWeight: "700" },
  { tag: tags.strong, fontWeight: "700" },
  { tag: tags.emphasis, fontStyle: "italic" },
  { tag: tags.monospace, fontFamily: "var(--mono)", fontSize: ".9em" },
  { tag: tags.quote, color: "var(--soft)" },
  { tag: [tags.link, tags.url], color: "var(--accent)" },
  { tag: [tags.processingInstruction, tags.contentSeparator], color: "var(--soft)" },
]);

export const markdown: Extension = [language, syntaxHighlighting(looks)];
