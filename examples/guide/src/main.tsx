import { Session } from "@roomkey/client";
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

import { api, fetchToken, type User } from "./api";
import { LogIn } from "./LogIn";
import { Note } from "./Note";
import "./style.css";

interface Entrance {
  user: User;
  session: Session;
}

/** Whoever is logged in, with a session that renews its token by itself. */
async function enter(): Promise<Entrance | null> {
  const token = await fetchToken();
  if (token === null) {
    return null;
  }
  const session = new Session({ url: new URL("/rooms", location.href), token, renew: fetchToken });
  return { user: await api<User>("GET", "me"), session };
}

function App() {
  const [entrance, setEntrance] = useState<Entrance | null>();
  useEffect(() => void enter().then(setEntrance), []);

  async function logOut() {
    entrance?.session.close();
    await api("POST", "logout");
    setEntrance(null);
  }

  if (entrance === undefined) {
    return null;
  }
  if (entrance === null) {
    return <LogIn done={() => void enter().then(setEntrance)} />;
  }
  return <Note {...entrance} name="notes/plan" logOut={() => void logOut()} />;
}

createRoot(document.getElementById("root")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
