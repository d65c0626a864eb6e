// nsa_attend: by hand, every block is dense attention, what is not named is not read, single queries of many sequences, and what it refuses.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Backend, type Device, nsaAttend, openDevice, type Tensor } from '../../src/index.js';
import { close, share } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
const ints = (numbers: readonly number[], shape: readonly number[]) => device.tensor(Int32Array.from(numbers), shape);
const few = (max: number, min = 1) => fc.integer({ min, max });

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('a worked example: two blocks of two keys, of which the last is cut by the place of the query', async () => {
    // All scores are 0, so that a row is the mean of the values it sees: keys 0, 1 and 4, of 1, 2 and 9.
    const q = device.zeros([1, 1, 1, 1]);
    const k = device.zeros([1, 6, 1, 1]);
    const v = device.tensor([1, 2, Number.NaN, Number.NaN, 9, Number.NaN], [1, 6, 1, 1]);
    const lensKv = ints([5], [1]);
    const { y, lse } = nsaAttend({ q, k, v, lensKv, blocks: ints([0, 2, -1], [1, 1, 1, 3]), block: 2 }, { backend });
    close(await list(y), [4], 1e-6);
    close(await list(lse), [Math.log(3)], 1e-6);
  });

  test('rows without a block, and queries past a length, are 0', async () => {
    const q = device.random([2, 2, 2, 4], 'f32', { seed: 1 });
    const k = device.random([2, 3, 1, 4], 'f32', { seed: 2 });
    const blocks = ints([-1, 0, 0, 7], [2, 2, 1, 1]);
    const lensQ = ints([2, 1], [2]);
    const { y, lse } = nsaAttend({ q, k, v: k, blocks, lensQ, block: 4, causal: false }, { backend });
    const rows = await list(y);
    expect(rows.slice(0, 8)).toEqual(new Array(8).fill(0));
    expect(rows.slice(24)).toEqual(new Array(8).fill(0));
    const none = Number.NEGATIVE_INFINITY;
    expect((await list(lse)).map((x) => x === none)).toEqual([true, false, true, false, false, true, false, true]);
  });
});

const problem = fc.record({
  batch: few(3),
  lenQ: few(20),
  lenKv: few(150),
  headsKv: few(3),
  group: few(18),
  dim: few(70),
  block: few(40),
  causal: fc.boolean(),
  seed: few(1e6, 0),
  dtype: fc.constantFrom('f32', 'bf16', 'f16'),
});
const runs = { numRuns: process.env.KERNWATT_FULL ? 200 : 25 };
type Problem = typeof problem extends fc.Arbitrary<infer P> ? P : never;

const operandsOf = ({ batch, lenQ, lenKv, headsKv, group, dim, seed, dtype }: Problem) => ({
  q: device.random([batch, lenQ, headsKv * group, dim], dtype, { seed }),
  k: device.random([batch, lenKv, headsKv, dim], dtype, { seed: seed + 1 }),
  v: device.random([batch, lenKv, headsKv, dim], dtype, { seed: seed + 2 }),
});

describe('identities', () => {
  test('every block is dense attention', () =>
    fc.assert(
      fc.asyncProperty(problem, async (p) => {
        const operands = operandsOf(p);
        const reach = Math.ceil(p.lenKv / p.block);
        const rows = p.batch * p.lenQ * p.headsKv;
        const blocks = ints(
          Array.from({ length: rows * reach }, (_, i) => i % reach),
          [p.batch, p.lenQ, p.headsKv, reach],
        );
        const sparse = nsaAttend({ ...operands, blocks, block: p.block, causal: p.causal });
        const dense = attentionGqa({ ...operands, causal: p.causal });
        close(await list(sparse.y), await list(dense.y), share[p.dtype]);
        close(await list(sparse.lse), await list(dense.lse));
      }),
      runs,
    ));

  test('of one block it is attention over its keys, and the others are not read', async () => {
    const q = device.random([1, 5, 4, 16], 'f32', { seed: 1 });
    const k = device.random([1, 48, 2, 16], 'f32', { seed: 2 });
    const v = device.random([1, 48, 2, 16], 'f32', { seed: 3 });
    const within = [16, 32] as const;
    const dense = attentionGqa({ q, k: k.slice([null, within]), v: v.slice([null, within]) });
    const nothing = new Float32Array(16 * 2 * 16).fill(Number.NaN);
    for (const t of [k, v])
      for (const range of [
        [0, 16],
        [32, 48],
      ] as const)
        t.slice([null, range]).write(nothing);
    const blocks = ints(new Array(10).fill(1), [1, 5, 2, 1]);
    const sparse = nsaAttend({ q, k, v, blocks, block: 16, causal: false });
    close(await list(sparse.y), await list(dense.y), 1e-6);
  });

  test('single queries of many sequences are what each is alone', async () => {
    const batch = 150;
    const q = device.random([batch, 1, 4, 32], 'bf16', { seed: 1 });
    const k = device.random([batch, 64, 2, 32], 'bf16', { seed: 2 });
    const v = device.random([batch, 64, 2, 32], 'bf16', { seed: 3 });
    const blocks = ints(
      Array.from({ length: batch * 2 * 2 }, (_, i) => (i % 2) * 2 + (Math.floor(i / 2) % 2)),
      [batch, 1, 2, 2],
    );
    const all = await nsaAttend({ q, k, v, blocks, block: 16 }).y.read({ raw: true });
    for (const b of [0, 1, 128, 149]) {
      const own = (t: Tensor) => t.slice([[b, b + 1]]);
      const { y } = nsaAttend({ q: own(q), k: own(k), v: own(v), blocks: own(blocks), block: 16 });
      expect(await y.read({ raw: true })).toEqual(all.slice(b * 128, (b + 1) * 128));
    }
  });

  test('results are the same for any number of threads', async () => {
    await using single = await openDevice('cpu', { threads: 1 });
    const run = (on: Device) => {
      const q = on.random([1, 300, 8, 64], 'bf16', { seed: 1 });
      const k = on.random([1, 300, 2, 64], 'bf16', { seed: 2 });
      const blocks = on.tensor(
        Int32Array.from({ length: 300 * 2 * 3 }, (_, i) => i % 3),
        [1, 300, 2, 3],
      );
      return nsaAttend({ q, k, v: k, blocks, block: 64 }).y.read({ raw: true });
    };
    expect(await run(device)).toEqual(await run(single));
  });
});

describe('refused', () => {
  const call = (args: Record<string, unknown>) => () =>
    nsaAttend.run({
      q: device.zeros([2, 3, 4, 8]),
      k: device.zeros([2, 64, 2, 8]),
      v: device.zeros([2, 64, 2, 8]),
      blocks: ints(new Array(24).fill(-1), [2, 3, 2, 2]),
      block: 16,
      ...args,
    });
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `nsa_attend: ${message}` });
  const row = (...numbers: number[]) => {
    const all = new Array(24).fill(-1);
    all.splice(10, numbers.length, ...numbers);
    return { blocks: ints(all, [2, 3, 2, 2]) };
  };

  test('before the launch, where the contents are known', () => {
    expect(call({})).not.toThrow();
    expect(call(row(3, -1))).not.toThrow();
    expect(call(row(-1, 99))).not.toThrow();
    expect(call(row(4))).toThrow(refused('INDEX', 'blocks[5, 0] is 4, expected 0 to 3'));
    expect(call(row(-2))).toThrow(refused('INDEX', 'blocks[5, 0] is -2, expected 0 to 3'));
    expect(call(row(2, 2))).toThrow(refused('INDEX', 'blocks[5, 1] is 2, expected 3 to 3'));
    expect(call(row(3, 4))).toThrow(refused('INDEX', 'blocks[5, 1] is 4, expected -1 to -1'));
    expect(call({ block: 0 })).toThrow(refused('ARGUMENT', 'block is 0, expected a whole number from 1 to 2147483647'));
    expect(call({ q: device.zeros([2, 3, 3, 8]) })).toThrow(refused('SHAPE', 'headsKv 2 does not divide headsQ 3'));
    expect(call({ lensKv: ints([64, 65], [2]) })).toThrow(refused('INDEX', 'lensKv[1] is 65, expected 0 to 64'));
    expect(call({ blocks: device.zeros([2, 3, 2, 2]) })).toThrow(refused('DTYPE', 'blocks is f32, expected i32'));
  });
});

test('work counts the keys that a row names, or those before it', () => {
  const bind = (causal: boolean) =>
    nsaAttend.bind({
      q: device.zeros([1, 100, 4, 32], 'bf16'),
      k: device.zeros([1, 100, 2, 32], 'bf16'),
      v: device.zeros([1, 100, 2, 16], 'bf16'),
      blocks: device.zeros([1, 100, 2, 2], 'i32'),
      block: 16,
      causal,
    });
  using causal = bind(true);
  using full = bind(false);
  expect(causal.work.flops).toBe(2 * 48 * 4 * ((32 * 33) / 2 + 68 * 32));
  expect(full.work.flops).toBe(2 * 48 * 4 * 100 * 32);
});
