// Tensors shared between worker threads: one copy of the weights, however many workers read it.
import type { Device } from './device.js';
import { bytesOf, checkDType, type DType, isPaired } from './dtype.js';
import { KernwattError } from './errors.js';
import { native } from './native.js';
import { packedExtent } from './packed.js';
import { countElements, formatShape, rowMajor, type Shape } from './shape.js';
import { Storage } from './storage.js';
import { Tensor } from './tensor.js';

/** What `tensor.share()` gives and `device.adopt()` takes: plain data, to be posted to a worker thread of the same process. */
export interface SharedTensor {
  readonly kernwatt: 'tensor';
  /** Means nothing outside this process. */
  readonly id: string;
  readonly dtype: DType;
  readonly shape: Shape;
  /** Elements from the start of the allocation. */
  readonly offset: number;
  /** Tag of the format of a packed tensor. */
  readonly format?: number | undefined;
}

/** @internal */
export async function shareTensor(tensor: Tensor): Promise<SharedTensor> {
  tensor.check('share', 'tensor');
  if (!tensor.isContiguous)
    throw new KernwattError(
      'ARGUMENT',
      `share: tensor has strides ${formatShape(tensor.stride)}, expected a contiguous one; use contiguous()`,
    );
  const { storage, dtype, shape, nativeView } = tensor;
  const id = native().share(storage.handle);
  storage.readOnly = true;
  const { writer } = storage;
  if (writer && !writer.closed && storage.ticket > writer.covered) await writer.mark();
  return { kernwatt: 'tensor', id, dtype, shape: [...shape], offset: nativeView.offset, format: nativeView.format };
}

/** @internal */
export function adoptTensor(device: Device, token: SharedTensor): Tensor {
  device.check('adopt');
  if (token === null || typeof token !== 'object' || token.kernwatt !== 'tensor' || typeof token.id !== 'string')
    throw new KernwattError('ARGUMENT', 'adopt: token is not what tensor.share() gives, expected that');
  const { id, dtype, shape, offset, format } = token;
  checkDType('adopt', dtype);
  const size = countElements('adopt', shape, dtype);
  const packed = format === undefined ? undefined : packedExtent(dtype, shape, format);
  const needed = packed?.bytes ?? bytesOf(size, dtype);
  const { buffer, bytes } = native().adopt(device.handle, id);
  const whole = Number.isSafeInteger(offset) && offset >= 0 && !(isPaired(dtype) && offset % 2 !== 0);
  if (!whole || bytesOf(offset, dtype) + needed > bytes) {
    native().free(buffer);
    throw new KernwattError(
      'ARGUMENT',
      `adopt: token has ${size} elements of ${dtype} from ${String(offset)}, expected them within ${bytes} bytes`,
    );
  }
  const storage = new Storage(device, buffer, bytes);
  storage.readOnly = true;
  storage.origin = { distribution: 'external' };
  return new Tensor(storage, offset, dtype, [...shape], rowMajor(shape), packed);
}
