// Long loops on the event loop's thread: a generator that yields between small pieces of work, and who runs it.
import { setImmediate } from 'node:timers/promises';

/** Work in pieces of at most some tenths of a millisecond. */
export type Pieces<T> = Generator<undefined, T, undefined>;

/** Milliseconds that the event loop waits for at most, but for one piece. */
const turn = 2;

/** Does the work, giving way to whatever else waits after every turn. */
export async function inTurns<T>(work: Pieces<T>, signal?: AbortSignal): Promise<T> {
  signal?.throwIfAborted();
  let begin = performance.now();
  for (;;) {
    const step = work.next();
    if (step.done) return step.value;
    if (performance.now() - begin < turn) continue;
    await setImmediate();
    signal?.throwIfAborted();
    begin = performance.now();
  }
}
