// GEMM: y = x Wᵀ with K = N = 4096 and M in {1, 16, 512}; weights rotate through copies, so that neither finds them in a cache.
// onnxruntime-node packs constant weights when it loads a model; kernwatt is given them packed once as well, in place of the originals.
import { kernwatt, sixtyFourths, turns } from './common.mjs';
import { model } from './onnx.mjs';

export const k = 4096;
export const n = 4096;
export const rows = [1, 16, 512];
/** Whom each element type is timed against: onnxruntime has no bf16 product on the CPU, so its f16 and f32 stand in, and its f32
 * can be faster than its f16. */
const pairs = [
  ['f32', 'f32'],
  ['f16', 'f16'],
  ['f16', 'f32'],
  ['bf16', 'f16'],
  ['bf16', 'f32'],
];

export const title = 'y = x Wᵀ, K = N = 4096; weights cold';
export const notes = ['onnxruntime-node has no bf16 product on the CPU: its f16 and f32 are the peers of bf16.'];

export async function* cases(house) {
  const w = sixtyFourths(n * k, 1);
  for (const m of rows) {
    const x = sixtyFourths(m * k, 2);
    for (const [ours, theirs] of pairs)
      yield {
        label: `M=${m}`,
        facts: { m, n, k },
        flops: 2 * m * n * k,
        kernwatt: await bound(house, ours, m, x, w),
        onnxruntime: await loaded(house, theirs, m, x, w),
        allowed: allowedIn(ours),
      };
  }
}

/** In f32 the sums here are exact; 16-bit types round the result. */
export const allowedIn = (dtype) => (value) => (dtype === 'f32' ? 0 : 2 ** -7 * Math.abs(value) + 2 ** -8);

export async function bound({ device, copiesOf }, dtype, m, x, w) {
  const tensor = device.tensor(x, [m, k], dtype);
  const copies = copiesOf(n * k * (dtype === 'f32' ? 4 : 2));
  const weights = Array.from({ length: copies }, () =>
    kernwatt.gemm.prepack({ w: device.tensor(w, [n, k], dtype) }, { dispose: true }),
  );
  const y = device.empty([m, n], dtype);
  const plans = weights.map((one) => kernwatt.gemm.bind({ x: tensor, w: one, y }));
  const next = turns(copies);
  return {
    dtype,
    copies,
    explain: plans[0].explain(),
    run: () => plans[next()].run(),
    result: () => y.read(),
    release() {
      for (const one of [...plans, ...weights, tensor, y]) one.dispose();
    },
  };
}

async function loaded({ session, tensor, stored, empty, numbers, copiesOf }, dtype, m, x, w) {
  const feeds = { x: tensor(dtype, await stored(dtype, x, [m, k]), [m, k]) };
  const transposed = await stored(dtype, w, [n, k], [1, 0]);
  const bytes = model(
    { op: 'MatMul' },
    [
      { name: 'x', type: dtype, shape: [m, k] },
      { name: 'w', type: dtype, shape: [k, n], data: transposed },
    ],
    [{ name: 'y', type: dtype, shape: [m, n] }],
  );
  const copies = copiesOf(transposed.byteLength);
  const sessions = [];
  for (let i = 0; i < copies; i++) sessions.push(await session(bytes));
  const fetches = { y: empty(dtype, [m, n]) };
  const next = turns(copies);
  return {
    dtype,
    copies,
    run: () => sessions[next()].run(feeds, fetches),
    result: () => numbers(fetches.y),
    async release() {
      for (const one of sessions) await one.release();
    },
  };
}
