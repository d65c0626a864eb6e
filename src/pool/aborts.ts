// Who waits for which AbortSignal: one listener for each signal, since a server's requests often share one and Node takes
// many listeners for a leak.

interface Watched<R> {
  requests: Set<R>;
  listener: () => void;
}

/** @internal */
export class Aborts<R> {
  readonly #watched = new Map<AbortSignal, Watched<R>>();
  readonly #aborted: (request: R, reason: unknown) => void;

  constructor(aborted: (request: R, reason: unknown) => void) {
    this.#aborted = aborted;
  }

  add(signal: AbortSignal, request: R): void {
    let watched = this.#watched.get(signal);
    if (!watched) {
      const requests = new Set<R>();
      const listener = () => {
        this.#watched.delete(signal);
        for (const one of requests) this.#aborted(one, signal.reason);
      };
      watched = { requests, listener };
      this.#watched.set(signal, watched);
      signal.addEventListener('abort', listener, { once: true });
    }
    watched.requests.add(request);
  }

  delete(signal: AbortSignal, request: R): void {
    const watched = this.#watched.get(signal);
    if (!watched?.requests.delete(request) || watched.requests.size > 0) return;
    this.#watched.delete(signal);
    signal.removeEventListener('abort', watched.listener);
  }
}
