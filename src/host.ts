// Page-locked host memory as an ArrayBuffer: what a device reads and writes without a copy in between.
import { constants } from 'node:buffer';
import type { Device } from './device.js';
import { arrayFor, entriesOf, type NumericData, type RawData, type TensorData } from './dtype.js';
import { KernwattError } from './errors.js';
import { native } from './native.js';
import type { Tensor } from './tensor.js';

/** Those that are not disposed. */
const owners = new WeakMap<ArrayBufferLike, HostBuffer>();

/**
 * Host memory that transfers use in place. An array over `buffer` given to `tensor.write()` is read when the stream comes to it, not
 * when it is given, so leave its contents alone until a later `stream.mark()` has resolved; `tensor.read({ into })` fills one.
 * The memory is page-locked where the device's library offers that, which on a GPU makes copies run at the speed of the bus and
 * beside kernels. It cannot be transferred to another thread.
 */
export class HostBuffer {
  readonly device: Device;
  readonly bytes: number;
  readonly #buffer: ArrayBuffer;
  #disposed = false;

  /** @internal Use `device.hostBuffer`. */
  constructor(device: Device, buffer: ArrayBuffer) {
    this.device = device;
    this.bytes = buffer.byteLength;
    this.#buffer = buffer;
    owners.set(buffer, this);
  }

  /** The memory. Arrays over it have length 0 once the buffer is disposed. */
  get buffer(): ArrayBuffer {
    return this.#buffer;
  }

  get disposed(): boolean {
    return this.#disposed;
  }

  /** Detaches the ArrayBuffer at once; the memory goes back once queued transfers are done with it. Idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    owners.delete(this.#buffer);
    detach(this.#buffer);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Missing before Node 22. */
const transfer = (ArrayBuffer.prototype as { transfer?: (bytes: number) => ArrayBuffer }).transfer;

/**
 * Detaches by the language's own means where it has them: the addon's would abort a Node of 24 and later on a buffer that somebody has
 * marked as untransferable. Such a one stays attached, and its memory until it is collected.
 */
function detach(buffer: ArrayBuffer): void {
  try {
    if (transfer) transfer.call(buffer, 0);
    else native().detach(buffer);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
  }
}

/** @internal Whether the buffer is one that `hostBuffer` made, whose memory lasts as long as anything uses it. */
export const isHostBuffer = (buffer: ArrayBufferLike): boolean => owners.has(buffer);

/** @internal */
export async function makeHostBuffer(device: Device, bytes: number): Promise<HostBuffer> {
  if (!Number.isSafeInteger(bytes) || bytes < 1 || bytes > constants.MAX_LENGTH)
    throw new KernwattError(
      'ARGUMENT',
      `hostBuffer: bytes is ${String(bytes)}, expected a whole number from 1 to ${constants.MAX_LENGTH}, the longest of this Node`,
    );
  return new HostBuffer(device, await native().hostBuffer(device.handle, bytes));
}

/** @internal What `read` may fill: memory of a host buffer alone stays where it is whatever the caller does meanwhile. */
export function checkInto({ dtype, size }: Tensor, into: TensorData | RawData, raw: boolean): void {
  const expected = arrayFor(dtype, 0, raw).constructor.name;
  const kind = ArrayBuffer.isView(into) ? into.constructor.name : typeof into;
  if (kind !== expected) throw new KernwattError('DTYPE', `read: into is ${kind}, expected ${expected}`);
  const length = entriesOf(size, into as NumericData, dtype);
  if (into.length !== length)
    throw new KernwattError('SHAPE', `read: into has ${into.length} elements, expected ${length}`);
  if (!owners.has(into.buffer))
    throw new KernwattError(
      'ARGUMENT',
      'read: into is over ordinary memory, expected an array over a live device.hostBuffer()',
    );
}

/** @internal An array that a tensor can be read into. */
export function arrayOf({ dtype, size }: Tensor, raw: boolean): TensorData | RawData {
  try {
    return arrayFor(dtype, size, raw);
  } catch (cause) {
    throw new KernwattError(
      'OUT_OF_MEMORY',
      `read: tensor has ${size} elements, expected what fits in one array; read slices`,
      { cause },
    );
  }
}
