import { type FormEvent, useState } from "react";

import { api } from "./api";

export function LogIn({ done, title = "Notes" }: { done: () => void; title?: string }) {
  const [problem, setProblem] = useState("");

  async function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    try {
      await api("POST", "login", Object.fromEntries(new FormData(event.currentTarget)));
      done();
    } catch (error) {
      setProblem(String((error as Error).message));
    }
  }

  return (
    <form className="card log-in" onSubmit={(event) => void submit(event)}>
      <h1>{title}</h1>
      <label>
        Name <input name="user" autoComplete="username" required />
      </label>
      <label>
        Password <input name="password" type="password" autoComplete="current-password" required />
      </label>
      <button className="primary">Log in</button>
      {problem && <p role="alert">{problem}</p>}
    </form>
  );
}
