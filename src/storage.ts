// Memory behind tensors: one buffer of a device, shared and counted by the views and plans that use it.
import type { Device } from './device.js';
import { type BufferHandle, native } from './native.js';
import type { Stream } from './stream.js';

/** Collected host memory below this is the ordinary fate of eager results and is not worth a warning. */
const quietBytes = 64 * 2 ** 20;

interface Trace {
  handle: BufferHandle;
  bytes: number;
  device: string;
}

let warned = false;

/** Frees what nobody disposed, and says so once a process when it was device memory or large: collection may come late. */
const forgotten = new FinalizationRegistry<Trace>(({ handle, bytes, device }) => {
  native().free(handle);
  if (warned || (device === 'cpu' && bytes < quietBytes)) return;
  warned = true;
  process.emitWarning(
    `a tensor of ${bytes} bytes on ${device} was garbage collected without dispose(); the collector does not see ` +
      'device memory, so dispose() tensors, declare them with `using`, or reuse outputs through a plan',
    { code: 'KERNWATT_LEAK' },
  );
});

/** @internal One allocation. It is freed when the last holder releases it, after queued work that uses it. */
export class Storage {
  /** Owner of the memory and where in it this allocation begins: equal owners may overlap (`fromExternal` twice). */
  readonly base: object;
  readonly baseOffset: number;
  readonly #external: ArrayBufferView | undefined;
  /** Whole numbers that the host wrote, and the writer and ticket of that time. */
  #written: { numbers: Int32Array; writer: Stream; ticket: number } | undefined;
  /** The stream that was last given this memory to write, and that stream's count at the time. */
  writer: Stream | undefined;
  ticket = 0;
  #holders = 1;

  constructor(
    readonly device: Device,
    readonly handle: BufferHandle,
    readonly bytes: number,
    external?: ArrayBufferView,
  ) {
    this.#external = external;
    this.base = external ? external.buffer : this;
    this.baseOffset = external ? external.byteOffset : 0;
    forgotten.register(this, { handle, bytes, device: device.name }, this);
  }

  retain(): this {
    ++this.#holders;
    return this;
  }

  release(): void {
    if (--this.#holders > 0) return;
    forgotten.unregister(this);
    native().free(this.handle);
  }

  /** Notes that `stream` was given work that writes here. */
  wrote(stream: Stream): void {
    this.writer = stream;
    this.ticket = ++stream.issued;
  }

  /** As `wrote`, with all that the memory then holds. */
  wroteNumbers(stream: Stream, numbers: Int32Array): void {
    this.wrote(stream);
    this.#written = { numbers, writer: stream, ticket: this.ticket };
  }

  /** What the memory holds once the work queued so far has run, where the host put it there itself. */
  get numbers(): Int32Array | undefined {
    if (this.writer === undefined) return this.#external instanceof Int32Array ? this.#external : undefined;
    const { numbers, writer, ticket } = this.#written ?? {};
    return writer === this.writer && ticket === this.ticket ? numbers : undefined;
  }

  /** True when another stream was given work that writes here and has not been waited for since. */
  pendingOutside(stream: Stream): boolean {
    return this.writer !== undefined && this.writer !== stream && this.ticket > this.writer.covered;
  }
}
