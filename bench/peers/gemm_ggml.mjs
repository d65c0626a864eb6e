// GEMM against ggml, whose matrix product takes weights of every float type: y = x Wᵀ with the shapes and weights of gemm.mjs.
// ggml keeps x and y in f32 and rounds x to the weights' type within the call; kernwatt has x and y in that type as well.
import { inTurn, say, sixtyFourths } from './common.mjs';
import { allowedIn, bound, k, n, rows } from './gemm.mjs';
import { openGgml, peer } from './ggml.mjs';

const types = ['f32', 'f16', 'bf16'];

export { peer };
export const title = 'y = x Wᵀ, K = N = 4096; weights cold';
export const notes = [
  'The types are those of the weights: x and y of ggml are f32. A call is a graph of one product, on a pool of threads that stays.',
];

export async function* cases(house) {
  const ggml = openGgml(house);
  if (!ggml) return say(`peers: ${peer.name} is not to be had, so nothing is held against ggml`);
  const w = sixtyFourths(n * k, 1);
  for (const m of rows) {
    const x = sixtyFourths(m * k, 2);
    for (const dtype of types)
      yield {
        label: `M=${m}`,
        facts: { m, n, k },
        flops: 2 * m * n * k,
        kernwatt: await bound(house, dtype, m, x, w),
        ggml: await loaded(house, ggml, dtype, m, x, w),
        allowed: allowedIn(dtype),
      };
  }
}

async function loaded({ stored, copiesOf }, ggml, dtype, m, x, w) {
  const elements = dtype === 'f32' ? w : await stored(dtype, w, [n, k]);
  const copies = copiesOf(elements.byteLength);
  const plain = ggml.kinds[0].kind; // the others take quantized weights alone
  return {
    dtype,
    copies,
    ...inTurn(Array.from({ length: copies }, () => ggml.mulMat({ m, n, k }, x, dtype, elements, plain))),
  };
}
