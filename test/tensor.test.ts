// Tensors: conversion from and to typed arrays, views that share memory, seeded fills, disposal.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, type DType, dtypes, openDevice, type Tensor } from '../src/index.js';
import { native } from '../src/native.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
const list = async (t: Tensor) => Array.from(await t.read());
const count = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i);

describe('conversion', () => {
  test('dtype comes from the array, unless given', () => {
    const own = [
      [Float32Array.of(1), 'f32'],
      [Float64Array.of(1), 'f32'],
      [[1], 'f32'],
      [Int32Array.of(1), 'i32'],
      [Int8Array.of(1), 'i8'],
      [Uint8Array.of(1), 'u8'],
    ] as const;
    for (const [data, dtype] of own) expect(device.tensor(data).dtype).toBe(dtype);
    expect(device.tensor([1, 2, 3, 4], [2, 2], 'bf16')).toMatchObject({
      dtype: 'bf16',
      shape: [2, 2],
      size: 4,
      bytes: 8,
    });
  });

  test('f32 comes back bit for bit, NaN payload and negative zero included', async () => {
    const bits = Uint32Array.of(0x7fc0beef, 0x80000000, 1, 0x7f800000, 0x3f800001);
    const data = new Float32Array(bits.buffer);
    const back = await device.tensor(data).read();
    expect(new Uint32Array(back.buffer)).toEqual(bits);
  });

  test('f16 and bf16 are rounded to nearest even, as arithmetic on the bits says', async () => {
    const toBf16 = (v: number) => {
      const bits = new Uint32Array(Float32Array.of(v).buffer)[0]!;
      if ((bits & 0x7fffffff) > 0x7f800000) return Number.NaN;
      const kept = (bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000;
      return new Float32Array(Uint32Array.of(kept).buffer)[0]!;
    };
    await fc.assert(
      fc.asyncProperty(fc.array(fc.float(), { minLength: 1, maxLength: 200 }), async (values) => {
        const back = await device.tensor(values, [values.length], 'bf16').read();
        expect(Array.from(back)).toEqual(values.map(toBf16));
      }),
      { numRuns: 50 },
    );
    const halves = [1, 1.0009765625, 1.00048828125, 1.00146484375, 65504, 65520, 2 ** -24, 2 ** -25, 3 * 2 ** -26, -0];
    const rounded = [1, 1.0009765625, 1, 1.001953125, 65504, Number.POSITIVE_INFINITY, 2 ** -24, 0, 2 ** -24, -0];
    expect(await list(device.tensor(halves, [halves.length], 'f16'))).toEqual(rounded);
  });

  test('every stored f16 and bf16 pattern survives, raw and widened', async () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    for (const dtype of ['f16', 'bf16'] as const) {
      const t = device.tensor(all, [65536], dtype);
      expect(await t.read({ raw: true })).toEqual(all);
      const again = await device.tensor(await t.read(), [65536], dtype).read({ raw: true });
      const isNaN16 = (v: number) => (v & 0x7fff) > (dtype === 'f16' ? 0x7c00 : 0x7f80);
      expect(all.filter((v) => !isNaN16(v) && again[v] !== v)).toEqual(new Uint16Array(0));
    }
  });

  test('integers come back as they are', async () => {
    expect(await device.tensor(Int32Array.of(-(2 ** 31), 2 ** 31 - 1)).read()).toEqual(
      Int32Array.of(-(2 ** 31), 2 ** 31 - 1),
    );
    expect(await device.tensor([-128, 127], [2], 'i8').read()).toEqual(Int8Array.of(-128, 127));
    expect(await device.tensor([0, 255], [2], 'u8').read()).toEqual(Uint8Array.of(0, 255));
  });

  test('a Float16Array is f16 where the language has one', async ({ skip }) => {
    const Half = (globalThis as { Float16Array?: new (data: number[]) => unknown }).Float16Array;
    if (!Half) skip('no Float16Array before Node 24');
    const t = device.tensor(new Half!([1.5, -2]) as never);
    expect(t.dtype).toBe('f16');
    expect(await list(t)).toEqual([1.5, -2]);
  });

  test('data that does not fit is refused', () => {
    const wanted = 'expected an array of numbers or a typed array of up to 64-bit floats or 32-bit integers';
    const bad = [
      [() => device.tensor([1, 2, 3], [2, 2]), 'SHAPE', 'tensor: data has 3 elements, expected 4 for [2, 2]'],
      [
        () => device.tensor(Uint16Array.of(1)),
        'DTYPE',
        'tensor: dtype is missing, expected f16 or bf16 for a Uint16Array',
      ],
      [
        () => device.tensor(Uint16Array.of(1), [1], 'i32'),
        'DTYPE',
        'write: data is a Uint16Array (stored f16 or bf16), expected data for i32',
      ],
      [
        () => device.tensor([1.5], [1], 'i32'),
        'ARGUMENT',
        'write: data[0] is 1.5, expected a whole number from -2147483648 to 2147483647 for i32',
      ],
      [
        () => device.tensor([0, 300], [2], 'u8'),
        'ARGUMENT',
        'write: data[1] is 300, expected a whole number from 0 to 255 for u8',
      ],
      [() => device.tensor('text' as never), 'ARGUMENT', `tensor: data is string, ${wanted}`],
      [() => device.tensor(null as never, [1], 'f32'), 'ARGUMENT', `tensor: data is null, ${wanted}`],
      [() => device.tensor(BigInt64Array.of(1n) as never), 'ARGUMENT', `tensor: data is a BigInt64Array, ${wanted}`],
      [
        () => device.tensor([[1], [2]] as never),
        'ARGUMENT',
        'tensor: data[0] is a list, expected a flat list of numbers',
      ],
      [
        () => device.zeros([2]).write(['1', 2] as never),
        'ARGUMENT',
        'write: data[0] is 1, expected a flat list of numbers',
      ],
      [() => device.empty([2], 'fp16' as DType), 'DTYPE', `empty: dtype is fp16, expected one of ${dtypes.join(', ')}`],
      [() => device.empty(3 as never), 'SHAPE', 'empty: shape is 3, expected an array'],
    ] as const;
    for (const [make, code, message] of bad) expect(make).toThrow(refused(code, message));
  });

  test('write copies the data at once and can be repeated', async () => {
    const data = Float32Array.of(1, 2);
    const t = device.tensor(data);
    data.fill(9);
    expect(await list(t)).toEqual([1, 2]);
    t.write([3, 4]);
    expect(await list(t)).toEqual([3, 4]);
    expect(() => t.write([1])).toThrow(refused('SHAPE', 'write: data has 1 elements, expected 2 for [2]'));
  });
});

describe('views', () => {
  const grid = () => device.tensor(count(0, 24), [2, 3, 4]);

  test('slice, permute and view agree with indexing', async () => {
    const t = grid();
    expect(await list(t.slice([1]))).toEqual(count(12, 24));
    expect(t.slice([1]).shape).toEqual([3, 4]);
    expect(await list(t.slice([null, [1, 3], [0, 4, 2]]))).toEqual([4, 6, 8, 10, 16, 18, 20, 22]);
    expect(await list(t.slice([-1, -1]))).toEqual([20, 21, 22, 23]);
    expect(await list(t.slice([null, null, [-2, 4]]))).toEqual(count(0, 24).filter((i) => i % 4 >= 2));
    expect(await list(t.permute([2, 0, 1]).slice([1]))).toEqual([1, 5, 9, 13, 17, 21]);
    expect(await list(t.view([4, -1]).slice([3]))).toEqual(count(18, 24));
    expect(t.slice([[1, 1]])).toMatchObject({ shape: [0, 3, 4], size: 0 });
    expect(await t.slice([[1, 1]]).read()).toEqual(new Float32Array(0));
  });

  test('any chain of slices and permutations reads what nested arrays would', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
        fc.array(fc.nat(), { minLength: 1, maxLength: 4 }),
        async (shape, choices) => {
          const size = shape.reduce((a, b) => a * b);
          let t = device.tensor(count(0, size), shape);
          let index = count(0, size);
          for (const choice of choices) {
            const d = choice % t.shape.length;
            const n = t.shape[d]!;
            if (choice % 2 === 0) {
              const order = count(0, t.shape.length).map((i) => (i + d) % t.shape.length);
              index = reorder(index, t.shape, order);
              t = t.permute(order);
            } else {
              const from = choice % n;
              const ranges = t.shape.map((_, i) => (i === d ? ([from, n] as const) : null));
              index = index.filter((_, i) => coordinates(i, t.shape)[d]! >= from);
              t = t.slice(ranges);
            }
          }
          expect(await list(t)).toEqual(index);
          expect(await list(t.contiguous())).toEqual(index);
        },
      ),
      { numRuns: 100 },
    ));

  test('they share memory: writing to one writes to the other', async () => {
    const t = grid();
    t.slice([0, [1, 2]]).write([-1, -2, -3, -4]);
    expect((await list(t)).slice(0, 9)).toEqual([0, 1, 2, 3, -1, -2, -3, -4, 8]);
    t.permute([1, 0, 2]).slice([0, 1]).write([9, 9, 9, 9]);
    expect((await list(t)).slice(12, 16)).toEqual([9, 9, 9, 9]);
  });

  test('expand repeats without copying, and cannot be written', async () => {
    const row = device.tensor([1, 2, 3], [1, 3]);
    const wide = row.expand([2, 4, 3]);
    expect(wide.stride).toEqual([0, 0, 1]);
    expect(await list(wide)).toEqual(Array(8).fill([1, 2, 3]).flat());
    expect(() => wide.write(new Float32Array(24))).toThrow(
      refused('ARGUMENT', 'write: tensor repeats elements (strides [0, 0, 1]), expected a view without stride 0'),
    );
  });

  test('what leaves the tensor or cannot be viewed is refused', () => {
    const t = grid();
    const bad = [
      [() => t.slice([[0, 3]]), 'SHAPE', 'slice: range 0 is [0,3], expected one within 0 to 2'],
      [() => t.slice([2]), 'SHAPE', 'slice: range 0 is 2, expected one within 0 to 2'],
      [() => t.slice([[2, 1]]), 'SHAPE', 'slice: range 0 is [2,1], expected one within 0 to 2'],
      [() => t.slice([null, null, null, null]), 'SHAPE', 'slice: 4 ranges given, expected at most 3 for [2, 3, 4]'],
      [() => t.permute([0, 1, 1]), 'ARGUMENT', 'permute: order is [0, 1, 1], expected each of 0 to 2 once'],
      [() => t.view([5, 5]), 'SHAPE', 'view: shape is [5, 5], expected 24 elements as in [2, 3, 4]'],
      [() => t.view([-1, 5]), 'SHAPE', 'view: shape is [-1, 5], expected 24 elements as in [2, 3, 4]'],
      [
        () => t.permute([1, 0, 2]).view([24]),
        'ARGUMENT',
        'view: tensor has strides [4, 12, 1], expected a contiguous one; use contiguous()',
      ],
      [() => t.expand([2, 3, 5]), 'SHAPE', 'expand: shape is [2, 3, 5], expected one that [2, 3, 4] broadcasts to'],
    ] as const;
    for (const [make, code, message] of bad) expect(make).toThrow(refused(code, message));
  });

  test('copyFrom converts and takes any strides; overlap is refused', async () => {
    const t = device.empty([4, 3, 2], 'bf16');
    t.copyFrom(grid().permute([2, 1, 0]));
    expect(await list(t)).toEqual(
      count(0, 24).map((i) => (i % 2) * 12 + (Math.floor(i / 2) % 3) * 4 + Math.floor(i / 6)),
    );
    expect(() => t.slice([[0, 2]]).copyFrom(t.slice([[1, 3]]))).toThrow(
      refused('ARGUMENT', 'copyFrom: source overlaps the tensor in memory, expected separate memory'),
    );
    expect(() => t.copyFrom(grid())).toThrow(refused('SHAPE', 'copyFrom: source is [2, 3, 4], expected [4, 3, 2]'));
  });

  test('the same bits have the same hash, whatever the strides', async () => {
    const t = grid();
    const turned = t.permute([1, 0, 2]);
    expect(await turned.hash()).toBe(await turned.contiguous().hash());
    expect(await turned.hash()).not.toBe(await t.hash());
    expect(await device.zeros([0]).hash()).toMatch(/^[0-9a-f]{16}$/);
  });

  test('a tensor moves to another device with its dtype and origin', async () => {
    await using other = await openDevice('cpu', { threads: 1 });
    const t = device.random([3, 5], 'f16', { seed: 3 }).permute([1, 0]);
    const moved = await t.to(other);
    expect(moved).toMatchObject({
      dtype: 'f16',
      shape: [5, 3],
      isContiguous: true,
      origin: { distribution: 'normal', seed: 3 },
    });
    expect(await moved.read({ raw: true })).toEqual(await t.read({ raw: true }));
    expect(() => device.zeros([5, 3], 'f16').copyFrom(moved)).toThrow(
      refused('ARGUMENT', 'copyFrom: source is on cpu, expected cpu; use to()'),
    );
  });
});

describe('external memory', () => {
  test('is used in place, both ways', async () => {
    const mine = Float32Array.of(1, 2, 3, 4);
    const t = device.fromExternal(mine, [2, 2]);
    mine[3] = 40;
    expect(await list(t)).toEqual([1, 2, 3, 40]);
    t.write([5, 6, 7, 8]);
    await device.stream.sync();
    expect(Array.from(mine)).toEqual([5, 6, 7, 8]);
    t.dispose();
    expect(Array.from(mine)).toEqual([5, 6, 7, 8]);
  });

  test('holds what the array holds', async () => {
    expect(await list(device.fromExternal(Uint16Array.of(0x3f80), [1], 'bf16'))).toEqual([1]);
    expect(() => device.fromExternal(Float32Array.of(1), [1], 'bf16')).toThrow(
      refused('DTYPE', 'fromExternal: dtype is bf16, expected f32 as the array holds'),
    );
    expect(() => device.fromExternal(Float64Array.of(1))).toThrow(
      refused('DTYPE', "fromExternal: data is f64, expected a typed array of a tensor's element type"),
    );
    expect(() => device.fromExternal(Float32Array.of(1), [2])).toThrow(
      refused('SHAPE', 'fromExternal: data has 1 elements, expected 2 for [2]'),
    );
  });
});

describe('disposal', () => {
  test('memory goes back with the last view', async () => {
    // A device of its own: tensors that other tests let go of are collected at any time.
    await using own = await openDevice('cpu', { threads: 1 });
    const before = own.memory().currentBytes;
    const t = own.zeros([1000, 1000]);
    const view = t.slice([[0, 10]]);
    expect(own.memory().currentBytes).toBeGreaterThanOrEqual(before + 4_000_000);
    t.dispose();
    t.dispose();
    expect(t.disposed).toBe(true);
    expect((await view.read())[9999]).toBe(0);
    expect(own.memory().currentBytes).toBeGreaterThanOrEqual(before + 4_000_000);
    view.dispose();
    await own.stream.sync();
    expect(own.memory().currentBytes).toBe(before);
  });

  test('use afterwards is an error that names what was done', async () => {
    const t = device.zeros([2]);
    t.dispose();
    await expect(t.read()).rejects.toThrow(refused('DISPOSED', 'read: tensor is disposed, expected a live tensor'));
    expect(() => t.slice([0])).toThrow(refused('DISPOSED', 'slice: tensor is disposed, expected a live tensor'));
    expect(() => device.zeros([2]).copyFrom(t)).toThrow(
      refused('DISPOSED', 'copyFrom: source is disposed, expected a live tensor'),
    );
  });

  test('`using` disposes at the end of the block', () => {
    let outside: Tensor;
    {
      using t = device.zeros([2]);
      outside = t;
    }
    expect(outside.disposed).toBe(true);
  });

  test('disposing while work is queued is safe', async () => {
    const x = device.random([256, 256], 'f32', { seed: 1 });
    const want = await x.hash();
    const copy = device.empty([256, 256]).copyFrom(x);
    x.dispose();
    expect(await copy.hash()).toBe(want);
    copy.dispose();
  });

  test('every buffer made in a block is gone after it', async () => {
    await device.stream.sync();
    const before = native().counters();
    {
      using a = device.random([64, 64]);
      using b = a.slice([[0, 8]]);
      using c = b.contiguous();
      using d = a.permute([1, 0]);
      using e = d.contiguous();
      using f = await c.to(device);
      await Promise.all([a, b, c, d, e, f].map((t) => t.read()));
    }
    await device.stream.sync();
    expect(native().counters()).toMatchObject({ buffers: before.buffers, bytes: before.bytes });
  });
});

/** Coordinates of a row-major position. */
function coordinates(at: number, shape: readonly number[]): number[] {
  const c: number[] = [];
  for (let d = shape.length - 1, rest = at; d >= 0; --d) {
    c[d] = rest % shape[d]!;
    rest = Math.floor(rest / shape[d]!);
  }
  return c;
}

function reorder(values: number[], shape: readonly number[], order: number[]): number[] {
  const target = order.map((d) => shape[d]!);
  return values.map((_, i) => {
    const to = coordinates(i, target);
    const from: number[] = [];
    order.forEach((d, k) => {
      from[d] = to[k]!;
    });
    return values[from.reduce((at, c, d) => at * shape[d]! + c, 0)]!;
  });
}
