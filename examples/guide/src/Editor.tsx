import type { OpenDocument } from "@roomkey/client/y-websocket";
import Collaboration from "@tiptap/extension-collaboration";
import CollaborationCaret from "@tiptap/extension-collaboration-caret";
import { EditorContent, useEditor } from "@tiptap/react";
import StarterKit from "@tiptap/starter-kit";
import { useEffect } from "react";

import type { User } from "./api";

const COLORS = ["#2f5bd0", "#a3246b", "#1f6f4a", "#94590a"];

interface EditorProps {
  document: OpenDocument;
  user: User;
  canWrite: boolean;
}

export function Editor({ document, user, canWrite }: EditorProps) {
  const editor = useEditor(
    {
      extensions: [
        StarterKit.configure({ undoRedo: false }), // Collaboration has an undo of its own
        Collaboration.configure({ document: document.doc }),
        CollaborationCaret.configure({
          provider: document.provider,
          user: { name: user.name, color: COLORS[document.doc.clientID % COLORS.length] },
        }),
      ],
      editorProps: { attributes: { role: "textbox", "aria-multiline": "true", "aria-label": "The note" } },
    },
    [document],
  );
  useEffect(() => void editor?.setEditable(canWrite), [editor, canWrite]);
  return <EditorContent className="card paper" editor={editor} />;
}
