/** Windows of one origin that have the same session: they tell one another its newest token, in memory only. */

/** A window that was asleep has to be asked, and another one may be busy. */
const ANSWER_MS = 300;

interface Events {
  token: () => string | null;
  told: (token: string) => void;
}

type Words = { readonly token: string } | { readonly ask: string | null };

export class Peers {
  #channel: BroadcastChannel | null = null;
  #name: string | null = null;
  #answered: ((token: string) => void) | null = null;

  readonly #place: string;
  readonly #events: Events;

  /** Without a `place` it is alone. */
  constructor(place: string | null, events: Events) {
    this.#place = place ?? "";
    this.#events = events;
  }

  /** Listen to those that have the session. Its id is no secret, and those who listen are pages of this origin. */
  join(id: string | null): void {
    const name = id === null ? null : `roomkey ${this.#place} ${id}`;
    if (this.#place === "" || name === this.#name || typeof BroadcastChannel === "undefined") {
      return;
    }
    this.leave();
    this.#name = name;
    if (name !== null) {
      this.#channel = new BroadcastChannel(name);
      (this.#channel as { unref?: () => void }).unref?.();
      this.#channel.onmessage = ({ data }) => this.#hear(data as Words);
    }
  }

  tell(token: string): void {
    this.#say({ token });
  }

  /** A token that another window has and this one has not; `null` if nobody answers in time. */
  async ask(): Promise<string | null> {
    if (this.#channel === null) {
      return null;
    }
    return new Promise((resolve) => {
      const done = (token: string | null): void => {
        this.#answered = null;
        clearTimeout(timer);
        resolve(token);
      };
      const timer = setTimeout(done, ANSWER_MS, null);
      this.#answered = done;
      this.#say({ ask: this.#events.token() });
    });
  }

  leave(): void {
    this.#channel?.close();
    this.#channel = null;
    this.#name = null;
  }

  #hear(words: Words): void {
    const token = this.#events.token();
    if (!("token" in words)) {
      if (token !== null && token !== words.ask) {
        this.#say({ token });
      }
    } else if (words.token !== token) {
      if (this.#answered !== null) {
        this.#answered(words.token);
      } else {
        this.#events.told(words.token);
      }
    }
  }

  #say(words: Words): void {
    this.#channel?.postMessage(words);
  }
}
