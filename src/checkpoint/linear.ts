// From a layer's name to what gemmInt4 takes, on a device.
import type { Device } from '../device.js';
import type { Tensor } from '../tensor.js';
import type { Checkpoint } from './checkpoint.js';
import { type Int4Weight, Layer } from './int4.js';
import { type Int4Options, readInt4Linear } from './read.js';
import { checkDevice, loadTensor } from './tensor.js';

/** Operands of gemmInt4 on a device, as `gemmInt4({ x, ...layer.operands })` takes them. */
export interface Int4Linear extends Omit<Int4Weight, 'w' | 'scales' | 'zeros' | 'perm'> {
  readonly operands: {
    readonly w: Tensor;
    readonly scales: Tensor;
    readonly zeros?: Tensor;
    readonly perm?: Tensor;
    readonly bias?: Tensor;
  };
  /** Of all operands. */
  readonly bytes: number;
  /** Disposes of the operands. Idempotent. */
  dispose(): void;
  [Symbol.dispose](): void;
}

/**
 * The same as tensors of a device, with the layer's bias where it has one: `gemmInt4({ x, ...layer.operands })`. On an error
 * nothing stays on the device.
 * @throws {KernwattError} as readInt4Linear; `OUT_OF_MEMORY`, `DISPOSED`.
 */
export async function loadInt4Linear(
  checkpoint: Checkpoint,
  name: string,
  { device, ...options }: Int4Options & { device: Device },
): Promise<Int4Linear> {
  checkDevice('loadInt4Linear', device);
  const { w, scales, zeros, perm, ...about } = await readInt4Linear(checkpoint, name, options);
  const { rows, k, group } = about;
  const layer = new Layer(checkpoint, name, options);
  if (layer.has('bias')) layer.floats('bias', [rows]);
  const made: Tensor[] = [];
  const upload = async (...args: Parameters<Device['upload']>): Promise<Tensor> => {
    const tensor = await device.upload(...args);
    made.push(tensor);
    return tensor;
  };
  const { signal } = options;
  const dispose = () => {
    for (const tensor of made) tensor.dispose();
  };
  try {
    const groups = k / group;
    const operands = {
      w: await upload(w, [rows, k], 'u4', { signal }),
      scales: await upload(scales.data, [groups, rows], scales.dtype, { signal }),
      ...(zeros && { zeros: await upload(zeros, [groups, rows], 'u4', { signal }) }),
      ...(perm && { perm: await upload(perm, [k], 'i32', { signal }) }),
    };
    const bias = layer.has('bias') && (await loadTensor(checkpoint, `${name}.bias`, { device, signal }));
    if (bias) made.push(bias);
    const bytes = made.reduce((sum, tensor) => sum + tensor.bytes, 0);
    return { ...about, operands: { ...operands, ...(bias && { bias }) }, bytes, dispose, [Symbol.dispose]: dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}
