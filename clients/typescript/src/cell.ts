/** A value that others watch. */

/** What can be read and watched; a store of Svelte is one, and React and Vue need no more. */
export interface Watchable<T> {
  readonly value: T;
  /** Calls `watcher` now and after each change; returns what ends that. */
  subscribe(watcher: (value: T) => void): () => void;
}

export class Cell<T> implements Watchable<T> {
  readonly #watchers = new Set<(value: T) => void>();
  #value: T;

  constructor(
    value: T,
    private readonly isSame: (one: T, other: T) => boolean = Object.is,
  ) {
    this.#value = value;
  }

  get value(): T {
    return this.#value;
  }

  set(value: T): void {
    if (!this.isSame(value, this.#value)) {
      this.#value = value;
      for (const watcher of [...this.#watchers]) {
        watcher(value);
      }
    }
  }

  subscribe(watcher: (value: T) => void): () => void {
    // Whoever subscribes the same function twice is called twice.
    const called = (value: T): void => watcher(value);
    this.#watchers.add(called);
    called(this.#value);
    return () => void this.#watchers.delete(called);
  }
}

/** Whether two small records say the same. */
export function isAlike<T extends object>(one: T, other: T): boolean {
  const keys = Object.keys(one) as (keyof T)[];
  return keys.length === Object.keys(other).length && keys.every((key) => Object.is(one[key], other[key]));
}

/** Functions that are called when something happens. */
export class Signal<T> {
  readonly #listeners = new Set<(what: T) => void>();

  on(listener: (what: T) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  emit(what: T): void {
    for (const listener of [...this.#listeners]) {
      listener(what);
    }
  }
}
