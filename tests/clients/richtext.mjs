// What editors make of rich text: node richtext.mjs, with a request on standard input, as JSON, as is the answer.
import { createHeadlessEditor } from "@lexical/headless";
import { LinkNode } from "@lexical/link";
import { ListItemNode, ListNode } from "@lexical/list";
import { HeadingNode, QuoteNode } from "@lexical/rich-text";
import { createBinding, syncLexicalUpdateToYjs, syncYjsChangesToLexical } from "@lexical/yjs";
import { getSchema, Mark } from "@tiptap/core";
import { TaskItem, TaskList } from "@tiptap/extension-list";
import { TableKit } from "@tiptap/extension-table";
import StarterKit from "@tiptap/starter-kit";
import { readFileSync } from "node:fs";
import { prosemirrorJSONToYDoc, updateYFragment, yXmlFragmentToProseMirrorRootNode } from "y-prosemirror";
import * as Y from "yjs";

const Comment = Mark.create({ name: "comment", excludes: "", addAttributes: () => ({ id: { default: null } }) });
const schema = getSchema([StarterKit, TaskList, TaskItem.configure({ nested: true }), TableKit, Comment]);

const opened = (update) => {
  const doc = new Y.Doc();
  Y.applyUpdate(doc, Buffer.from(update, "base64"));
  return doc;
};
const closed = (doc) => Buffer.from(Y.encodeStateAsUpdate(doc)).toString("base64");

const operations = {
  // What Tiptap shows of a document; it throws where it knows something not.
  tiptap: ({ update, root }) => {
    const shown = yXmlFragmentToProseMirrorRootNode(opened(update).getXmlFragment(root), schema);
    shown.check();
    return shown.toJSON();
  },
  // The document that Tiptap makes of what it shows.
  tiptapWrites: ({ content, root }) => closed(prosemirrorJSONToYDoc(schema, content, root)),
  // How many bytes y-prosemirror writes to make a document be what it shows already.
  tiptapMends: ({ update, root }) => {
    const doc = opened(update);
    const fragment = doc.getXmlFragment(root);
    const before = Y.encodeStateVector(doc);
    const shown = yXmlFragmentToProseMirrorRootNode(fragment, schema);
    doc.transact(() => updateYFragment(doc, fragment, shown, { mapping: new Map(), isOMark: new Map() }));
    return Y.encodeStateAsUpdate(doc, before).length - Y.encodeStateAsUpdate(doc, Y.encodeStateVector(doc)).length;
  },
  lexicalWrites: ({ state }) => lexical(new Y.Doc(), state).then(({ doc }) => closed(doc)),
  lexical: ({ update }) => lexical(opened(update)).then(({ editor }) => editor.getEditorState().toJSON()),
};

// An editor of Lexical that is bound to a document, as its collaboration plugin binds it.
async function lexical(doc, state) {
  const onError = (error) => {
    throw error;
  };
  const editor = createHeadlessEditor({ nodes: [HeadingNode, QuoteNode, ListNode, ListItemNode, LinkNode], onError });
  const nothing = () => {};
  const awareness = { getLocalState: () => null, getStates: () => new Map(), setLocalState: nothing };
  const provider = { awareness: { ...awareness, on: nothing, off: nothing } };
  const copy = new Y.Doc();
  const binding = createBinding(editor, provider, "main", copy, new Map([["main", copy]]));
  const shared = binding.root.getSharedType();
  shared.observeDeep((events, transaction) => {
    if (transaction.origin !== binding) syncYjsChangesToLexical(binding, provider, events, false);
  });
  editor.registerUpdateListener(({ prevEditorState, editorState, dirtyElements, dirtyLeaves, normalizedNodes, tags }) => {
    if (tags.has("skip-collab")) return;
    const dirty = [dirtyElements, dirtyLeaves, normalizedNodes, tags];
    syncLexicalUpdateToYjs(binding, provider, prevEditorState, editorState, ...dirty);
  });
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc));
  await new Promise((done) => setTimeout(done));
  if (state !== undefined) {
    editor.setEditorState(editor.parseEditorState(JSON.stringify(state)));
    await new Promise((done) => setTimeout(done));
  }
  return { editor, doc: copy };
}

const request = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(await operations[request.do](request)));
process.exit(0);
