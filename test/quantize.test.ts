// Quantisers against the formulas written here, and what they promise: the same bits for any threads, round trips, progress, aborting,
// and that nothing stays behind on an error.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dequantize, type Device, gemm, gemmInt4, openDevice, quantizeInt4, quantizeNf4 } from '../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
afterAll(() => device.close());

const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
const f = Math.fround;
const clamp = (v: number, low: number, high: number) => Math.min(Math.max(v, low), high);
const even = (v: number) => {
  const down = Math.floor(v);
  return v - down === 0.5 ? down + (down % 2 === 0 ? 0 : 1) : Math.round(v);
};

/** Codes, scale and zero of one group, by the formulas, in f32 as the contract has it. */
function group(v: readonly number[], zeros: boolean, ratio = 1) {
  const lo = f(Math.min(0, ...v) * f(ratio));
  const hi = f(Math.max(0, ...v) * f(ratio));
  const scale = zeros ? f(f(hi - lo) / 15) : Math.max(f(hi / 7), f(-lo / 8));
  const inverse = scale > 0 ? f(1 / scale) : 0;
  const zero = zeros ? clamp(even(f(-lo * inverse)), 0, 15) : 8;
  const codes = v.map((x) => clamp(even(f(x * inverse)) + zero, 0, 15));
  const error = v.reduce((sum, x, i) => sum + ((codes[i]! - zero) * scale - x) ** 2, 0);
  return { codes, scale, zero, error };
}

const sizes = { rows: 13, k: 192, each: 64 };
const weight = () => device.random([sizes.rows, sizes.k], 'f32', { seed: 4, sd: 0.03 });
const groupsOf = (values: readonly number[]) =>
  Array.from({ length: sizes.k / sizes.each }, (_, g) =>
    Array.from({ length: sizes.rows }, (_, r) =>
      values.slice(r * sizes.k + g * sizes.each, r * sizes.k + (g + 1) * sizes.each),
    ),
  ).flat();

describe.each([true, false])('symmetric %s', (symmetric) => {
  test('nearest is the formula, code by code', async () => {
    using w = weight();
    using q = await quantizeInt4(w, { group: sizes.each, symmetric });
    const want = groupsOf(Array.from(await w.read())).map((v) => group(v, !symmetric));
    expect(Array.from(await q.operands.scales.read())).toEqual(want.map(({ scale }) => scale));
    expect(groupsOf(Array.from(await q.operands.w.read()))).toEqual(want.map(({ codes }) => codes));
    if (symmetric) expect(q.operands.zeros).toBeUndefined();
    else expect(Array.from(await q.operands.zeros!.read())).toEqual(want.map(({ zero }) => zero));
    const zeroBytes = symmetric ? 0 : Math.ceil((sizes.rows * 3) / 2);
    expect(q.bytes).toBe((sizes.rows * sizes.k) / 2 + sizes.rows * 3 * 4 + zeroBytes);
    expect(q.ratio).toBe(q.bytes / w.bytes);
  });

  test('clipped leaves the least error of all ratios', async () => {
    using w = weight();
    using q = await quantizeInt4(w, { group: sizes.each, symmetric, method: 'clipped' });
    using back = await dequantize(q.operands);
    const [before, after] = [groupsOf(Array.from(await w.read())), groupsOf(Array.from(await back.read()))];
    for (const [i, v] of before.entries()) {
      const all = Array.from({ length: 51 }, (_, c) => group(v, !symmetric, f(1 - f(f(0.01) * c))).error);
      const error = v.reduce((sum, x, j) => sum + (after[i]![j]! - x) ** 2, 0);
      expect(error / Math.min(...all)).toBeCloseTo(1, 5);
    }
  });
});

test('nf4 takes the nearest of its values, and a block of zeros stays zero', async () => {
  using w = weight();
  using q = await quantizeNf4(w);
  using back = await dequantize(q.operands);
  const values = new Set(await gemmInt4Codes());
  const [before, after] = [groupsOf(Array.from(await w.read())), groupsOf(Array.from(await back.read()))];
  for (const [i, v] of before.entries()) {
    const largest = Math.max(...v.map(Math.abs));
    for (const [j, x] of v.entries()) {
      const off = Math.min(...[...values].map((value) => Math.abs(value * largest - x)));
      expect(Math.abs(after[i]![j]! - x)).toBeLessThanOrEqual(off + 1e-7 * largest);
    }
  }
  using none = await quantizeNf4(device.zeros([2, 64]));
  expect(await (await dequantize(none.operands)).read()).toEqual(new Float32Array(128));
});

/** The sixteen values, as the operator knows them. */
async function gemmInt4Codes() {
  const codes = Array.from({ length: 16 * 32 }, (_, i) => (i % 32 === 0 ? Math.floor(i / 32) : 7));
  const x = device.tensor([1, ...Array(31).fill(0)], [1, 32]);
  return gemmInt4({ x, w: device.tensor(codes, [16, 32], 'nf4'), scales: device.full([1, 16], 1) }).y.read();
}

test('what four bits can hold comes back, and gemmInt4 multiplies what dequantize gives', async () => {
  // Both ends of the range in every group, so that the scale is found again.
  const list = Array.from({ length: 24 * 128 }, (_, i) => (i % 32 < 2 ? 15 * (i % 32) : (i * 7 + (i >> 5)) % 16));
  const codes = device.tensor(list, [24, 128], 'u4');
  const scales = device.full([4, 24], 0.25);
  using exact = await dequantize({ w: codes, scales }, { dtype: 'bf16' });
  using again = await quantizeInt4(exact, { group: 32, scaleDtype: 'f32', symmetric: false });
  expect(await again.operands.w.hash()).toBe(await codes.hash());
  expect(await again.operands.scales.hash()).toBe(await scales.hash());
  expect(new Set(await again.operands.zeros!.read())).toEqual(new Set([8]));
  const x = device.random([5, 128], 'bf16', { distribution: 'integers', seed: 3 });
  expect(await gemmInt4({ x, w: codes, scales }).y.read()).toEqual(await gemm({ x, w: exact }).y.read());
});

test('any threads, strides and pieces give the same bits, and progress tells rows', async () => {
  await using one = await openDevice('cpu', { threads: 1 });
  using tall = device.random([512, 3001], 'bf16', { seed: 7 });
  using w = tall.permute([1, 0]);
  using copy = await w.to(one);
  for (const options of [{ symmetric: false }, { method: 'clipped' }] as const) {
    const seen: number[] = [];
    using a = await quantizeInt4(w, { ...options, onProgress: ({ rows, of }) => seen.push(rows / of) });
    using b = await quantizeInt4(copy, options);
    for (const name of ['w', 'scales'] as const)
      expect(await a.operands[name].hash()).toBe(await b.operands[name].hash());
    if (a.operands.zeros) expect(await a.operands.zeros.hash()).toBe(await b.operands.zeros!.hash());
    expect(seen.length).toBeGreaterThan(1);
    expect(seen).toEqual([...seen].sort((p, q) => p - q));
    expect(seen.at(-1)).toBe(1);
  }
});

test('bad input and an aborted signal leave nothing behind', async () => {
  await device.stream.mark();
  using w = weight();
  const spoilt = (value: number) => {
    const values = new Float32Array(2 * 64).fill(1);
    values[70] = value;
    return device.tensor(values, [2, 64]);
  };
  const wanted = 'expected a multiple of 32 that divides k';
  const [nan, infinite, huge] = [spoilt(Number.NaN), spoilt(Number.NEGATIVE_INFINITY), spoilt(1e38)];
  const [codes, flat] = [device.zeros([2, 64], 'u4'), device.zeros([64])];
  const before = device.memory().currentBytes;
  const aborted = AbortSignal.abort(new Error('enough'));
  const bad = [
    [() => quantizeInt4(nan, { group: 64 }), 'ARGUMENT', 'quantize: w[1, 6] is NaN, expected a finite number'],
    [() => quantizeNf4(infinite), 'ARGUMENT', 'quantize: w[1, 6] is -Infinity, expected a finite number'],
    [() => quantizeInt4(w), 'SHAPE', `quantizeInt4: group is 128 for k 192, ${wanted}`],
    [() => quantizeInt4(w, { group: 48 }), 'SHAPE', `quantizeInt4: group is 48 for k 192, ${wanted}`],
    [() => quantizeNf4(w, { block: 0 }), 'SHAPE', `quantizeNf4: block is 0 for k 192, ${wanted}`],
    [() => quantizeInt4(codes), 'DTYPE', 'quantizeInt4: w is u4, expected f32, bf16 or f16'],
    [() => quantizeInt4(flat), 'SHAPE', 'quantizeInt4: w is [64], expected two dimensions'],
    [
      () => quantizeInt4(w, { method: 'best' as never }),
      'ARGUMENT',
      'quantizeInt4: method is "best", expected nearest or clipped',
    ],
    [
      () => quantizeInt4(w, { scaleDtype: 'i8' as never }),
      'ARGUMENT',
      'quantizeInt4: scaleDtype is "i8", expected f32, bf16 or f16',
    ],
    [
      () => dequantize({ w: codes, scales: device.zeros([1, 3]) }),
      'SHAPE',
      'dequantize: scales is [1, 3], expected [1, 2]',
    ],
  ] as const;
  for (const [run, code, message] of bad) await expect(run(), message).rejects.toEqual(refused(code, message));
  await expect(quantizeInt4(huge, { group: 64, scaleDtype: 'f16' })).rejects.toThrow(/expected one that f16 holds/);
  await expect(quantizeInt4(w, { group: 64, signal: aborted })).rejects.toThrow('enough');
  await device.stream.mark();
  expect(device.memory().currentBytes).toBeLessThanOrEqual(before + 16);
  using q = await quantizeInt4(w, { group: 'row' });
  expect(q.operands.scales.shape).toEqual([1, 13]);
});
