/** What can be learned from sockets that others open. */

/** With which status of HTTP a handshake was refused. Browsers hide it; the sockets of Node.js's `ws` say it. */
export function handshakeStatus(event: Event): number | null {
  const { message } = event as Event & { message?: unknown };
  const found = /response: (\d{3})/.exec(String(message));
  return found === null ? null : Number(found[1]);
}

interface Watcher {
  received: (frame: Uint8Array) => void;
  sent: (frame: Uint8Array) => void;
  refused: (status: number) => void;
}

/** A class of sockets whose frames are seen on their way. */
export function watchedSocket(Socket: typeof WebSocket, watcher: Watcher): typeof WebSocket {
  return class extends Socket {
    constructor(url: string | URL, protocols: string | string[] = []) {
      super(url, protocols);
      this.addEventListener("message", ({ data }) => watcher.received(new Uint8Array(data as ArrayBuffer)));
      this.addEventListener("error", (event) => {
        const status = handshakeStatus(event);
        if (status !== null) {
          watcher.refused(status);
        }
      });
    }

    override send(data: Uint8Array<ArrayBuffer>): void {
      watcher.sent(data);
      super.send(data);
    }
  };
}

/** The varUint of lib0 at `at`, and where it ends. */
export function readVarUint(bytes: Uint8Array, at: number): [value: number, end: number] {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++] ?? 0;
    value += (byte & 127) * factor;
    if (byte < 128) {
      return [value, at];
    }
  }
}

export function varUint(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) {
    bytes.push(128 | (value & 127));
  }
  return [...bytes, value];
}

/** The string of lib0 at `at`. */
export function readVarString(bytes: Uint8Array, at: number): string {
  const [length, start] = readVarUint(bytes, at);
  return new TextDecoder().decode(bytes.subarray(start, start + length));
}
