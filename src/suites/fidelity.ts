// How close the types of a linear layer come to f32: measured, since a suite has no task to score, on some rows of the layer with
// weights and activations of normal numbers. Trained ones have other tails.
import { type Fidelity, fidelity } from '../metrics/fidelity.js';
import type { KeptPerformance } from '../metrics/mcr.js';
import { openDevice } from '../open.js';
import { gemm, gemmInt4 } from '../ops/index.js';
import { quantizeInt4 } from '../quantize.js';
import type { Tensor } from '../tensor.js';

const [rows, tokens, group] = [256, 8, 128];

export interface LayerFidelity extends Fidelity {
  label: string;
  /** Bits of a weight: as the type is called, and with scales. */
  bits: { nominal: number; stored: number };
}

/** Of a layer with `k` inputs. On the CPU whatever is measured: the definition is the same everywhere. */
export async function layerFidelity(k: number, seed: number): Promise<LayerFidelity[]> {
  await using device = await openDevice('cpu');
  using x = device.random([tokens, k], 'f32', { seed });
  using w = device.random([rows, k], 'f32', { seed: seed + 1, sd: 0.02 });
  const read = async ({ y }: { y: Tensor }) => {
    using result = y;
    return result.read();
  };
  const exact = await read(gemm({ x, w }));
  const found: LayerFidelity[] = [];
  const add = async (label: string, nominal: number, stored: number, call: { y: Tensor }) =>
    found.push({ label, bits: { nominal, stored }, ...fidelity(exact, await read(call)) });
  for (const dtype of ['bf16', 'f16'] as const) {
    using a = device.empty(x.shape, dtype).copyFrom(x);
    using b = device.empty(w.shape, dtype).copyFrom(w);
    await add(dtype, 16, 16, gemm({ x: a, w: b }, { dtype: 'f32' }));
  }
  using a = device.empty(x.shape, 'bf16').copyFrom(x);
  using b = device.empty(w.shape, 'bf16').copyFrom(w);
  using packed = await quantizeInt4(b, { group });
  await add('int4', 4, (packed.bytes * 8) / w.size, gemmInt4({ x: a, ...packed.operands }, { dtype: 'f32' }));
  return found;
}

/** As MCR takes it. */
export const keptPerformance = ({ relativeError }: Fidelity): KeptPerformance => ({
  value: 1 - relativeError,
  kind: '1 - relative error of y against f32 (normal weights and activations)',
});
