// A queue of work on one device: operators, copies and fills run in the order in which they were queued.
import type { Device } from './device.js';
import { KernwattError } from './errors.js';
import { native, type StreamHandle } from './native.js';

/**
 * Work queued on one stream runs in order; work on different streams is not ordered, so wait for one (`await a.mark()`)
 * before its results are used on another. Nothing here blocks the event loop except `syncNow()`.
 */
export class Stream {
  readonly device: Device;
  /** @internal */
  readonly handle: StreamHandle;
  /** @internal Writes queued so far, and how many of them a resolved mark has covered. */
  issued = 0;
  /** @internal */
  covered = 0;
  #closed: Promise<void> | undefined;

  /** @internal Use `device.createStream()`. */
  constructor(device: Device, handle: StreamHandle) {
    this.device = device;
    this.handle = handle;
  }

  /**
   * Resolves when everything queued before this call has run.
   * @throws {KernwattError} the first error of that work, with its own code; `DISPOSED` on a closed stream.
   */
  async mark(): Promise<void> {
    this.check('mark');
    const issued = this.issued;
    await native().mark(this.handle);
    this.covered = Math.max(this.covered, issued);
  }

  /** Resolves when the stream has nothing left to do at the time of the call; the same as `mark()`. */
  sync(): Promise<void> {
    return this.mark();
  }

  /** Blocks the calling thread, and with it the event loop, until everything queued has run. */
  syncNow(): void {
    this.check('syncNow');
    const issued = this.issued;
    native().syncNow(this.handle);
    this.covered = Math.max(this.covered, issued);
  }

  get closed(): boolean {
    return this.#closed !== undefined || this.device.closed;
  }

  /** Lets the queued work finish, then gives the stream back. Idempotent; the device's own stream closes with the device. */
  close(): Promise<void> {
    if (this === this.device.stream)
      throw new KernwattError(
        'ARGUMENT',
        `stream.close: this is the default stream of ${this.device.name}; close the device`,
      );
    if (this.device.closed) return this.device.close();
    this.#closed ??= native().destroyStream(this.handle);
    return this.#closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** @internal Throws `DISPOSED` unless work can be queued here. */
  check(where: string): void {
    if (this.device.closed)
      throw new KernwattError('DISPOSED', `${where}: device ${this.device.name} is closed, expected an open one`);
    if (this.#closed) throw new KernwattError('DISPOSED', `${where}: stream is closed, expected an open one`);
  }
}
