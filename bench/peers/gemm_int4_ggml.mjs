// Four-bit weights in the format of GGUF's Q4_0, groups of 32 with a scale in f16, x rounded to int8 in blocks of 32: y = x Ŵᵀ
// against ggml. Both sides hold the same codes and scales, kernwatt prepacked, ggml in the buffer that is fastest for the
// shape: as they are, or rearranged for vector instructions or AMX. Weights rotate as in gemm_int4.mjs.
import { fastest, inTurn, say, sixtyFourths } from './common.mjs';
import { bound, layers, mostCopies, nibbles, rows, scaleOf } from './gemm_int4.mjs';
import { openGgml, peer } from './ggml.mjs';

const group = 32;
const accuracy = 'int8';

export { peer };
export const title = 'y = x Ŵᵀ, Ŵ in 4 bits with f16 scales (Q4_0), x rounded to int8, x and y in f32; weights cold';
export const notes = [
  'At the right where ggml keeps its weights: AMX and CPU_REPACK rearrange them when they are loaded. A call is a graph of one',
  'product, on a pool of threads that stays.',
];

export async function* cases(house) {
  const ggml = openGgml(house);
  if (!ggml) return say(`peers: ${peer.name} is not to be had, so nothing is held against ggml`);
  for (const [n, k] of layers) {
    const w = nibbles((n * k) / 2);
    const blocks = await blocksOf(house, w, n, k);
    for (const m of rows) {
      const x = sixtyFourths(m * k, 2);
      yield {
        label: `M=${m} N=${n} K=${k}`,
        facts: { m, n, k, group, accuracy },
        flops: 2 * m * n * k,
        kernwatt: bound(house, { m, n, k, group, accuracy, scaleType: 'f16' }, x, w),
        ggml: await loaded(house, ggml, { m, n, k }, x, blocks),
        // ggml rounds the scales of x to f16.
        allowed: (value) => 0.05 + 2e-3 * Math.abs(value),
      };
    }
  }
}

/** Blocks of Q4_0: a scale, then 16 bytes, byte i with code i in its low half and code i + 16 in the other. */
async function blocksOf({ stored }, w, n, k) {
  const groups = k / group;
  const values = Float32Array.from({ length: n * groups }, (_, i) => scaleOf(Math.floor(i / groups), i % groups));
  const scales = new Uint8Array((await stored('f16', values, [n * groups])).buffer);
  const half = group / 2;
  const blocks = new Uint8Array(n * groups * (2 + half));
  const code = (e) => (w[e >> 1] >> (4 * (e & 1))) & 15;
  for (let b = 0, at = 0; b < n * groups; b++) {
    blocks[at++] = scales[2 * b];
    blocks[at++] = scales[2 * b + 1];
    for (let i = 0; i < half; i++) blocks[at++] = code(b * group + i) | (code(b * group + half + i) << 4);
  }
  return blocks;
}

async function loaded({ copiesOf }, ggml, shape, x, blocks) {
  const copies = Math.min(mostCopies, copiesOf(blocks.length));
  const candidates = ggml.kinds.map(({ kind, how }) => ({
    how,
    prepare: () => inTurn(Array.from({ length: copies }, () => ggml.mulMat(shape, x, 'q4_0', blocks, kind))),
  }));
  return { dtype: 'f32', copies, ...(await fastest(candidates)) };
}
