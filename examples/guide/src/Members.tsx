import { useEffect, useState } from "react";

import { api, type Member } from "./api";

/** What an administrator sees: who may come here, and how to change that. */
export function Members({ document }: { document: string }) {
  const [members, setMembers] = useState<Member[]>([]);
  const [reason, setReason] = useState("");

  async function load() {
    setMembers(await api<Member[]>("GET", `members/${document}`));
  }

  async function act(method: string, path: string, json?: unknown) {
    await api(method, path, json);
    await load();
  }

  useEffect(() => {
    const refresh = () => void load().catch(() => {}); // without a connection the page says so already
    const timer = setInterval(refresh, 2000);
    refresh();
    return () => clearInterval(timer);
  }, [document]);

  return (
    <section className="card">
      <h2>Members</h2>
      <label>
        Reason <input value={reason} onChange={(event) => setReason(event.target.value)} />
      </label>
      <ul>
        {members.map(({ user, may, isHere, isSuspended }) => (
          <li key={user}>
            <span>
              {user}, {isSuspended ? "suspended" : isHere ? "here" : "away"}
            </span>
            <select
              aria-label={`What ${user} may do`}
              value={may}
              onChange={(event) => void act("PUT", `members/${user}/${document}`, { may: event.target.value })}
            >
              <option value="read">may read</option>
              <option value="write">may write</option>
            </select>
            {isSuspended ? (
              <button onClick={() => void act("DELETE", `suspensions/${user}`)}>Resume {user}</button>
            ) : (
              <button onClick={() => void act("PUT", `suspensions/${user}`, { reason })}>Suspend {user}</button>
            )}
            <button
              className="danger"
              onClick={() => void act("DELETE", `members/${user}/${document}?reason=${encodeURIComponent(reason)}`)}
            >
              Remove {user}
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
