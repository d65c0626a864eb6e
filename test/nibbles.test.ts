// Tensors of 4-bit elements: two to a byte, the even one low; host values, views, copies and sharing, on every kind of device.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, type DType, openDevice, type Tensor } from '../src/index.js';
import { native } from '../src/native.js';
import { targets } from './targets.js';

const refused = (code: string, message: string) => expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message });
const kinds = ['u4', 'nf4', 'i4'] as const;
const lowest: Readonly<Record<string, number>> = { i4: -8, u4: 0, nf4: 0 };
const devices = new Set(
  targets()
    .targets.filter(({ backend, device }) => backend === 'cpu' || device === 'emu:0')
    .map(({ device }) => device),
);

/** Two to a byte, by the definition. */
const pack = (values: readonly number[]) => {
  const bytes = new Uint8Array(Math.ceil(values.length / 2));
  for (const [i, value] of values.entries())
    bytes[Math.floor(i / 2)]! += (value < 0 ? value + 16 : value) * (i % 2 ? 16 : 1);
  return bytes;
};
const valuesOf = (dtype: DType, size: number, seed = 0) =>
  Array.from({ length: size }, (_, i) => lowest[dtype]! + ((i * 7 + seed * 3 + (i >> 4)) % 16));
/** As toEqual, which takes seconds for a million. */
const same = (a: ArrayBufferView, b: ArrayBufferView) =>
  expect(
    Buffer.compare(
      new Uint8Array(a.buffer, a.byteOffset, a.byteLength),
      new Uint8Array(b.buffer, b.byteOffset, b.byteLength),
    ),
  ).toBe(0);
const list = async (t: Tensor) => Array.from(await t.read());

describe.each([...devices])('on %s', (name) => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice(name);
  });
  afterAll(() => device.close());

  test.each(kinds)('%s: values and stored bytes come back, of odd and even sizes, small and large', async (dtype) => {
    for (const size of [0, 1, 2, 3, 31, 64, 1001, 700_001]) {
      const values = valuesOf(dtype, size);
      const t = device.tensor(Int8Array.from(values), [size], dtype);
      expect(t).toMatchObject({ size, bytes: Math.ceil(size / 2), dtype });
      const [back, raw] = await Promise.all([t.read(), t.read({ raw: true })]);
      expect(back).toBeInstanceOf(Int8Array);
      same(back, Int8Array.from(values));
      same(raw, pack(values));
      const again = device.tensor(raw, [size], dtype);
      same(await again.read(), back);
      expect(await again.hash()).toBe(await t.hash());
      t.dispose();
      again.dispose();
    }
  });

  test.each(kinds)('%s: lists, typed arrays and stored bytes mean the same', async (dtype) => {
    const values = valuesOf(dtype, 10);
    for (const data of [
      values,
      Int8Array.from(values),
      Int32Array.from(values),
      Float32Array.from(values),
      pack(values),
    ])
      expect(await list(device.tensor(data, [2, 5], dtype))).toEqual(values);
    expect(device.tensor(pack(values), undefined, dtype).shape).toEqual([10]);
    expect(device.tensor(values, undefined, dtype).shape).toEqual([10]);
    using t = device.zeros([10], dtype);
    expect(await list(t)).toEqual(Array(10).fill(0));
    expect(await list(device.full([3], lowest[dtype]! + 9, dtype))).toEqual(Array(3).fill(lowest[dtype]! + 9));
  });

  test.each(kinds)('%s: random numbers are the integers of the range, alike in any shape', async (dtype) => {
    const low = lowest[dtype]!;
    const t = device.random([101, 33], dtype, { distribution: 'integers', seed: 5 });
    const values = await list(t);
    expect([...new Set(values)].sort((a, b) => a - b)).toEqual(Array.from({ length: 16 }, (_, i) => low + i));
    const wide = device.random([101 * 33], 'i32', { distribution: 'integers', seed: 5, low, high: low + 15 });
    expect(values).toEqual(await list(wide));
    const few = device.random([4096], dtype, { distribution: 'integers', low: 3, high: 4 });
    expect(new Set(await list(few))).toEqual(new Set([3, 4]));
    expect(t.origin).toEqual({ distribution: 'integers', seed: 5, parameters: { low, high: low + 15 } });
  });

  test('parts, copies and other shapes that are runs of whole bytes', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 12 }),
        fc.nat(9),
        fc.nat(9),
        async (rows, columns, a, b) => {
          const values = valuesOf('u4', rows * columns, a);
          using t = device.tensor(values, [rows, columns], 'u4');
          const [from, to] = [Math.min(a, b, rows), Math.min(Math.max(a, b), rows)];
          const whole = (element: number) => element % 2 === 0 || element === rows * columns;
          if ((from * columns) % 2 !== 0 || !whole(to * columns)) {
            if (from < to) expect(() => t.slice([[from, to]])).toThrow(refused('UNSUPPORTED', expect.any(String)));
            return;
          }
          using part = t.slice([[from, to]]);
          const within = values.slice(from * columns, to * columns);
          expect(await list(part)).toEqual(within);
          using copy = device.empty(part.shape, 'u4').copyFrom(part);
          expect(await list(copy)).toEqual(within);
          expect(await copy.hash()).toBe(await part.hash());
          part.write(within.map((v) => 15 - v));
          expect(await list(t)).toEqual(values.map((v, i) => (i >= from * columns && i < to * columns ? 15 - v : v)));
          using flat = t.view([-1]);
          expect(await flat.hash()).toBe(await t.hash());
        },
      ),
      { numRuns: 60 },
    ));

  test('an upload in pieces, a move to another device and back, a host buffer', async () => {
    const values = Int8Array.from(valuesOf('u4', 1_000_003));
    using t = await device.upload(values, [1_000_003], 'u4');
    using stored = await device.upload(pack([...values]), [1_000_003], 'u4');
    expect(await stored.hash()).toBe(await t.hash());
    await using other = await openDevice('cpu', { threads: 1 });
    using there = await t.to(other);
    using back = await there.to(device);
    expect(await there.hash()).toBe(await t.hash());
    same(await back.read(), values);
    const host = await device.hostBuffer(1_000_003);
    const into = new Int8Array(host.buffer);
    expect(await back.read({ into })).toBe(into);
    same(into, values);
    const raw = new Uint8Array(host.buffer, 0, 500_002);
    same(await back.read({ raw: true, into: raw }), pack([...values]));
    host.dispose();
  });

  test('what cannot be is refused', async () => {
    using t = device.tensor(valuesOf('u4', 12), [4, 3], 'u4');
    using floats = device.zeros([4, 3]);
    const run = 'is no run of whole bytes, expected one, as two elements lie in a byte';
    const bad = [
      [
        () => device.tensor([16], [1], 'u4'),
        'ARGUMENT',
        'write: data[0] is 16, expected a whole number from 0 to 15 for u4',
      ],
      [
        () => device.tensor([-9], [1], 'i4'),
        'ARGUMENT',
        'write: data[0] is -9, expected a whole number from -8 to 7 for i4',
      ],
      [
        () => device.tensor([0.5], [1], 'nf4'),
        'ARGUMENT',
        'write: data[0] is 0.5, expected a whole number from 0 to 15 for nf4',
      ],
      [() => device.tensor(new Uint8Array(3), [3], 'u4'), 'SHAPE', 'tensor: data has 3 bytes, expected 2 for [3]'],
      [() => t.write(new Uint8Array(12)), 'SHAPE', 'write: data has 12 bytes, expected 6 for [4, 3]'],
      [() => t.write([1, 2]), 'SHAPE', 'write: data has 2 elements, expected 12 for [4, 3]'],
      [
        () => t.write(new Uint16Array(12)),
        'DTYPE',
        'write: data is a Uint16Array (stored f16 or bf16), expected data for u4',
      ],
      [() => device.random([2], 'u4'), 'ARGUMENT', 'random: distribution is normal, expected integers for u4'],
      [() => device.full([2], 16, 'u4'), 'ARGUMENT', 'full: value is 16, expected a whole number from 0 to 15 for u4'],
      [() => device.empty([2], 'mxfp4'), 'UNSUPPORTED', 'empty: dtype is mxfp4, expected another: it is reserved'],
      [() => t.slice([[1, 3]]), 'UNSUPPORTED', `slice: u4 [2, 3] from element 3 with strides [3, 1] ${run}`],
      [() => t.slice([[0, 1]]), 'UNSUPPORTED', `slice: u4 [1, 3] from element 0 with strides [3, 1] ${run}`],
      [() => t.slice([null, [0, 2]]), 'UNSUPPORTED', `slice: u4 [4, 2] from element 0 with strides [3, 1] ${run}`],
      [() => t.permute([1, 0]), 'UNSUPPORTED', `permute: u4 [3, 4] from element 0 with strides [1, 3] ${run}`],
      [
        () => t.view([1, 12]).expand([2, 12]),
        'UNSUPPORTED',
        `expand: u4 [2, 12] from element 0 with strides [0, 1] ${run}`,
      ],
      [
        () => floats.copyFrom(t),
        'DTYPE',
        'copyFrom: source is u4, expected f32 as one of the two is of 4-bit elements',
      ],
      [
        () => t.copyFrom(floats),
        'DTYPE',
        'copyFrom: source is f32, expected u4 as one of the two is of 4-bit elements',
      ],
    ] as const;
    for (const [make, code, message] of bad) expect(make).toThrow(refused(code, message));
    const host = await device.hostBuffer(16);
    await expect(t.read({ into: new Int8Array(host.buffer, 0, 6) })).rejects.toEqual(
      refused('SHAPE', 'read: into has 6 elements, expected 12'),
    );
    await expect(t.read({ raw: true, into: new Uint8Array(host.buffer, 0, 12) })).rejects.toEqual(
      refused('SHAPE', 'read: into has 12 elements, expected 6'),
    );
    await expect(t.read({ into: new Float32Array(host.buffer) })).rejects.toEqual(
      refused('DTYPE', 'read: into is Float32Array, expected Int8Array'),
    );
    host.dispose();
    expect(await list(t)).toEqual(valuesOf('u4', 12));
  });
});

describe('on the CPU', () => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice('cpu');
  });
  afterAll(() => device.close());

  test('memory of the caller is used in place', async () => {
    const mine = pack([1, 2, 3, 4, 5]);
    using t = device.fromExternal(mine, [5], 'u4');
    expect(await list(t)).toEqual([1, 2, 3, 4, 5]);
    t.write([5, 4, 3, 2, 1]);
    await device.stream.sync();
    expect(mine).toEqual(pack([5, 4, 3, 2, 1]));
    expect(device.fromExternal(new Uint8Array(4), undefined, 'nf4').shape).toEqual([8]);
    expect(() => device.fromExternal(new Uint8Array(4), [9], 'u4')).toThrow(
      refused('SHAPE', 'fromExternal: data has 4 bytes, expected 5 for [9]'),
    );
  });

  test('a shared tensor is adopted, from a whole byte of its memory alone', async () => {
    await using other = await openDevice('cpu');
    using t = device.tensor(valuesOf('u4', 24), [4, 6], 'u4');
    using part = t.slice([[1, 3]]);
    const token = structuredClone(await part.share());
    using adopted = other.adopt(token);
    expect(await list(adopted)).toEqual(valuesOf('u4', 24).slice(6, 18));
    for (const offset of [7, 14])
      expect(() => other.adopt({ ...token, offset })).toThrow(
        refused('ARGUMENT', `adopt: token has 12 elements of u4 from ${offset}, expected them within 12 bytes`),
      );
  });

  test("the half byte after an odd number of elements is nobody's", async () => {
    using t = device.tensor(Uint8Array.of(0x21, 0xf3), [3], 'u4');
    expect(await list(t)).toEqual([1, 2, 3]);
    expect(await t.hash()).toBe(await device.tensor([1, 2, 3], [3], 'u4').hash());
  });

  test('the addon itself refuses gaps, halves of bytes, and numbers for stored elements', async () => {
    using t = device.zeros([4, 4], 'u4');
    const view = t.nativeView;
    const stream = device.stream.handle;
    const wanted = 'of 4-bit elements with gaps or from the middle of a byte, expected a run of whole bytes';
    for (const bad of [
      { ...view, shape: [2], stride: [1], offset: 1 },
      { ...view, shape: [4, 2] },
    ])
      expect(() => native().write(stream, bad, new Uint8Array(1), true)).toThrow(
        refused('ARGUMENT', `write: view is ${wanted}`),
      );
    expect(() => native().write(stream, view, new Float32Array(16), false)).toThrow(
      refused('DTYPE', 'write: data is numbers, expected 4-bit elements as stored'),
    );
    expect(() => native().read(stream, view, new Uint8Array(16), false)).toThrow(
      refused('SHAPE', 'read: into is of 16 bytes, expected an Int8Array of 16'),
    );
  });
});
