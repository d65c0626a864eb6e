// gemm_int4: what comparing with the definition cannot show. The definition itself against plain loops written here, identities with
// gemm and with itself, the accuracy classes, what it costs, and what it refuses.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type Device, gemm, gemmInt4, openDevice, type Tensor } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const backends: Backend[] = ['ref', 'cpu'];
const runs = { numRuns: process.env.KERNWATT_FULL ? 200 : 20 };
const list = async (t: Tensor) => Array.from(await t.read());
const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });

/** Printed in appendix E of the QLoRA paper. */
const nf4 = [
  -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
  -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
  0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
];

interface Sizes {
  m: number;
  rowsW: number;
  k: number;
  groups: number;
}
interface Problem extends Sizes {
  x: number[];
  w: number[];
  scales: number[];
  zeros?: number[];
  perm?: number[];
  codes?: readonly number[];
}

/** ŵ in row-major order, by the formula. */
const widen = ({ rowsW, k, groups, w, scales, zeros, codes }: Problem) =>
  Array.from({ length: rowsW * k }, (_, e) => {
    const r = Math.floor(e / k);
    const at = Math.floor((e % k) / (k / groups)) * rowsW + r;
    const q = w[e]!;
    return (codes ? codes[q]! : q - (zeros?.[at] ?? 8)) * scales[at]!;
  });

/** x Ŵᵀ. */
function product(p: Problem) {
  const full = widen(p);
  return Array.from({ length: p.m * p.rowsW }, (_, e) => {
    const [i, r] = [Math.floor(e / p.rowsW), e % p.rowsW];
    let sum = 0;
    for (let c = 0; c < p.k; ++c) sum += p.x[i * p.k + (p.perm?.[c] ?? c)]! * full[r * p.k + c]!;
    return sum;
  });
}

const draw = (size: number, low: number, count: number, seed: number) =>
  Array.from({ length: size }, (_, i) => low + (((i * 2654435761 + seed * 40503) >>> 8) % count));

function problem(
  { m, rowsW, k, groups }: Sizes,
  seed: number,
  kind: 'plain' | 'zeros' | 'nf4' = 'plain',
  perm = false,
) {
  const p: Problem = {
    m,
    rowsW,
    k,
    groups,
    x: draw(m * k, -4, 9, seed),
    w: draw(rowsW * k, 0, 16, seed + 1),
    scales: draw(groups * rowsW, 0, 7, seed + 2).map((e) => 2 ** (e - 3)),
  };
  if (kind === 'zeros') p.zeros = draw(groups * rowsW, 0, 16, seed + 3);
  if (kind === 'nf4') p.codes = nf4;
  if (perm) p.perm = draw(k, 0, k, seed + 4);
  return p;
}

/** As arguments of the operator. */
const upload = (p: Problem, dtype: 'f32' | 'bf16' | 'f16' = 'f32') => ({
  x: device.tensor(p.x, [p.m, p.k], dtype),
  w: device.tensor(p.w, [p.rowsW, p.k], p.codes ? 'nf4' : 'u4'),
  scales: device.tensor(p.scales, [p.groups, p.rowsW]),
  zeros: p.zeros && device.tensor(p.zeros, [p.groups, p.rowsW], 'u4'),
  perm: p.perm && device.tensor(Int32Array.from(p.perm)),
});

const close = (have: readonly number[], want: readonly number[], share: number) => {
  expect(have).toHaveLength(want.length);
  const most = want.reduce((a, v) => Math.max(a, Math.abs(v)), 1e-30);
  expect(have.reduce((a, v, i) => Math.max(a, Math.abs(v - want[i]!)), 0) / most).toBeLessThan(share);
};

describe.each(backends)('%s against plain loops', (backend) => {
  test.each([
    ['symmetric', 'plain', false],
    ['asymmetric', 'zeros', false],
    ['in the order of activations', 'zeros', true],
  ] as const)('%s: exact for whole numbers and scales of powers of two', async (_, kind, perm) => {
    for (const sizes of [
      { m: 1, rowsW: 5, k: 32, groups: 1 },
      { m: 7, rowsW: 11, k: 192, groups: 3 },
      { m: 33, rowsW: 18, k: 256, groups: 8 },
    ]) {
      const p = problem(sizes, 1, kind, perm);
      for (const dtype of ['f32', 'bf16', 'f16'] as const)
        expect(await list(gemmInt4(upload(p, dtype), { backend, dtype: 'f32' }).y)).toEqual(product(p));
    }
  });

  test('nf4 is looked up', async () => {
    const p = problem({ m: 5, rowsW: 9, k: 128, groups: 2 }, 2, 'nf4');
    close(await list(gemmInt4(upload(p), { backend }).y), product(p), 1e-6);
  });

  test('bias and residual are added, the gate comes first', async () => {
    const p = problem({ m: 6, rowsW: 8, k: 64, groups: 2 }, 3, 'zeros');
    const bias = draw(8, -3, 7, 5);
    const residual = draw(6 * 4, -3, 7, 6);
    const { y } = gemmInt4(
      {
        ...upload(p),
        bias: device.tensor(bias),
        residual: device.tensor(residual, [6, 4]),
        activation: 'swiglu',
      },
      { backend },
    );
    const s = product(p).map((v, i) => v + bias[i % 8]!);
    const want = residual.map((r, e) => {
      const [i, j] = [Math.floor(e / 4), e % 4];
      return (s[i * 8 + j]! / (1 + Math.exp(-s[i * 8 + j]!))) * s[i * 8 + 4 + j]! + r;
    });
    close(await list(y), want, 1e-6);
  });

  test('int8 rounds x in blocks as the contract says', async () => {
    const p = problem({ m: 3, rowsW: 7, k: 192, groups: 2 }, 4, 'zeros');
    p.x = p.x.map((v, i) => Math.fround(v * 1.37 + (i % 11) / 7));
    const rounded: number[] = [];
    for (let start = 0; start < p.x.length; start += 32) {
      const block = p.x.slice(start, start + 32);
      const d = Math.fround(Math.max(...block.map(Math.abs)) / 127);
      const c = Math.fround(1 / d);
      for (const v of block) {
        const scaled = Math.fround(v * c);
        const down = Math.floor(scaled);
        const even = down % 2 === 0 ? down : down + 1;
        rounded.push((scaled - down === 0.5 ? even : Math.round(scaled)) * d);
      }
    }
    const { y } = gemmInt4({ ...upload(p), accuracy: 'int8' }, { backend });
    // The definition's value is what exact arithmetic gives: its class is the tolerance of other backends.
    if (backend === 'ref') close(await list(y), product(p), 1e-6);
    else close(await list(y), product({ ...p, x: rounded }), 1e-5);
  });
});

describe('identities', () => {
  const sizes = fc
    .record({
      m: fc.integer({ min: 0, max: 20 }),
      rowsW: fc.integer({ min: 0, max: 40 }),
      groups: fc.integer({ min: 1, max: 4 }),
      group: fc.constantFrom(32, 64, 96, 128),
      seed: fc.integer({ min: 0, max: 1e6 }),
      kind: fc.constantFrom('plain' as const, 'zeros' as const),
      dtype: fc.constantFrom('f32' as const, 'bf16' as const, 'f16' as const),
    })
    .map((s) => ({ ...s, k: s.groups * s.group }));

  test.each(['fused', 'dequant'] as const)('%s is gemm with the weight widened', (mode) =>
    fc.assert(
      fc.asyncProperty(sizes, async ({ seed, kind, dtype, ...s }) => {
        const p = problem(s, seed, kind);
        const { x, ...rest } = upload(p, dtype);
        const w = device.tensor(widen(p), [s.rowsW, s.k], dtype);
        expect(await gemmInt4({ x, ...rest, mode }, { dtype: 'f32' }).y.read()).toEqual(
          await gemm({ x, w }, { dtype: 'f32' }).y.read(),
        );
      }),
      runs,
    ),
  );

  test('zeros of 8 are none, equal scales are one group, and perm moves the columns of x', () =>
    fc.assert(
      fc.asyncProperty(sizes, async ({ seed, dtype, ...s }) => {
        const p = problem(s, seed);
        const args = upload(p, dtype);
        const want = await gemmInt4(args).y.read();
        expect(await gemmInt4({ ...args, zeros: device.full([s.groups, s.rowsW], 8, 'u4') }).y.read()).toEqual(want);
        const one = device.full([1, s.rowsW], 0.5);
        const many = device.full([s.groups, s.rowsW], 0.5);
        expect(await gemmInt4({ ...args, scales: one }).y.read()).toEqual(
          await gemmInt4({ ...args, scales: many }).y.read(),
        );
        const order = draw(s.k, 0, s.k, seed + 9);
        const gathered = Array.from({ length: s.m * s.k }, (_, e) => p.x[e - (e % s.k) + order[e % s.k]!]!);
        expect(await gemmInt4({ ...args, perm: device.tensor(Int32Array.from(order)) }).y.read()).toEqual(
          await gemmInt4({ ...args, x: device.tensor(gathered, [s.m, s.k], dtype) }).y.read(),
        );
      }),
      runs,
    ));

  test.each([{}, { accuracy: 'int8' }, { mode: 'dequant' }] as const)(
    'batch invariant with %o: a row alone has the bits it has among others, however many threads work',
    async (params) => {
      await using single = await openDevice('cpu', { threads: 1 });
      const [m, rowsW, k] = [37, 70, 512];
      const x = device.random([m, k], 'bf16', { seed: 1 });
      const w = device.random([rowsW, k], 'u4', { seed: 2, distribution: 'integers' });
      const scales = device.random([4, rowsW], 'bf16', { seed: 3, sd: 0.05 });
      const args = { ...params, batchInvariant: true } as const;
      const want = await gemmInt4({ ...args, x, w, scales }, { dtype: 'f32' }).y.read();
      for (const row of [0, 1, 17, 36]) {
        const part = x.slice([[row, row + 1]]);
        const { y } = gemmInt4({ ...args, x: part, w, scales }, { dtype: 'f32' });
        expect(await y.read()).toEqual(want.slice(row * rowsW, (row + 1) * rowsW));
      }
      const there = await Promise.all([x, w, scales].map((t) => t.to(single)));
      const { y } = gemmInt4({ ...args, x: there[0]!, w: there[1]!, scales: there[2]! }, { dtype: 'f32' });
      expect(await y.read()).toEqual(want);
    },
  );

  test('a merged gate and up is the two of them', async () => {
    const [m, n, k] = [9, 24, 256];
    const x = device.random([m, k], 'f32', { seed: 1 });
    const w = device.random([2 * n, k], 'u4', { seed: 2, distribution: 'integers' });
    const scales = device.random([2, 2 * n], 'f32', { seed: 3, sd: 0.02 });
    const half = (from: number) => ({
      x,
      w: w.slice([[from, from + n]]),
      scales: scales.slice([null, [from, from + n]]),
    });
    const merged = await list(gemmInt4({ x, w, scales, activation: 'swiglu' }).y);
    const [gate, up] = [await list(gemmInt4({ ...half(0), activation: 'silu' }).y), await list(gemmInt4(half(n)).y)];
    close(
      merged,
      gate.map((g, i) => g * up[i]!),
      1e-6,
    );
  });
});

test('int8 is within a percent of exact on normal numbers', async () => {
  const x = device.random([32, 1024], 'bf16', { seed: 1 });
  const w = device.random([64, 1024], 'u4', { seed: 2, distribution: 'integers' });
  const scales = device.full([8, 64], 0.01, 'bf16');
  const exact = await list(gemmInt4({ x, w, scales }, { dtype: 'f32' }).y);
  const fast = await list(gemmInt4({ x, w, scales, accuracy: 'int8' }, { dtype: 'f32' }).y);
  const norm = (v: number[]) => Math.sqrt(v.reduce((a, b) => a + b * b, 0));
  expect(norm(fast.map((v, i) => v - exact[i]!)) / norm(exact)).toBeLessThan(0.01);
});

test('work counts the weight as packed, its scales and its zeros', () => {
  const [m, rowsW, k] = [16, 4096, 4096];
  const args = {
    x: device.empty([m, k], 'bf16'),
    w: device.empty([rowsW, k], 'u4'),
    scales: device.empty([32, rowsW], 'bf16'),
    zeros: device.empty([32, rowsW], 'u4'),
  };
  using plan = gemmInt4.bind(args);
  const weight = (rowsW * k) / 2 + 32 * rowsW * 2 + (32 * rowsW) / 2;
  expect(plan.work).toEqual({
    flops: 2 * m * rowsW * k,
    bytes: weight + 2 * m * k + 2 * m * rowsW,
    tokens: m,
    params: rowsW * k,
  });
});

describe('refuses', () => {
  const args = (over: object = {}) => ({
    x: device.zeros([3, 128]),
    w: device.zeros([6, 128], 'u4'),
    scales: device.zeros([2, 6]),
    ...over,
  });
  const call = (over: object) => () => gemmInt4.run(args(over));

  test('groups that do not fit', () => {
    const wanted = 'expected groups of a multiple of 32 that divide k';
    for (const groups of [3, 8, 128])
      expect(call({ scales: device.zeros([groups, 6]) })).toThrow(
        refused('SHAPE', `gemm_int4: scales has groups ${groups} for k 128, ${wanted}`),
      );
    expect(call({ scales: device.zeros([0, 6]) })).toThrow(
      refused('SHAPE', 'gemm_int4: scales has groups 0, expected at least 1'),
    );
    expect(call({ x: device.zeros([3, 48]), w: device.zeros([6, 48], 'u4'), scales: device.zeros([1, 6]) })).toThrow(
      refused('SHAPE', `gemm_int4: scales has groups 1 for k 48, ${wanted}`),
    );
  });

  test('sizes, types and combinations that do not fit', () => {
    const bad = [
      [{ scales: device.zeros([2, 5]) }, 'SHAPE', 'gemm_int4: scales has rowsW 5, but w has 6'],
      [{ zeros: device.zeros([1, 6], 'u4') }, 'SHAPE', 'gemm_int4: zeros has groups 1, but scales has 2'],
      [{ x: device.zeros([3, 64]) }, 'SHAPE', 'gemm_int4: w has k 128, but x has 64'],
      [{ perm: device.zeros([64], 'i32') }, 'SHAPE', 'gemm_int4: perm has k 64, but x has 128'],
      [{ w: device.zeros([6, 128]) }, 'DTYPE', 'gemm_int4: w is f32, expected u4 or nf4'],
      [{ w: device.zeros([6, 128], 'i4') }, 'DTYPE', 'gemm_int4: w is i4, expected u4 or nf4'],
      ...(['i8', 'f8e4m3', 'f8e5m2'] as const).map(
        (dtype) =>
          [
            { w: device.zeros([6, 128], dtype) },
            'UNSUPPORTED',
            `gemm_int4: w is ${dtype}, for which there is no kernel yet, expected u4 or nf4`,
          ] as const,
      ),
      [{ zeros: device.zeros([2, 6]) }, 'DTYPE', 'gemm_int4: zeros is f32, expected u4'],
      [{ scales: device.zeros([2, 6], 'i32') }, 'DTYPE', 'gemm_int4: scales is i32, expected f32, bf16 or f16'],
      [{ perm: device.zeros([128], 'u8') }, 'DTYPE', 'gemm_int4: perm is u8, expected i32'],
      [
        { w: device.zeros([6, 128], 'nf4'), zeros: device.zeros([2, 6], 'u4') },
        'ARGUMENT',
        'gemm_int4: zeros is given, expected none with w of nf4',
      ],
      [
        { w: device.zeros([5, 128], 'u4'), scales: device.zeros([2, 5]), activation: 'swiglu' },
        'SHAPE',
        'gemm_int4: w has rowsW 5, expected an even number with activation swiglu',
      ],
      [{ mode: 'fast' }, 'ARGUMENT', 'gemm_int4: mode is "fast", expected one of fused, dequant'],
      [{ accuracy: 'int4' }, 'ARGUMENT', 'gemm_int4: accuracy is "int4", expected one of exact, int8'],
    ] as const;
    for (const [over, code, message] of bad) expect(call(over), message).toThrow(refused(code, message));
  });

  test('a perm beyond k: before launch where the host wrote it, from the stream otherwise', async () => {
    for (const value of [-1, 128]) {
      const order = Int32Array.from({ length: 128 }, (_, i) => (i === 77 ? value : i));
      const perm = device.tensor(order);
      const message = `gemm_int4: perm[77] is ${value}, expected 0 to 127`;
      expect(call({ perm })).toThrow(refused('INDEX', message));
      const unknown = device.empty([128], 'i32').copyFrom(perm);
      for (const backend of backends) {
        const { y } = gemmInt4.run(args({ perm: unknown }), { backend });
        await expect(y!.read()).rejects.toEqual(refused('INDEX', message));
      }
    }
  });

  test('a pool takes the weight from its owner alone', async () => {
    const { w, scales } = args();
    await using pool = gemmInt4.pool({ m: 4, w, scales }, { slots: 1 });
    const { y } = await pool.run({ x: new Float32Array(2 * 128) });
    expect(y).toEqual(new Float32Array(12));
    expect(() => gemmInt4.pool({ m: 4, k: 128, rowsW: 6, scales }, { slots: 1 })).toThrow(
      refused('UNSUPPORTED', 'gemm_int4.pool: w is u4 that requests bring, expected a tensor that all of them share'),
    );
  });
});
