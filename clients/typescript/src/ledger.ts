/** Which of our changes the server has said are durable. Pure. */

/**
 * The server counts, on each connection, the changes and the answers to its question for changes (step 2) that it was
 * sent, and says how many of these frames would survive a crash. A step 2 has everything that was written before.
 */
export class Ledger {
  #written = 0;
  #saved = 0;
  /** For each frame that is under way: up to which of our changes all are on the server when it is durable. */
  #covers: number[] = [];
  #durable = 0;
  #broughtAll = false;

  /** How many changes may be only here. */
  get unsaved(): number {
    return this.#written - this.#saved;
  }

  /** Our user changed something. */
  wrote(): void {
    this.#written += 1;
  }

  /** A connection begins: what was under way may be lost. */
  opened(): void {
    this.#covers = [];
    this.#durable = 0;
    this.#broughtAll = false;
  }

  /** A frame with changes was sent. */
  sent(bringsAll: boolean): void {
    this.#broughtAll ||= bringsAll;
    // A change alone says nothing of those before it, if they were made while nobody was connected.
    this.#covers.push(this.#broughtAll ? this.#written : 0);
  }

  /** The first `frames` frames of this connection are durable. */
  durable(frames: number): void {
    const covered = this.#covers.splice(0, Math.max(0, frames - this.#durable));
    this.#durable = Math.max(this.#durable, frames);
    this.#saved = Math.max(this.#saved, ...covered);
  }

  /** One more frame is durable. */
  nextDurable(): void {
    this.durable(this.#durable + 1);
  }
}
