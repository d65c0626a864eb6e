// From a tensor's name to a tensor on a device.
import { Device } from '../device.js';
import { type DType, storedArray } from '../dtype.js';
import { KernwattError } from '../errors.js';
import type { Tensor } from '../tensor.js';
import { dequantizeBlocks, isBlockType } from './blocks.js';
import { type Checkpoint, checkCheckpoint, type Entry } from './checkpoint.js';
import { CheckpointError } from './error.js';
import { inTurns } from './turns.js';

/** Element types of safetensors and GGUF that tensors of a device have too. */
const dtypes: Readonly<Record<string, DType>> = {
  F32: 'f32',
  F16: 'f16',
  BF16: 'bf16',
  F8_E4M3: 'f8e4m3',
  F8_E5M2: 'f8e5m2',
  I32: 'i32',
  I8: 'i8',
  U8: 'u8',
};

/** Bytes of a tensor that are read and handed to the device at once. */
const piece = 4 * 2 ** 20;

export interface LoadTensorOptions {
  device: Device;
  /** For Q4_0 and Q4_1 of GGUF: compute the weights in f32 and round them to this type. */
  dequantize?: 'f32' | 'bf16' | 'f16' | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * A tensor of a device with a tensor's stored elements: F32, F16, BF16, F8_E4M3, F8_E5M2, I32, I8, U8, and Q4_0 and Q4_1 of GGUF with
 * `dequantize`. A scalar becomes [1]. Read and handed over in pieces of 4 MiB, so that host memory holds no copy of it.
 * @throws {KernwattError} `UNSUPPORTED` for other types; `FILE` where there is no such tensor or the file became shorter;
 *   `OUT_OF_MEMORY`, `DISPOSED`; the signal's reason.
 */
export async function loadTensor(
  checkpoint: Checkpoint,
  name: string,
  { device, dequantize, signal }: LoadTensorOptions,
): Promise<Tensor> {
  checkCheckpoint('loadTensor', checkpoint);
  checkDevice('loadTensor', device);
  if (dequantize !== undefined && !['f32', 'bf16', 'f16'].includes(dequantize))
    throw new KernwattError('ARGUMENT', `loadTensor: dequantize is ${String(dequantize)}, expected f32, bf16 or f16`);
  const entry = checkpoint.entry(name);
  const blocks = isBlockType(entry.dtype);
  const dtype = blocks ? dequantize : dtypes[entry.dtype];
  if (dtype === undefined || (dequantize && !blocks)) {
    const expected = blocks ? 'the option dequantize' : dequantize ? 'Q4_0 or Q4_1' : Object.keys(dtypes).join(', ');
    throw new CheckpointError('UNSUPPORTED', checkpoint.place(name), `is ${entry.dtype}, expected ${expected}`);
  }
  const tensor = device.empty(entry.shape.length === 0 ? [1] : [...entry.shape], dtype);
  try {
    await fill(tensor, entry, signal);
    return tensor;
  } catch (error) {
    tensor.dispose();
    throw error;
  }
}

async function fill(tensor: Tensor, entry: Entry, signal: AbortSignal | undefined): Promise<void> {
  const { source, position, bytes, name } = entry;
  const blocks = isBlockType(entry.dtype);
  // Whole blocks of 18 or of 20 bytes; each becomes 128 bytes or 64.
  const step = blocks ? 18 * 20 * 2 ** 11 : piece;
  using flat = tensor.view([-1]);
  for (let from = 0, element = 0; from < bytes; from += step) {
    const stored = await source.read(position + from, Math.min(step, bytes - from), name, { signal });
    const data = blocks
      ? await inTurns(dequantizeBlocks(stored, entry), signal)
      : storedArray(tensor.dtype, stored.buffer as ArrayBuffer);
    using part = flat.slice([[element, element + data.length]]);
    part.write(data);
    element += data.length;
    await tensor.device.stream.mark();
  }
}

/** @internal Throws unless `device` is one. */
export function checkDevice(where: string, device: unknown): asserts device is Device {
  if (device instanceof Device) return;
  throw new KernwattError('ARGUMENT', `${where}: device is ${typeof device}, expected what openDevice() gives`);
}
