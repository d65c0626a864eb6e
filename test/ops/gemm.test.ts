// gemm: what comparing with the definition cannot show. The definition itself against plain loops written here, and identities
// that hold whatever any of them says.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type Device, gemm, openDevice, type Tensor } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const activations = {
  none: (s: number) => s,
  relu: (s: number) => Math.max(s, 0),
  gelu_tanh: (s: number) => 0.5 * s * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (s + 0.044715 * s ** 3))),
  silu: (s: number) => s / (1 + Math.exp(-s)),
};

interface Matrices {
  x: number[][];
  w: number[][];
  c?: number[][];
  bias?: number[];
  residual?: number[][];
}

/** y = act(alpha x Wᵀ + beta c + bias) + residual on nested lists; with `gate`, the first half of w's rows gates the second. */
function expected(
  { x, w, c, bias, residual }: Matrices,
  { alpha = 1, beta = 1, act = activations.none, gate = false } = {},
) {
  return x.map((row, i) => {
    const s = w.map((weights, r) => {
      const sum = weights.reduce((total, v, p) => total + v * row[p]!, 0);
      return alpha * sum + beta * (c?.[i]?.[r] ?? 0) + (bias?.[r] ?? 0);
    });
    const n = gate ? s.length / 2 : s.length;
    return Array.from(
      { length: n },
      (_, j) => (gate ? act(s[j]!) * s[n + j]! : act(s[j]!)) + (residual?.[i]?.[j] ?? 0),
    );
  });
}

const integers = (rows: number, columns: number, seed: number) =>
  Array.from({ length: rows }, (_, i) =>
    Array.from({ length: columns }, (_, j) => ((i * 31 + j * 17 + seed * 13) % 9) - 4),
  );
const upload = (rows: number[][]) => device.tensor(rows.flat(), [rows.length, rows[0]!.length]);
/** Within a share of 1 + |want|, element by element. */
function close(have: number[], want: number[], share = 1e-5) {
  expect(have).toHaveLength(want.length);
  const far = have.filter((v, i) => !(Math.abs(v - want[i]!) <= share * (1 + Math.abs(want[i]!))));
  expect(far).toEqual([]);
}
const list = async (t: Tensor) => Array.from(await t.read());

describe.each<Backend>(['ref', 'cpu'])('%s against plain loops', (backend) => {
  const m = { x: integers(7, 13, 1), w: integers(10, 13, 2), c: integers(7, 10, 3), bias: integers(1, 10, 4)[0]! };
  const residual = integers(7, 10, 5);

  test('product, scale, shift and residual are exact for whole numbers', async () => {
    const { y } = gemm(
      {
        x: upload(m.x),
        w: upload(m.w),
        c: upload(m.c),
        bias: device.tensor(m.bias),
        residual: upload(residual),
        alpha: 0.5,
        beta: -2,
      },
      { backend },
    );
    expect(await list(y)).toEqual(expected({ ...m, residual }, { alpha: 0.5, beta: -2 }).flat());
  });

  test('c alone is added once, bias to every row', async () => {
    const { y } = gemm({ x: upload(m.x), w: upload(m.w), c: upload(m.c), bias: device.tensor(m.bias) }, { backend });
    expect(await list(y)).toEqual(expected(m).flat());
  });

  test.each(['none', 'relu', 'gelu_tanh', 'silu'] as const)('activation %s', async (activation) => {
    const { y } = gemm(
      { x: upload(m.x), w: upload(m.w), alpha: 0.125, residual: upload(residual), activation },
      { backend },
    );
    const want = expected({ x: m.x, w: m.w, residual }, { alpha: 0.125, act: activations[activation] }).flat();
    close(await list(y), want);
  });

  test.each([
    ['swiglu', 'silu'],
    ['geglu_tanh', 'gelu_tanh'],
  ] as const)('%s gates with the first half of the rows', async (activation, gate) => {
    const { y } = gemm(
      { x: upload(m.x), w: upload(m.w), bias: device.tensor(m.bias), alpha: 0.125, activation },
      { backend },
    );
    expect(y.shape).toEqual([7, 5]);
    const want = expected(
      { x: m.x, w: m.w, bias: m.bias },
      { alpha: 0.125, act: activations[gate], gate: true },
    ).flat();
    close(await list(y), want);
  });

  test('gelu_erf at points whose values are tabled', async () => {
    const points = [-3, -1, -0.5, 0, 0.5, 1, 3];
    const gelu = [-0.00404969, -0.15865525, -0.15426877, 0, 0.34573123, 0.84134475, 2.99595031];
    const { y } = gemm({ x: upload(points.map((p) => [p])), w: upload([[1]]), activation: 'gelu_erf' }, { backend });
    close(await list(y), gelu, 1e-6);
  });
});

describe('identities', () => {
  const size = fc.integer({ min: 0, max: 40 });
  const problem = fc.record({
    m: size,
    rowsW: size,
    k: size,
    seed: fc.integer({ min: 0, max: 1e6 }),
    dtype: fc.constantFrom('f32', 'bf16', 'f16'),
  });
  const runs = { numRuns: process.env.KERNWATT_FULL ? 300 : 30 };
  const whole = (shape: number[], dtype: 'f32' | 'bf16' | 'f16', seed: number) =>
    device.random(shape, dtype, { distribution: 'integers', seed, low: -3, high: 3 });

  test('a transposed operand with its flag is the operand', () =>
    fc.assert(
      fc.asyncProperty(problem, async ({ m, rowsW, k, seed, dtype }) => {
        const x = whole([m, k], dtype, seed);
        const w = whole([rowsW, k], dtype, seed + 1);
        const turned = (t: Tensor) => t.permute([1, 0]).contiguous();
        const want = await gemm({ x, w }).y.read();
        expect(await gemm({ x: turned(x), w, transX: true }).y.read()).toEqual(want);
        expect(await gemm({ x, w: turned(w), transW: true }).y.read()).toEqual(want);
        expect(await gemm({ x: turned(x), w: turned(w), transX: true, transW: true }).y.read()).toEqual(want);
      }),
      runs,
    ));

  test('(x Wᵀ)ᵀ = W xᵀ', () =>
    fc.assert(
      fc.asyncProperty(problem, async ({ m, rowsW, k, seed, dtype }) => {
        const x = whole([m, k], dtype, seed);
        const w = whole([rowsW, k], dtype, seed + 1);
        expect(await gemm({ x, w }).y.permute([1, 0]).contiguous().read()).toEqual(await gemm({ x: w, w: x }).y.read());
      }),
      runs,
    ));

  test('linear in x, and in alpha', () =>
    fc.assert(
      fc.asyncProperty(problem, async ({ m, rowsW, k, seed }) => {
        const a = whole([m, k], 'f32', seed);
        const b = whole([m, k], 'f32', seed + 1);
        const w = whole([rowsW, k], 'f32', seed + 2);
        const [av, bv] = [await a.read(), await b.read()];
        const sum = device.tensor(
          Float32Array.from(av, (v, i) => v + bv[i]!),
          [m, k],
        );
        const [ya, yb, ys, y2] = await Promise.all([
          gemm({ x: a, w }).y.read(),
          gemm({ x: b, w }).y.read(),
          gemm({ x: sum, w }).y.read(),
          gemm({ x: a, w, alpha: 2 }).y.read(),
        ]);
        expect(ys).toEqual(ya.map((v, i) => v + yb[i]!));
        expect(y2).toEqual(ya.map((v) => 2 * v));
      }),
      runs,
    ));

  test('a batch is its slices, whether the weight is shared by stride 0, size 1 or absence', () =>
    fc.assert(
      fc.asyncProperty(problem, fc.integer({ min: 1, max: 4 }), async ({ m, rowsW, k, seed, dtype }, batch) => {
        const x = whole([batch, m, k], dtype, seed);
        const w = whole([rowsW, k], dtype, seed + 1);
        const { y } = gemm({ x, w });
        expect(y.shape).toEqual([batch, m, rowsW]);
        for (let b = 0; b < batch; ++b)
          expect(await y.slice([b]).read()).toEqual(await gemm({ x: x.slice([b]), w }).y.read());
        const want = await y.read();
        expect(await gemm({ x, w: w.view([1, rowsW, k]) }).y.read()).toEqual(want);
        expect(await gemm({ x, w: w.expand([batch, rowsW, k]) }).y.read()).toEqual(want);
      }),
      runs,
    ));

  test('a permuted view gives what its copy gives', () =>
    fc.assert(
      fc.asyncProperty(problem, async ({ m, rowsW, k, seed, dtype }) => {
        const x = whole([m, 3, k], dtype, seed).permute([1, 0, 2]);
        const w = whole([3, rowsW, k], dtype, seed + 1);
        expect(await gemm({ x, w }).y.read()).toEqual(await gemm({ x: x.contiguous(), w }).y.read());
      }),
      runs,
    ));

  test('splitting k and adding through c is the whole product', () =>
    fc.assert(
      fc.asyncProperty(problem, fc.integer({ min: 0, max: 40 }), async ({ m, rowsW, k, seed }, at) => {
        const cut = Math.min(at, k);
        const x = whole([m, k], 'f32', seed);
        const w = whole([rowsW, k], 'f32', seed + 1);
        const part = (t: Tensor, from: number, to: number) => t.slice([null, [from, to]]);
        const first = gemm({ x: part(x, 0, cut), w: part(w, 0, cut) }).y;
        const { y } = gemm({ x: part(x, cut, k), w: part(w, cut, k), c: first, y: first });
        expect(y).toBe(first);
        expect(await y.read()).toEqual(await gemm({ x, w }).y.read());
      }),
      runs,
    ));

  test('the number of threads does not change a bit', async () => {
    await using one = await openDevice('cpu', { threads: 1 });
    await using three = await openDevice('cpu', { threads: 3 });
    for (const dtype of ['f32', 'bf16'] as const) {
      const hashes = [one, three].map((d) => {
        const x = d.random([67, 300], dtype, { seed: 5 });
        const w = d.random([130, 300], dtype, { seed: 6 });
        return gemm({ x, w }, { dtype: 'f32' }).y.hash();
      });
      const [a, b] = await Promise.all(hashes);
      expect(a).toBe(b);
    }
  });
});

test('with batchInvariant neither company nor threads change a bit', async () => {
  await using one = await openDevice('cpu', { threads: 1 });
  await using three = await openDevice('cpu', { threads: 3 });
  for (const dtype of ['f32', 'bf16'] as const) {
    const on = (d: Device, batch: number, m: number) => {
      const x = d.random([3, 70, 1100], dtype, { seed: 1 }).slice([
        [0, batch],
        [0, m],
      ]);
      const w = d.random([130, 1100], dtype, { seed: 2 });
      return gemm({ x, w, activation: 'swiglu', batchInvariant: true }, { dtype: 'f32' }).y.slice([0, 0]).hash();
    };
    const alone = await on(one, 1, 1);
    for (const d of [one, three])
      for (const batch of [1, 3])
        for (const m of [1, 2, 5, 17, 70]) expect(await on(d, batch, m), `${dtype}, ${batch} x ${m}`).toBe(alone);
  }
});

describe('NaN and infinity', () => {
  const value = async (t: Tensor) => (await t.read())[0];

  test('spread through the product and every activation', async () => {
    const x = device.tensor([Number.NaN, 1], [1, 2]);
    const w = device.tensor([1, 1, 1, 1], [2, 2]);
    for (const activation of ['none', 'relu', 'gelu_erf', 'gelu_tanh', 'silu', 'swiglu'] as const)
      expect(await value(gemm({ x, w, activation }).y), activation).toBeNaN();
    expect(await value(gemm({ x: device.tensor([Number.POSITIVE_INFINITY, 1], [1, 2]), w }).y)).toBe(
      Number.POSITIVE_INFINITY,
    );
  });

  test('do not come from operands that a zero factor leaves unread', async () => {
    const bad = device.full([2, 2], Number.NaN);
    const good = device.full([2, 2], 3);
    expect(await list(gemm({ x: bad, w: bad, c: good, alpha: 0 }).y)).toEqual([3, 3, 3, 3]);
    expect(await list(gemm({ x: good, w: good, c: bad, beta: 0 }).y)).toEqual([18, 18, 18, 18]);
  });
});

test('work counts 2 m rowsW k per batch, and each operand once', () => {
  const x = device.zeros([3, 4, 5], 'bf16');
  const w = device.zeros([6, 5], 'bf16');
  const bias = device.zeros([6], 'f32');
  const plan = gemm.bind({ x, w, bias }, { dtype: 'f32' });
  expect(plan.work).toEqual({
    flops: 2 * 3 * 4 * 6 * 5,
    bytes: 2 * 60 + 2 * 30 + 4 * 6 + 4 * 72,
    tokens: 12,
    params: 30,
  });
  const shared = gemm.bind({ x, w: w.expand([3, 6, 5]), bias }, { dtype: 'f32' });
  expect(shared.work.bytes).toBe(plan.work.bytes);
  const idle = gemm.bind({ x, w, c: device.zeros([3, 4, 6]), alpha: 0, beta: 0 });
  expect(idle.work).toMatchObject({ flops: 0, bytes: 2 * 72 });
  for (const p of [plan, shared, idle]) p.dispose();
});
