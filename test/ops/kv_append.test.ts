// kv_append: where rows go, to the bit; what stays; rope on the way; what is refused, before the launch and after it.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Backend, type Device, type DType, kvAppend, openDevice, rope, type Tensor } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const i32 = (shape: number[], ...values: number[]) => device.tensor(Int32Array.from(values), shape);
const list = async (t: Tensor) => Array.from(await t.read());
/** The same numbers, written by queued work, so that the host does not know them. */
const queued = (t: Tensor) => device.empty(t.shape, 'i32').copyFrom(t);

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('puts rows into the slots of their pages and leaves the rest', async () => {
    // Two requests, pages of 2 slots. The first has 3 tokens with these 2: places 1 and 2, slot 1 of page 3 and slot 0 of page 0.
    // The second has only 1: its first row is not there, the other goes to slot 0 of page 2.
    const k = device.tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 2, 1, 2]);
    const v = device.tensor([-1, -2, -3, -4], [2, 2, 1, 1]);
    const kCache = device.full([4, 2, 1, 2], 9);
    const vCache = device.full([4, 2, 1, 1], Number.NaN);
    const pageTable = i32([2, 2], 3, 0, 2, -1);
    const result = kvAppend({ k, v, pageTable, lensKv: i32([2], 3, 1), kCache, vCache }, { backend });
    expect(result.kCache).toBe(kCache);
    expect(await list(kCache)).toEqual([3, 4, 9, 9, 9, 9, 9, 9, 7, 8, 9, 9, 9, 9, 1, 2]);
    const none = Number.NaN;
    expect(await list(vCache)).toEqual([-2, none, none, none, -4, none, none, -1]);
    // With one row that counts of each, the first of both: places 2 and 0.
    kvAppend({ k, v, pageTable, lensKv: i32([2], 3, 1), lensQ: i32([2], 1, 1), kCache, vCache }, { backend });
    expect(await list(kCache)).toEqual([1, 2, 9, 9, 9, 9, 9, 9, 5, 6, 9, 9, 9, 9, 1, 2]);
  });

  test.each<DType>(['f32', 'bf16', 'f16', 'f8e4m3'])('rounds once to %s, as tensors are', async (dtype) => {
    const scales = dtype === 'f8e4m3' ? [0.013, 0.4] : [1, 1];
    const k = device.random([1, 40, 2, 33], 'f32', { seed: 1 });
    const v = device.random([1, 40, 2, 7], 'f32', { seed: 2 });
    const kCache = device.zeros([40, 1, 2, 33], dtype);
    const vCache = device.zeros([40, 1, 2, 7], dtype);
    const scale = dtype === 'f8e4m3' ? { kScale: device.tensor(scales, [2]), vScale: device.tensor(scales, [2]) } : {};
    const order = Array.from({ length: 40 }, (_, i) => (7 * i) % 40);
    const pageTable = i32([1, 40], ...order);
    kvAppend({ k, v, pageTable, lensKv: i32([1], 40), kCache, vCache, ...scale }, { backend });
    for (const [from, cache] of [[k, kCache] as const, [v, vCache] as const]) {
      const columns = from.shape[3]!;
      const values = Float32Array.from(
        await from.read(),
        (x, i) => x / Math.fround(scales[Math.floor(i / columns) % 2]!),
      );
      const rounded = await device.tensor(values, from.shape, dtype).read({ raw: true });
      const stored = await cache.read({ raw: true });
      const row = 2 * columns;
      for (const [t, page] of order.entries())
        expect(stored.slice(page * row, (page + 1) * row)).toEqual(rounded.slice(t * row, (t + 1) * row));
    }
  });

  test('keeps NaN, and cuts f8e4m3 off at 448 times the scale', async () => {
    const values = [Number.NaN, 1e30, -1e30, Number.POSITIVE_INFINITY, 447, 0.0009765625, 3 * 0.0009765625, -0];
    const k = device.tensor(values, [1, 1, 1, 8]);
    const [kCache, vCache] = [device.zeros([1, 1, 1, 8], 'f8e4m3'), device.zeros([1, 1, 1, 8], 'f8e4m3')];
    const one = device.tensor([1], [1]);
    const half = device.tensor([0.5], [1]);
    const args = { k, v: k, pageTable: i32([1, 1], 0), lensKv: i32([1], 1), kCache, vCache, kScale: one, vScale: half };
    kvAppend(args, { backend });
    expect(await list(kCache)).toEqual([Number.NaN, 448, -448, 448, 448, 0, 2 ** -8, -0]);
    expect(await list(vCache)).toEqual([Number.NaN, 448, -448, 448, 448, 2 ** -9, 3 * 2 ** -9, -0]);
  });

  test.each([{}, { interleaved: true }, { dimRotary: 16 }, { scaling: 'llama3', factor: 8, theta: 500000 }] as const)(
    'turns keys as rope does at their places, to the bit: %o',
    async (params) => {
      const k = device.random([2, 3, 2, 64], 'bf16', { seed: 3 });
      const v = device.random([2, 3, 2, 8], 'bf16', { seed: 4 });
      const positions = i32([2, 3], 2, 3, 4, 97, 98, 99);
      const turned = rope({ x: k, positions, ...params }, { backend }).y;
      const append = async (keys: Tensor, way: object) => {
        const kCache = device.zeros([26, 4, 2, 64], 'bf16');
        const vCache = device.zeros([26, 4, 2, 8], 'bf16');
        const pageTable = i32([2, 25], ...Array.from({ length: 50 }, (_, i) => i % 25));
        kvAppend({ k: keys, v, pageTable, lensKv: i32([2], 5, 100), kCache, vCache, ...way }, { backend });
        return kCache.read({ raw: true });
      };
      expect(await append(k, { rope: true, ...params })).toEqual(await append(turned, {}));
    },
  );

  test('calling twice is calling once, and any number of threads gives the same bits', async () => {
    const found: unknown[] = [];
    for (const threads of [1, 3]) {
      await using own = await openDevice('cpu', { threads });
      const k = own.random([2, 150, 4, 64], 'f32', { seed: 5 });
      const numbers = (shape: number[], values: number[]) => own.tensor(Int32Array.from(values), shape);
      const pageTable = numbers(
        [2, 10],
        Array.from({ length: 20 }, (_, i) => (i * 7) % 20),
      );
      const kCache = own.random([20, 16, 4, 64], 'bf16', { seed: 6 });
      const vCache = own.random([20, 16, 4, 64], 'bf16', { seed: 7 });
      using plan = kvAppend.bind(
        { k, v: k, pageTable, lensKv: numbers([2], [150, 159]), kCache, vCache, rope: true },
        { backend },
      );
      for (let i = 0; i < 2; ++i) {
        await plan.run();
        found.push([await kCache.hash(), await vCache.hash()]);
      }
    }
    expect(new Set(found.map((one) => JSON.stringify(one))).size).toBe(1);
  });
});

const few = () => ({
  k: device.random([3, 2, 1, 8], 'f32', { seed: 8 }),
  v: device.random([3, 2, 1, 8], 'f32', { seed: 9 }),
  pageTable: i32([3, 2], 0, 1, 2, 3, 4, 5),
  lensKv: i32([3], 5, 3, 8),
  kCache: device.zeros([6, 4, 1, 8]),
  vCache: device.zeros([6, 4, 1, 8]),
});
const refused = (code: string, message: string) =>
  expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `kv_append: ${message}` });

describe('refused before the launch:', () => {
  const call = (args: Record<string, unknown>) => () => kvAppend.run({ ...few(), ...args });

  test('lengths and pages that the host knows', async () => {
    expect(call({})).not.toThrow();
    expect(call({ lensKv: i32([3], 5, 9, 0) })).toThrow(refused('INDEX', 'lensKv[1] is 9, expected 0 to 8'));
    expect(call({ lensQ: i32([3], 0, 1, 3) })).toThrow(refused('INDEX', 'lensQ[2] is 3, expected 0 to 2'));
    const pageTable = i32([3, 2], 0, 1, 2, -9, 4, 6);
    expect(call({ pageTable })).toThrow(refused('INDEX', 'pageTable[2, 1] is 6, expected 0 to 5'));
    // Entries that no length reaches may hold anything.
    expect(call({ pageTable, lensKv: i32([3], 5, 4, 4) })).not.toThrow();
    await device.stream.mark();
  });

  test('types, scales, sizes and overlaps', () => {
    const f8 = { kCache: device.zeros([6, 4, 1, 8], 'f8e4m3'), vCache: device.zeros([6, 4, 1, 8], 'f8e4m3') };
    const scale = device.full([1], 1);
    expect(call(f8)).toThrow(
      refused('ARGUMENT', 'kScale is missing with a cache of f8e4m3, expected it with f8e4m3 alone'),
    );
    expect(call({ ...f8, kScale: scale, vScale: scale })).not.toThrow();
    expect(call({ vScale: scale })).toThrow(
      refused('ARGUMENT', 'vScale is given with a cache of f32, expected it with f8e4m3 alone'),
    );
    expect(call({ vCache: device.zeros([6, 4, 1, 8], 'bf16') })).toThrow(
      refused('DTYPE', 'vCache is bf16, but kCache is f32'),
    );
    expect(call({ vCache: device.zeros([6, 5, 1, 8]) })).toThrow(
      refused('SHAPE', 'vCache has pageSize 5, but kCache has 4'),
    );
    expect(call({ kCache: undefined })).toThrow(refused('ARGUMENT', 'kCache is missing, expected a tensor'));
    const { kCache } = few();
    expect(call({ kCache, vCache: kCache })).toThrow(
      refused('ARGUMENT', 'kCache overlaps vCache in memory, expected separate tensors'),
    );
    expect(call({ rope: true, dimRotary: 10 })).toThrow(refused('SHAPE', 'dimRotary is 10, expected at most dim 8'));
    expect(() => kvAppend.pool({ ...few() } as never)).toThrow(/kv_append.pool: kCache is updated in place/);
  });
});

describe('lengths and pages that only the device knows', () => {
  test.each([
    ['lensKv', () => i32([3], 5, 9, 8), 'lens_kv[1] is 9, expected 0 to 8'],
    ['lensQ', () => i32([3], 2, -1, 2), 'lens_q[1] is -1, expected 0 to 2'],
    ['pageTable', () => i32([3, 2], 0, 1, 6, 3, 4, 5), 'page_table[1, 0] is 6, expected 0 to 5'],
  ] as const)('%s: named, and other requests are right', async (name, values, message) => {
    const args = few();
    kvAppend({ ...args, [name]: queued(values()) });
    await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', message));
    await expect(device.stream.mark()).resolves.toBeUndefined();
    const expected = few();
    kvAppend({ ...expected, lensKv: i32([3], 5, 0, 8) });
    expect(await list(args.kCache)).toEqual(await list(expected.kCache));
    expect(await list(args.vCache)).toEqual(await list(expected.vCache));
  });

  test('the definition writes nothing then', async () => {
    const args = few();
    kvAppend({ ...args, lensKv: queued(i32([3], 5, 9, 8)) }, { backend: 'ref' });
    await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'lens_kv[1] is 9, expected 0 to 8'));
    expect((await list(args.kCache)).every((x) => x === 0)).toBe(true);
  });
});

test('a cache that another stream is still writing is refused', async () => {
  const args = few();
  await device.stream.mark();
  await using other = device.createStream();
  kvAppend(args, { stream: other });
  expect(() => kvAppend(args)).toThrow(/kCache/);
  await other.mark();
  expect(() => kvAppend(args)).not.toThrow();
});

test('work counts 6 for each pair, k and v once, and as much of the caches', () => {
  const args = few();
  using plan = kvAppend.bind({ ...args, rope: true });
  const rows = 3 * 2 * 8;
  expect(plan.work).toEqual({ flops: 3 * rows, bytes: 4 * 4 * rows + 4 * 6 + 4 * 3, tokens: 6, params: null });
});
