// A stream that direct requests share. Those that are launched in one turn of the event loop are waited for together.
import type { Plan } from '../plan.js';
import type { Stream } from '../stream.js';

export interface Launched {
  readonly plan: Plan;
  ended(): void;
  failed(error: unknown): void;
}

/**
 * Requests that are waited for together at most. Few enough that the device works on some while the answers of others are
 * handed out: with 64, 32 clients of small requests took 5.4 µs each on two cores, with 16 3.7 µs, with 8 4.0 µs.
 */
const mostTogether = 16;

/** @internal */
export class Lane {
  readonly stream: Stream;
  #open: Launched[] = [];
  #scheduled = false;

  constructor(stream: Stream) {
    this.stream = stream;
  }

  add(launched: Launched): void {
    this.#open.push(launched);
    if (this.#open.length >= mostTogether) this.#wait();
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Not sooner: small work is often done by then, and whoever awaits one request after another leaves others a turn.
    setImmediate(() => {
      this.#scheduled = false;
      if (this.#open.length > 0) this.#wait();
    });
  }

  #wait(): void {
    const batch = this.#open;
    this.#open = [];
    this.stream.mark().then(
      () => {
        for (const one of batch) one.ended();
      },
      (error) => this.#sort(batch, error),
    );
  }

  /** Something in a batch failed: each is run again and waited for by itself, which their memory, still as it was, allows. */
  async #sort(batch: readonly Launched[], error: unknown): Promise<void> {
    if (batch.length === 1) return batch[0]!.failed(error);
    for (const one of batch) {
      try {
        one.plan.enqueue();
        await this.stream.mark();
      } catch (own) {
        one.failed(own);
        continue;
      }
      one.ended();
    }
  }
}
