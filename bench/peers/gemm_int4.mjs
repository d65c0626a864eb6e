// Four-bit weights: y = x Ŵᵀ with M in {1, 16, 512} at the sizes of a 7B model's projections, against onnxruntime's MatMulNBits,
// in both classes of accuracy: x as it is (accuracy_level 1) and x rounded to int8 in blocks (accuracy_level 4). Weights and
// scales rotate through copies, so that neither finds them in a cache close by. Both sides hold them as their kernels read them
// fastest, rearranged before anything is timed.
import { kernwatt, sixtyFourths, turns } from './common.mjs';
import { model } from './onnx.mjs';

export const rows = [1, 16, 512];
export const layers = [
  [4096, 4096],
  [11008, 4096],
];
/** Of the weight, since a session of onnxruntime takes half a second each: far more than the second-level caches hold. */
export const mostCopies = 16;
const groups = [128, 32];
const classes = [
  ['exact', 1],
  ['int8', 4],
];

export const title = 'y = x Ŵᵀ, Ŵ in 4 bits with f32 scales, x and y in f32; weights cold';
export const notes = [
  'g: neighbours along K that share a scale. int8: x rounded to int8 in blocks of g on both sides.',
];

export async function* cases(house) {
  for (const [n, k] of layers) {
    const w = nibbles((n * k) / 2);
    for (const m of rows) {
      const x = sixtyFourths(m * k, 2);
      for (const group of groups)
        for (const [accuracy, level] of classes)
          yield {
            label: `M=${m} N=${n} K=${k} g${group} ${accuracy}`,
            facts: { m, n, k, group, accuracy },
            flops: 2 * m * n * k,
            kernwatt: bound(house, { m, n, k, group, accuracy }, x, w),
            onnxruntime: await loaded(house, { m, n, k, group, level }, x, w),
            // Sums here are exact but for the order of large ones; halves may be rounded to either side in int8.
            allowed: (value) => (accuracy === 'exact' ? 1e-4 : 0.05) + 1e-3 * Math.abs(value),
          };
    }
  }
}

/** Two elements to a byte, the same numbers every time. */
export function nibbles(count) {
  const bytes = new Uint8Array(count);
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    bytes[i] = state >>> 16;
  }
  return bytes;
}

/** 1/64, 2/64 or 3/64 for each group of a row. */
export const scaleOf = (row, group) => (1 + ((row + group) % 3)) / 64;

export function bound({ device, copiesOf }, { m, n, k, group, accuracy, scaleType = 'f32' }, x, w) {
  const groups = k / group;
  const values = new Float32Array(groups * n);
  for (let g = 0; g < groups; g++) for (let r = 0; r < n; r++) values[g * n + r] = scaleOf(r, g);
  const tensor = device.tensor(x, [m, k], 'f32');
  const copies = Math.min(mostCopies, copiesOf(w.length));
  const weights = Array.from({ length: copies }, () => ({
    w: kernwatt.gemmInt4.prepack({ w: device.tensor(w, [n, k], 'u4') }, { dispose: true }),
    scales: kernwatt.gemmInt4.prepack({ scales: device.tensor(values, [groups, n], scaleType) }, { dispose: true }),
  }));
  const y = device.empty([m, n], 'f32');
  const plans = weights.map((one) => kernwatt.gemmInt4.bind({ x: tensor, ...one, y, accuracy }));
  const next = turns(copies);
  return {
    dtype: 'f32',
    copies,
    explain: plans[0].explain(),
    run: () => plans[next()].run(),
    result: () => y.read(),
    release() {
      for (const one of [...plans, ...weights.flatMap(Object.values), tensor, y]) one.dispose();
    },
  };
}

async function loaded({ session, tensor, empty, numbers, copiesOf }, { m, n, k, group, level }, x, w) {
  const groups = k / group;
  const scales = Float32Array.from({ length: n * groups }, (_, i) => scaleOf(Math.floor(i / groups), i % groups));
  const bytes = model(
    {
      op: 'MatMulNBits',
      domain: 'com.microsoft',
      integers: { K: k, N: n, bits: 4, block_size: group, accuracy_level: level },
    },
    [
      { name: 'x', type: 'f32', shape: [m, k] },
      { name: 'w', type: 'u8', shape: [n, groups, group / 2], data: w },
      { name: 'scales', type: 'f32', shape: [n * groups], data: scales },
    ],
    [{ name: 'y', type: 'f32', shape: [m, n] }],
  );
  const copies = Math.min(mostCopies, copiesOf(w.length));
  const sessions = [];
  for (let i = 0; i < copies; i++) sessions.push(await session(bytes));
  const feeds = { x: tensor('f32', x, [m, k]) };
  const fetches = { y: empty('f32', [m, n]) };
  const next = turns(copies);
  return {
    dtype: 'f32',
    copies,
    run: () => sessions[next()].run(feeds, fetches),
    result: () => numbers(fetches.y),
    async release() {
      for (const one of sessions) await one.release();
    },
  };
}
