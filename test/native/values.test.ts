// What transfers do to values: conversions, strides, fills, hashes, checks.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DType, dtypes } from '../../src/dtype.js';
import { type NativeView, native } from '../../src/native.js';
import { Bench } from './raw.js';

let bench: Bench;
beforeAll(async () => {
  bench = await Bench.open();
});
afterAll(() => bench.close());

const raw = async (view: NativeView, into: Uint8Array | Uint16Array | Uint32Array) => {
  await native().read(bench.stream, view, into, true);
  return into;
};
const bits = new DataView(new ArrayBuffer(8));
const f32Bits = (value: number) => {
  bits.setFloat32(0, value);
  return bits.getUint32(0);
};
const fromBits = (u: number) => {
  bits.setUint32(0, u);
  return bits.getFloat32(0);
};

/** Decoders written from the formats' definitions, independent of the addon's. */
const decode: Record<string, { width: 8 | 16; fraction: number; bias: number; infinity: boolean }> = {
  f16: { width: 16, fraction: 10, bias: 15, infinity: true },
  bf16: { width: 16, fraction: 7, bias: 127, infinity: true },
  f8e4m3: { width: 8, fraction: 3, bias: 7, infinity: false },
  f8e5m2: { width: 8, fraction: 2, bias: 15, infinity: true },
};
function value(dtype: string, code: number): number {
  const { width, fraction, bias, infinity } = decode[dtype]!;
  const sign = code >> (width - 1) ? -1 : 1;
  const magnitude = code & ((1 << (width - 1)) - 1);
  const exponent = magnitude >> fraction;
  const rest = magnitude & ((1 << fraction) - 1);
  const top = (1 << (width - 1 - fraction)) - 1;
  if (infinity && exponent === top) return rest ? Number.NaN : sign * Infinity;
  if (!infinity && magnitude === (1 << (width - 1)) - 1) return Number.NaN;
  return (
    sign * (exponent ? 2 ** (exponent - bias) * (1 + rest / 2 ** fraction) : (2 ** (1 - bias) * rest) / 2 ** fraction)
  );
}

describe.each(['f16', 'bf16', 'f8e4m3', 'f8e5m2'] as DType[])('%s', (dtype) => {
  const { width } = decode[dtype]!;
  const codes = Array.from({ length: 2 ** width }, (_, i) => i);
  const stored = () => (width === 8 ? new Uint8Array(codes) : new Uint16Array(codes));

  test('every code reads as its value and writes back as itself', async () => {
    const view = bench.empty([codes.length], dtype);
    native().write(bench.stream, view, stored(), true);
    const values = await bench.read(view);
    expect(values).toEqual(codes.map((code) => value(dtype, code)));
    native().write(bench.stream, view, Float32Array.from(values), false);
    const back = await raw(view, stored().fill(0));
    const kept = codes.filter((code) => !Number.isNaN(value(dtype, code)));
    expect(kept.filter((code) => back[code] !== code)).toEqual([]);
    const nan = codes.filter((code) => Number.isNaN(value(dtype, code)));
    expect(nan.filter((code) => !Number.isNaN(value(dtype, back[code]!)))).toEqual([]);
  });

  test('every midpoint goes to the even neighbour, and f64 just beside it to the nearer one', async () => {
    const positive = codes.slice(0, 2 ** (width - 1)).filter((code) => Number.isFinite(value(dtype, code)));
    const pairs = positive.slice(0, -1).map((code) => [code, value(dtype, code), value(dtype, code + 1)] as const);
    const middle = Float64Array.from(pairs, ([, low, high]) => (low + high) / 2);
    const convert = async (values: Float64Array) => {
      const view = bench.empty([values.length], dtype);
      native().write(bench.stream, view, values, false);
      return [...(await raw(view, width === 8 ? new Uint8Array(values.length) : new Uint16Array(values.length)))];
    };
    expect(await convert(middle)).toEqual(pairs.map(([code]) => (code % 2 ? code + 1 : code)));
    // Nearer than f32 can tell: rounding through f32 first would go wrong here.
    const nudge = (sign: number) => middle.map((m, i) => m + sign * (pairs[i]![2] - m) * 2 ** -40);
    expect(await convert(nudge(1))).toEqual(pairs.map(([code]) => code + 1));
    expect(await convert(nudge(-1))).toEqual(pairs.map(([code]) => code));
  });
});

test.each([
  ['i32', [-(2 ** 31), 2 ** 31 - 1]],
  ['i8', [-128, 127]],
  ['u8', [0, 255]],
] as const)('%s rounds to even, saturates, and takes NaN as 0', async (dtype, [low, high]) => {
  const view = bench.empty([8], dtype);
  const values = Float64Array.of(0.5, 1.5, 2.5, -0.5, 1e300, -1e300, Number.NaN, 100);
  native().write(bench.stream, view, values, false);
  expect(await bench.read(view)).toEqual([0, 2, 2, 0, Math.fround(high), low, 0, 100]);
});

test('f64 to f32 rounds once, and f32 bits pass unchanged', async () => {
  const view = bench.empty([4]);
  native().write(bench.stream, view, Float64Array.of(0.1, 1 + 2 ** -24, 1e39, -1e-46), false);
  expect(await bench.read(view)).toEqual([Math.fround(0.1), 1, Infinity, -0]);
  const patterns = Uint32Array.of(0x7fa00001, 0xffc12345, 0x00000001, 0x80000000);
  native().write(bench.stream, view, patterns, true);
  expect(await raw(view, new Uint32Array(4))).toEqual(patterns);
  expect(fromBits(f32Bits(1.5))).toBe(1.5);
});

test.each([Int8Array, Uint8Array, Int16Array, Uint16Array, Int32Array, Uint32Array, Float64Array])(
  'numbers come from and go to %o',
  async (kind) => {
    const view = bench.empty([4]);
    native().write(bench.stream, view, kind.from([1, 2, 100, 0]), false);
    const into = new kind(4);
    await native().read(bench.stream, view, into, false);
    expect([...into]).toEqual([1, 2, 100, 0]);
  },
);

describe('strides', () => {
  const base = Array.from({ length: 60 }, (_, i) => i);
  const cube = (more: object): NativeView => ({ ...bench.tensor(base, [3, 4, 5]), ...more });

  test.each([
    ['transposed', { shape: [5, 4, 3], stride: [1, 5, 20] }],
    ['every other', { shape: [3, 2, 3], stride: [20, 10, 2] }],
    ['a part', { offset: 6, shape: [2, 2], stride: [20, 1] }],
    ['repeated', { shape: [2, 3, 5], stride: [0, 20, 1] }],
    ['backwards', { offset: 59, shape: [60], stride: [-1] }],
    ['of size 1', { shape: [1, 1, 1, 5], stride: [7, 9, 3, 1] }],
    ['empty', { shape: [3, 0, 5], stride: [20, 5, 1] }],
  ])('%s: reads, and copies to a packed tensor', async (_, more) => {
    const view = cube(more);
    const expected: number[] = [];
    const walk = (dim: number, at: number): void => {
      if (dim === view.shape.length) expected.push(base[at]!);
      else for (let i = 0; i < view.shape[dim]!; i++) walk(dim + 1, at + i * view.stride[dim]!);
    };
    walk(0, view.offset);
    expect(await bench.read(view)).toEqual(expected);
    const packed = bench.empty([...view.shape], 'f16');
    native().copy(bench.stream, view, packed);
    expect(await bench.read(packed)).toEqual(expected);
  });

  test('writing through a view leaves the rest alone', async () => {
    const whole = bench.tensor(base, [3, 4, 5]);
    const part = { ...whole, offset: 7, shape: [2, 2], stride: [20, 5] };
    native().write(bench.stream, part, Float32Array.of(-1, -2, -3, -4), false);
    const expected = [...base];
    for (const [i, at] of [7, 12, 27, 32].entries()) expected[at] = -1 - i;
    expect(await bench.read(whole)).toEqual(expected);
  });
});

describe('fills', () => {
  const n = 300_000; // above what runs at once on the JavaScript thread, and no multiple of a chunk
  const filled = async (
    distribution: string,
    seed: number,
    a: number,
    b: number,
    shape = [n],
    dtype: DType = 'f32',
  ) => {
    const view = bench.empty(shape, dtype);
    native().fill(bench.stream, view, distribution, seed, a, b);
    return bench.read(view);
  };
  const moments = (values: number[]) => {
    const mean = values.reduce((sum, v) => sum + v, 0) / values.length;
    const central = (p: number) => values.reduce((sum, v) => sum + (v - mean) ** p, 0) / values.length;
    const sd = Math.sqrt(central(2));
    return { mean, sd, skew: central(3) / sd ** 3, kurtosis: central(4) / sd ** 4 };
  };

  test('are the same whatever the shape, the threads and the size of the fill', async () => {
    const one = await Bench.open({ kind: 'cpu', threads: 1, isa: 'generic' });
    const hash = (on: Bench, distribution: string, seed: number, shape: number[]) => {
      const view = on.empty(shape);
      native().fill(on.stream, view, distribution, seed, -3, 3);
      return native().hash(on.stream, view);
    };
    for (const distribution of ['uniform', 'normal', 'integers']) {
      const whole = await hash(bench, distribution, 7, [n]);
      expect(await hash(bench, distribution, 7, [n / 100, 100])).toBe(whole);
      expect(await hash(one, distribution, 7, [n])).toBe(whole);
      expect(await hash(bench, distribution, 8, [n])).not.toBe(whole);
      const first = (await filled(distribution, 7, -3, 3)).slice(0, 100);
      expect(await filled(distribution, 7, -3, 3, [100])).toEqual(first);
    }
    await one.close();
  });

  test('are what their description says, which every device must give', async () => {
    const mask = 2n ** 64n - 1n;
    const mix = (z: bigint) => {
      z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & mask;
      z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & mask;
      return z ^ (z >> 31n);
    };
    const gamma = 0x9e3779b97f4a7c15n;
    const random = (seed: bigint, i: number) =>
      mix((mix((seed * gamma + gamma) & mask) + BigInt(i + 1) * gamma) & mask);
    const words = Array.from({ length: 50 }, (_, i) => random(11n, i));
    const uniform = words.map((word) => Math.fround(-1 + 3 * (Number(word >> 11n) / 2 ** 53)));
    expect(await filled('uniform', 11, -1, 2, [50])).toEqual(uniform);
    expect(await filled('integers', 11, -100, 100, [50])).toEqual(
      words.map((word) => Number((word * 201n) >> 64n) - 100),
    );
    // Wichura's quantiles of the same words; to 1e-7 those of any other method.
    expect(await filled('normal', 1, 0, 1, [4])).toMatchInlineSnapshot(`
      [
        -0.5940672159194946,
        -0.7862228751182556,
        1.170520305633545,
        -1.03253173828125,
      ]
    `);
  });

  test('uniform lies in its bounds and is even', async () => {
    const values = await filled('uniform', 3, -2, 6);
    expect(Math.min(...values.slice(0, 1e5))).toBeGreaterThanOrEqual(-2);
    expect(Math.max(...values.slice(0, 1e5))).toBeLessThan(6);
    const { mean, sd, kurtosis } = moments(values);
    expect(Math.abs(mean - 2)).toBeLessThan(5 * (8 / Math.sqrt(12 * n)));
    expect(Math.abs(sd - 8 / Math.sqrt(12))).toBeLessThan(0.02);
    expect(kurtosis).toBeCloseTo(1.8, 1);
  });

  test('normal has the moments and tails of one', async () => {
    const values = await filled('normal', 5, 10, 2);
    const { mean, sd, skew, kurtosis } = moments(values);
    expect(Math.abs(mean - 10)).toBeLessThan((5 * 2) / Math.sqrt(n));
    expect(Math.abs(sd - 2)).toBeLessThan((5 * 2) / Math.sqrt(2 * n));
    expect(Math.abs(skew)).toBeLessThan(5 * Math.sqrt(6 / n));
    expect(Math.abs(kurtosis - 3)).toBeLessThan(5 * Math.sqrt(24 / n));
    const beyond = (sds: number) => values.filter((v) => Math.abs(v - 10) > sds * 2).length / n;
    expect(Math.abs(beyond(1) - 0.3173)).toBeLessThan(0.005);
    expect(Math.abs(beyond(3) - 0.0027)).toBeLessThan(0.0006);
    expect(beyond(6)).toBe(0);
  });

  test('integers take every value of their range, both ends included', async () => {
    const counts = new Map<number, number>();
    for (const v of await filled('integers', 2, -2, 2, [n], 'i8')) counts.set(v, (counts.get(v) ?? 0) + 1);
    expect([...counts.keys()].sort((a, b) => a - b)).toEqual([-2, -1, 0, 1, 2]);
    for (const count of counts.values()) expect(Math.abs(count / n - 0.2)).toBeLessThan(0.005);
    expect(new Set(await filled('integers', 2, 5, 5, [100]))).toEqual(new Set([5]));
  });

  test('constant rounds once to the dtype', async () => {
    expect(new Set(await filled('constant', 0, 0.1, 0, [1000], 'bf16'))).toEqual(new Set([0.10009765625]));
  });

  test.each([
    ['zeros', 0, 0, 0],
    ['normal', -1, 0, 1],
    ['normal', 0.5, 0, 1],
    ['normal', 0, Number.NaN, 1],
    ['uniform', 0, 0, Infinity],
    ['integers', 0, 3, 2],
    ['integers', 0, 0.5, 2],
  ])('%s with seed %s, %s, %s is refused', (distribution, seed, a, b) => {
    const fill = () => native().fill(bench.stream, bench.empty([1]), distribution, seed, a, b);
    expect(fill).toThrow(expect.objectContaining({ code: 'ERR_KERNWATT_ARGUMENT' }));
  });
});

test('hash is FNV-1a over the elements in row-major order', async () => {
  const fnv = (bytes: Uint8Array) => {
    let hash = 0xcbf29ce484222325n;
    for (const byte of bytes) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & 0xffffffffffffffffn;
    return hash.toString(16).padStart(16, '0');
  };
  const values = Float32Array.from({ length: 12 }, (_, i) => i / 7);
  const view = bench.tensor(values, [3, 4]);
  expect(await native().hash(bench.stream, view)).toBe(fnv(new Uint8Array(values.buffer)));
  const turned = Float32Array.from({ length: 12 }, (_, i) => values[(i % 3) * 4 + Math.floor(i / 3)]!);
  const transposed = { ...view, shape: [4, 3], stride: [1, 4] };
  expect(await native().hash(bench.stream, transposed)).toBe(fnv(new Uint8Array(turned.buffer)));
  expect(await native().hash(bench.stream, bench.empty([0]))).toBe('cbf29ce484222325');
});

test('wrapped memory is the caller’s own, both ways', async () => {
  const own = Float32Array.of(1, 2, 3, 4);
  const buffer = native().wrap(bench.device, own);
  const view = { buffer, offset: 0, dtype: dtypes.indexOf('f32'), shape: [2, 2], stride: [2, 1] };
  own[0] = 10;
  expect(await bench.read(view)).toEqual([10, 2, 3, 4]);
  native().enqueueFunction(
    bench.plan({ x: bench.tensor([1, 0, 0, 1], [2, 2]), w: bench.tensor([1, 2, 3, 4], [2, 2]), y: view }),
  )();
  await bench.mark();
  expect([...own]).toEqual([1, 3, 2, 4]);
  native().free(buffer);
});

describe('check', () => {
  const tensors = async () => {
    const { enqueue, args } = bench.square(16);
    enqueue();
    await bench.mark();
    return args;
  };
  const set = (y: NativeView, at: number, value: number) =>
    native().write(bench.stream, { ...y, offset: at, shape: [1], stride: [1] }, Float32Array.of(value), false);

  test('accepts what the backend computed, on all rows or some', async () => {
    const args = await tensors();
    const [all] = await native().check('gemm', bench.stream, args, null);
    expect(all).toMatchObject({ field: 'y', elements: 256, failed: 0 });
    expect(all!.worst).toBeLessThanOrEqual(1);
    expect(all!.cosine).toBeCloseTo(1, 9);
    expect(await native().check('gemm', bench.stream, args, Float64Array.of(3, 9))).toMatchObject([{ elements: 32 }]);
  });

  test.each([
    ['a wrong number', 1000],
    ['NaN', Number.NaN],
    ['infinity', Infinity],
  ])('finds %s and says where', async (_, wrong) => {
    const args = await tensors();
    set(args.y, 5 * 16 + 7, wrong);
    const [found] = await native().check('gemm', bench.stream, args, null);
    expect(found).toMatchObject({ failed: 1, row: 5, column: 7, actual: wrong });
    expect(found!.worst).toBeGreaterThan(1);
    expect(await native().check('gemm', bench.stream, args, Float64Array.of(4, 6))).toMatchObject([{ failed: 0 }]);
  });

  test('holds an infinite result to the same infinity', async () => {
    const [x, w, y] = [
      bench.tensor([1e38, 1e38], [1, 2]),
      bench.tensor([10, 10], [1, 2]),
      bench.tensor([Infinity], [1, 1]),
    ];
    expect(await native().check('gemm', bench.stream, { x, w, y }, null)).toMatchObject([{ failed: 0, worst: 0 }]);
    for (const wrong of [-Infinity, 1, Number.NaN]) {
      set(y, 0, wrong);
      expect(await native().check('gemm', bench.stream, { x, w, y }, null)).toMatchObject([{ failed: 1 }]);
    }
  });

  test.each([[-1], [16], [0.5], [Number.NaN]])('row %s is refused', async (row) => {
    const args = await tensors();
    expect(() => native().check('gemm', bench.stream, args, Float64Array.of(row))).toThrow(
      expect.objectContaining({ code: 'ERR_KERNWATT_INDEX' }),
    );
  });
});
