// Writing arrays too large to copy in one go: in pieces, with turns of the event loop in between.
import { setImmediate } from 'node:timers/promises';
import type { NumericData } from './dtype.js';
import { KernwattError } from './errors.js';
import { formatShape } from './shape.js';
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
  const { size } = tensor;
  if (data.length !== size)
    throw new KernwattError(
      'SHAPE',
      `${where}: data has ${data.length} elements, expected ${size} for ${formatShape(tensor.shape)}`,
    );
  const options = { stream: stream ?? tensor.device.stream };
  using flat = tensor.view([-1]);
  for (let start = 0, count = 1; start < size; start += piece, ++count) {
    const end = Math.min(start + piece, size);
    using part = flat.slice([[start, end]]);
    part.write(Array.isArray(data) ? data.slice(start, end) : (data as Float32Array).subarray(start, end), options);
    if (end === size) return;
    if (count % waiting === 0) await options.stream.mark();
    else await setImmediate();
    signal?.throwIfAborted();
    if (data.length !== size)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: data has ${data.length} elements after ${end} of them, expected ${size} to the end; leave it alone until then`,
      );
  }
}
