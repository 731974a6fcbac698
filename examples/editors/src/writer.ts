import type { Status } from "@roomkey/client";

/** What the others see of whoever writes. */
export type User = {
  name: string;
  color: string;
};

/** Whether an editor takes input. Without a connection it does: what is written is kept, and merged later. */
export function mayWrite({ state }: Status): boolean {
  return ["active", "connecting", "offline"].includes(state);
}
