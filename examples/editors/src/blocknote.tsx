import "@blocknote/mantine/style.css";

import { withCollaboration } from "@blocknote/core/yjs";
import { BlockNoteView } from "@blocknote/mantine";
import { useCreateBlockNote } from "@blocknote/react";
import type { Session, Status } from "@roomkey/client";
import { useDocument } from "@roomkey/client/react";
import { type OpenDocument, openDocument } from "@roomkey/client/y-websocket";

import { mayWrite, type User } from "./writer";

export function Editor({ session, name, user }: { session: Session; name: string; user: User }) {
  const { document, status } = useDocument(() => openDocument(session, name), [session, name]);
  return document && <Blocks document={document} status={status} user={user} />;
}

function Blocks({ document, status, user }: { document: OpenDocument; status: Status; user: User }) {
  const editor = useCreateBlockNote(
    withCollaboration({
      collaboration: {
        fragment: document.doc.getXmlFragment("blocknote"),
        provider: document.provider,
        user,
      },
    }),
    [document],
  );
  return <BlockNoteView editor={editor} editable={mayWrite(status)} />;
}
