// What is too large to copy in one go: arrays in pieces with turns of the event loop in between, tensors through the host.
import { setImmediate } from 'node:timers/promises';
import type { Device } from './device.js';
import { bitsOf, entriesOf, type NumericData } from './dtype.js';
import { KernwattError } from './errors.js';
import { checkLength } from './shape.js';
import type { Stream } from './stream.js';
import type { Tensor } from './tensor.js';

export interface UploadOptions {
  stream?: Stream | undefined;
  signal?: AbortSignal | undefined;
}

/** Elements that are copied, and if need be converted, within one turn: about a millisecond's work. */
const piece = 2 ** 18;
/** Pieces that may wait in host memory for the device. */
const waiting = 64;

/**
 * @internal Writes `data` into a contiguous tensor. Resolves when all of it has been handed over; work queued on the stream
 * from then on sees it.
 */
export async function upload(
  where: string,
  tensor: Tensor,
  data: NumericData,
  { stream, signal }: UploadOptions = {},
): Promise<void> {
  const { size, dtype } = tensor;
  checkLength(where, data, tensor.shape, size, dtype);
  const { length } = data;
  const options = { stream: stream ?? tensor.device.stream };
  using flat = tensor.view([-1]);
  for (let start = 0, count = 1; start < size; start += piece, ++count) {
    const end = Math.min(start + piece, size);
    using part = flat.slice([[start, end]]);
    const [from, to] = [start, end].map((element) => entriesOf(element, data, dtype));
    part.write(Array.isArray(data) ? data.slice(from, to) : (data as Float32Array).subarray(from, to), options);
    if (end === size) return;
    if (count % waiting === 0) await options.stream.mark();
    else await setImmediate();
    signal?.throwIfAborted();
    if (data.length !== length)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: data has ${data.length} elements after ${end} of them, expected ${length} to the end; leave it alone until then`,
      );
  }
}

const chunkBytes = 256 * 2 ** 20;

/** @internal A row-major copy of a plain tensor on another device. */
export async function moveTo(tensor: Tensor, device: Device): Promise<Tensor> {
  const { shape, size, dtype } = tensor;
  const target = device.allocate('to', shape, dtype);
  using source = tensor.contiguous();
  try {
    using from = source.view([-1]);
    using into = target.view([-1]);
    const step = Math.floor((chunkBytes * 8) / bitsOf(dtype));
    for (let start = 0; start < size; start += step) {
      const range = [start, Math.min(start + step, size)] as const;
      using read = from.slice([range]);
      using written = into.slice([range]);
      written.write(await read.read({ raw: true }));
    }
    target.storage.origin = tensor.origin;
    return target;
  } catch (error) {
    target.dispose();
    throw error;
  }
}
