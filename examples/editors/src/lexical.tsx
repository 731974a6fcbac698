import { LexicalCollaboration } from "@lexical/react/LexicalCollaborationContext";
import { CollaborationPlugin } from "@lexical/react/LexicalCollaborationPlugin";
import { LexicalComposer } from "@lexical/react/LexicalComposer";
import { useLexicalComposerContext } from "@lexical/react/LexicalComposerContext";
import { ContentEditable } from "@lexical/react/LexicalContentEditable";
import { LexicalErrorBoundary } from "@lexical/react/LexicalErrorBoundary";
import { RichTextPlugin } from "@lexical/react/LexicalRichTextPlugin";
import type { Provider } from "@lexical/yjs";
import type { Session } from "@roomkey/client";
import { type OpenDocument, openDocument } from "@roomkey/client/y-websocket";
import { type LexicalEditor } from "lexical";
import { ObservableV2 } from "lib0/observable";
import { useCallback } from "react";
import { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";

import { mayWrite, type User } from "./writer";

/** Lexical says when a document is opened and closed. */
class LexicalProvider extends ObservableV2<{ sync: (isSynced: boolean) => void }> {
  readonly awareness: Awareness;
  #document: OpenDocument | null = null;

  constructor(
    readonly session: Session,
    readonly name: string,
    readonly doc: Y.Doc,
    readonly editor: LexicalEditor,
  ) {
    super();
    this.awareness = new Awareness(doc);
  }

  connect() {
    const document = openDocument(this.session, this.name, this.doc, { provider: { awareness: this.awareness } });
    document.provider.on("sync", (isSynced) => this.emit("sync", [isSynced]));
    document.status.subscribe((status) => this.editor.setEditable(mayWrite(status)));
    this.#document = document;
  }

  disconnect() {
    this.#document?.close();
    this.#document = null;
  }
}

function Together({ session, name, user }: { session: Session; name: string; user: User }) {
  const [editor] = useLexicalComposerContext();
  const open = useCallback(
    (id: string, docs: Map<string, Y.Doc>) => {
      const doc = new Y.Doc();
      docs.set(id, doc);
      return new LexicalProvider(session, id, doc, editor) as unknown as Provider;
    },
    [session, editor],
  );
  return <CollaborationPlugin id={name} providerFactory={open} username={user.name} cursorColor={user.color} shouldBootstrap />;
}

export function Editor(props: { session: Session; name: string; user: User }) {
  const config = {
    namespace: "notes",
    editorState: null, // the document has it
    onError: (error: Error) => {
      throw error;
    },
  };
  return (
    <LexicalCollaboration>
      <LexicalComposer initialConfig={config}>
        <RichTextPlugin contentEditable={<ContentEditable />} ErrorBoundary={LexicalErrorBoundary} />
        <Together {...props} />
      </LexicalComposer>
    </LexicalCollaboration>
  );
}
