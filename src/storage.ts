// Memory behind tensors: one buffer of a device, shared and counted by the views and plans that use it.
import type { Device } from './device.js';
import { type BufferHandle, native } from './native.js';
import type { Stream } from './stream.js';
import type { Origin } from './tensor.js';

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
  /** What the memory was last filled with; undefined once an operator has written to it. */
  origin: Origin | undefined;
  /** Whole numbers that the host put there itself; undefined once anything else was given the memory to write. */
  numbers: Int32Array | undefined;
  /** The stream that was last given this memory to write, and that stream's count at the time. */
  writer: Stream | undefined;
  ticket = 0;
  /** Shared with other threads, or theirs: nothing here may write to it. */
  readOnly = false;
  #holders = 1;

  constructor(
    readonly device: Device,
    readonly handle: BufferHandle,
    readonly bytes: number,
    external?: ArrayBufferView | { base: object; byteOffset: number },
  ) {
    this.numbers = external instanceof Int32Array ? external : undefined;
    this.base = !external ? this : ArrayBuffer.isView(external) ? external.buffer : external.base;
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

  /** Notes that `stream` was given work that writes here, what it writes where that is known, and the numbers if few. */
  wrote(stream: Stream, origin?: Origin, numbers?: Int32Array): void {
    this.origin = origin;
    // Memory of the caller may change behind our back.
    this.numbers = this.base === this ? numbers : undefined;
    this.writer = stream;
    this.ticket = ++stream.issued;
  }

  /** True when another stream was given work that writes here and has not been waited for since. */
  pendingOutside(stream: Stream): boolean {
    return this.writer !== undefined && this.writer !== stream && this.ticket > this.writer.covered;
  }
}
