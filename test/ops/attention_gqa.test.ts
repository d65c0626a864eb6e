// attention_gqa: what comparing with the definition cannot show. The definition itself against plain loops written here, and
// identities that hold whatever any of them says.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, type Backend, type Device, openDevice, type Tensor } from '../../src/index.js';
import { type Attention, attend, close, Numbers, type Params, share } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

type Type = 'f32' | 'bf16' | 'f16';

interface Sizes {
  batch: number;
  lenQ: number;
  lenKv: number;
  headsKv: number;
  group: number;
  dim: number;
  dimV: number;
}

/** Random queries, keys and values. */
function inputs({ batch, lenQ, lenKv, headsKv, group, dim, dimV }: Sizes, dtype: Type = 'f32', seed = 1) {
  const random = (shape: number[], n: number) => device.random(shape, dtype, { seed: 3 * seed + n });
  return {
    q: random([batch, lenQ, headsKv * group, dim], 0),
    k: random([batch, lenKv, headsKv, dim], 1),
    v: random([batch, lenKv, headsKv, dimV], 2),
  };
}

const list = async (t: Tensor) => Array.from(await t.read());
const none = Number.NEGATIVE_INFINITY;
/** A mask in which about two thirds of the flags are set, to values other than 1 too. */
const flags = (shape: number[], seed = 9) =>
  device.random(shape, 'u8', { distribution: 'integers', low: 0, high: 2, seed });
const i32 = (values: number[]) => device.tensor(Int32Array.from(values));

describe.each<Backend>(['ref', 'cpu'])('%s against plain loops', (backend) => {
  const sizes = { batch: 2, lenQ: 5, lenKv: 7, headsKv: 2, group: 2, dim: 6, dimV: 3 };
  const params: Params[] = [
    {},
    { causal: true },
    { windowLeft: 1 },
    { windowRight: 0 },
    { windowLeft: 1, windowRight: 2 },
    { causal: true, windowLeft: 2 },
    { scale: 0.7 },
    { scale: -1 },
    { softcap: 0.5 },
    { softcap: 2, scale: 3, causal: true },
  ];
  const optional: Record<string, (lenQ: number, lenKv: number) => Tensor> = {
    bias: (lenQ, lenKv) => device.random([2, 4, lenQ, lenKv], 'f32', { seed: 20 }),
    mask: (lenQ, lenKv) => flags([2, 4, lenQ, lenKv]),
    alibi: () => device.tensor([0.5, -0.25, 0, 1]),
    sink: () => device.tensor([0, 1, -2, none]),
  };

  async function compare(
    p: Params,
    names: readonly string[],
    { lens = {}, ...dims }: Partial<Sizes> & { lens?: { lensQ?: number[]; lensKv?: number[] } } = {},
  ) {
    const s = { ...sizes, ...dims };
    const args = inputs(s);
    const extra = Object.fromEntries(names.map((name) => [name, optional[name]!(s.lenQ, s.lenKv)]));
    const lengths = Object.fromEntries(Object.entries(lens).map(([name, values]) => [name, i32(values)]));
    const { y, lse } = attentionGqa({ ...args, ...extra, ...lengths, ...p }, { backend });
    const numbers: Record<string, Numbers> = {};
    for (const [name, t] of Object.entries({ ...args, ...extra })) numbers[name] = await Numbers.of(t);
    const want = attend({ ...(numbers as unknown as Attention), ...lens, ...p });
    close(await list(y), want.y);
    close(await list(lse), want.lse);
  }

  test.each(params)('%j', (p) => compare(p, []));
  test.each([[['bias']], [['mask']], [['alibi']], [['sink']], [['bias', 'mask', 'alibi', 'sink']]])('%j', (names) =>
    compare({ causal: true, softcap: 3 }, names),
  );
  test.each([
    [9, 4],
    [1, 30],
    [40, 70],
  ])('%i queries of %i keys', (lenQ, lenKv) => compare({ causal: true }, ['alibi'], { lenQ, lenKv }));

  test.each([{ lensQ: [5, 2] }, { lensKv: [0, 6] }, { lensQ: [3, 4], lensKv: [7, 2] }])('%j', async (lens) => {
    await compare({}, ['sink'], { lens });
    await compare({ causal: true, windowLeft: 3 }, ['alibi', 'bias'], { lens });
  });

  test('a bias of -Infinity hides a key, and a row of them is empty', async () => {
    const args = inputs({ ...sizes, batch: 1, lenQ: 2, lenKv: 3, headsKv: 1, group: 1 });
    const bias = device.tensor([none, none, none, 0, none, 0], [1, 1, 2, 3]);
    const { y, lse } = attentionGqa({ ...args, bias }, { backend });
    const [q, k, v] = await Promise.all([args.q, args.k, args.v].map(Numbers.of));
    const want = attend({ q: q!, k: k!, v: v!, mask: new Numbers([0, 0, 0, 1, 0, 1], [1, 1, 2, 3]) });
    expect((await list(y)).slice(0, 3)).toEqual([0, 0, 0]);
    close(await list(y), want.y);
    close(await list(lse), want.lse);
  });
});

const few = (max: number, min = 1) => fc.integer({ min, max });
const problem = fc.record({
  batch: few(3),
  lenQ: few(40),
  lenKv: few(90),
  headsKv: few(3),
  group: few(4),
  dim: few(70),
  dimV: few(70),
  seed: few(1e6, 0),
  dtype: fc.constantFrom<Type>('f32', 'bf16', 'f16'),
  causal: fc.boolean(),
});
const runs = { numRuns: process.env.KERNWATT_FULL ? 200 : 20 };

/** A property of random problems. */
const holds = (check: (p: typeof problem extends fc.Arbitrary<infer P> ? P : never) => Promise<void>) =>
  fc.assert(fc.asyncProperty(problem, check), runs);

async function same(a: { y: Tensor; lse: Tensor }, b: { y: Tensor; lse: Tensor }, dtype: Type) {
  close(await list(a.y), await list(b.y), share[dtype]);
  close(await list(a.lse), await list(b.lse), share.f32);
}

describe('identities', () => {
  test('a window as long as the keys is no window', () =>
    holds(async ({ causal, dtype, seed, ...sizes }) => {
      const args = { ...inputs(sizes, dtype, seed), causal };
      const far = sizes.lenQ + sizes.lenKv;
      await same(attentionGqa({ ...args, windowLeft: far, windowRight: far }), attentionGqa(args), dtype);
    }));

  test('causal is a window without keys ahead', () =>
    holds(async ({ causal: _, dtype, seed, ...sizes }) => {
      const args = inputs(sizes, dtype, seed);
      await same(attentionGqa({ ...args, windowRight: 0 }), attentionGqa({ ...args, causal: true }), dtype);
    }));

  test('a group reads one key/value head as if each of its heads had a copy', () =>
    holds(async ({ causal, dtype, seed, ...sizes }) => {
      const { q, k, v } = inputs(sizes, dtype, seed);
      const repeat = (t: Tensor) => {
        const [batch, len, heads, dim] = t.shape as [number, number, number, number];
        const all = device.empty([batch, len, heads, sizes.group, dim], dtype);
        all.copyFrom(t.contiguous().view([batch, len, heads, 1, dim]).expand(all.shape));
        return all.view([batch, len, heads * sizes.group, dim]);
      };
      const grouped = attentionGqa({ q, k, v, causal });
      await same(grouped, attentionGqa({ q, k: repeat(k), v: repeat(v), causal }), dtype);
    }));

  test('heads before lengths in memory give the same bits', () =>
    holds(async ({ causal, dtype, seed, ...sizes }) => {
      const args = inputs(sizes, dtype, seed);
      const turned = (t: Tensor) => t.permute([0, 2, 1, 3]).contiguous().permute([0, 2, 1, 3]);
      const y = device.empty([sizes.dimV, sizes.batch, sizes.group * sizes.headsKv, sizes.lenQ], dtype);
      const into = y.view([sizes.batch, sizes.group * sizes.headsKv, sizes.lenQ, sizes.dimV]).permute([0, 2, 1, 3]);
      const got = attentionGqa({ q: turned(args.q), k: turned(args.k), v: turned(args.v), y: into, causal });
      const want = attentionGqa({ ...args, causal });
      expect(await list(got.y)).toEqual(await list(want.y));
      expect(await list(got.lse)).toEqual(await list(want.lse));
    }));

  test('a batch is its slices', () =>
    holds(async ({ causal, dtype, seed, ...sizes }) => {
      const args = inputs(sizes, dtype, seed);
      const whole = attentionGqa({ ...args, causal });
      for (let b = 0; b < sizes.batch; ++b) {
        const cut = (t: Tensor) => t.slice([[b, b + 1]]);
        const one = attentionGqa({ q: cut(args.q), k: cut(args.k), v: cut(args.v), causal });
        await same({ y: cut(whole.y), lse: cut(whole.lse) }, one, dtype);
      }
    }));

  test('the first query of a causal square returns its value, to the bit', () =>
    holds(async ({ causal: _, dtype, seed, lenQ, ...sizes }) => {
      const args = inputs({ ...sizes, lenQ, lenKv: lenQ, group: 1 }, dtype, seed);
      const { y } = attentionGqa({ ...args, causal: true });
      expect(await list(y.slice([null, 0]))).toEqual(await list(args.v.slice([null, 0])));
    }));

  test('a constant bias changes nothing but lse', () =>
    holds(async ({ causal, dtype, seed, ...sizes }) => {
      const args = { ...inputs(sizes, dtype, seed), causal };
      const plain = attentionGqa(args);
      const bias = device.full([1, 1, sizes.lenQ, sizes.lenKv], 20, 'f32');
      const shifted = attentionGqa({ ...args, bias });
      close(await list(shifted.y), await list(plain.y), 4 * share[dtype]);
      close(
        (await list(shifted.lse)).map((x) => x - 20),
        await list(plain.lse),
      );
    }));

  test('a sink is one more key whose value is zero', () =>
    holds(async ({ causal: _, dtype, seed, ...sizes }) => {
      const { q, k, v } = inputs(sizes, dtype, seed);
      const heads = sizes.headsKv * sizes.group;
      const sink = device.random([heads], 'f32', { seed });
      const longer = (t: Tensor) => {
        const [batch, len, ...rest] = t.shape as [number, number, number, number];
        const all = device.zeros([batch, len + 1, ...rest], dtype);
        all.slice([null, [0, len]]).copyFrom(t);
        return all;
      };
      const bias = device.zeros([1, heads, sizes.lenQ, sizes.lenKv + 1]);
      bias.slice([null, null, null, sizes.lenKv]).copyFrom(sink.view([1, heads, 1]).expand([1, heads, sizes.lenQ]));
      await same(attentionGqa({ q, k, v, sink }), attentionGqa({ q, k: longer(k), v: longer(v), bias }), dtype);
    }));

  test('slopes are the bias that they stand for', () =>
    holds(async ({ causal, dtype, seed, ...sizes }) => {
      const args = { ...inputs(sizes, dtype, seed), causal };
      const { lenQ, lenKv } = sizes;
      const slopes = Array.from({ length: sizes.headsKv * sizes.group }, (_, h) => 2 ** -(h + 1));
      const distances = slopes.flatMap((slope) =>
        Array.from({ length: lenQ * lenKv }, (_, at) => {
          const place = Math.floor(at / lenKv) + lenKv - lenQ;
          return -slope * Math.abs(place - (at % lenKv));
        }),
      );
      const bias = device.tensor(distances, [1, slopes.length, lenQ, lenKv]);
      await same(attentionGqa({ ...args, alibi: device.tensor(slopes) }), attentionGqa({ ...args, bias }), dtype);
    }));

  test('a mask of blocks is the mask of their pairs, and -Infinity hides as a mask does', () =>
    fc.assert(
      fc.asyncProperty(problem, few(20), few(20), async ({ causal, dtype, seed, ...sizes }, blockQ, blockKv) => {
        const args = { ...inputs(sizes, dtype, seed), causal };
        const { lenQ, lenKv, batch } = sizes;
        const blocks = [Math.ceil(lenQ / blockQ), Math.ceil(lenKv / blockKv)] as const;
        const mask = flags([batch, 1, ...blocks], seed);
        const set = await Numbers.of(mask);
        const pairs = Array.from({ length: batch * lenQ * lenKv }, (_, at) => {
          const [b, i, j] = [Math.floor(at / (lenQ * lenKv)), Math.floor(at / lenKv) % lenQ, at % lenKv];
          return set.at(b, 0, Math.floor(i / blockQ), Math.floor(j / blockKv));
        });
        const shape = [batch, 1, lenQ, lenKv];
        const got = attentionGqa({ ...args, mask, maskBlockQ: blockQ, maskBlockKv: blockKv });
        await same(got, attentionGqa({ ...args, mask: device.tensor(Uint8Array.from(pairs), shape) }), dtype);
        const bias = device.tensor(
          pairs.map((flag) => (flag ? 0 : none)),
          shape,
        );
        await same(got, attentionGqa({ ...args, bias }), dtype);
      }),
      runs,
    ));

  test('padded and packed sequences are each its own call', () =>
    fc.assert(
      fc.asyncProperty(
        problem,
        fc.array(fc.tuple(few(30, 0), few(50, 0)), { minLength: 1, maxLength: 4 }),
        async (p, lens) => {
          const { causal, dtype, seed, batch: _, ...sizes } = p;
          const params = { causal, windowLeft: 20 };
          const longest = (which: 0 | 1) => Math.max(...lens.map((pair) => pair[which]));
          const padded = inputs({ ...sizes, batch: lens.length, lenQ: longest(0), lenKv: longest(1) }, dtype, seed);
          const cut = (t: Tensor, n: number, len: number) =>
            t.slice([
              [n, n + 1],
              [0, len],
            ]);
          const got = attentionGqa({
            ...padded,
            ...params,
            lensQ: i32(lens.map(([lenQ]) => lenQ)),
            lensKv: i32(lens.map(([, lenKv]) => lenKv)),
          });
          const before = (n: number, which: 0 | 1) => lens.slice(0, n).reduce((sum, pair) => sum + pair[which], 0);
          const offsets = (which: 0 | 1) => [0, ...lens.map((_, n) => before(n + 1, which))];
          const [cuQ, cuKv] = [offsets(0), offsets(1)];
          const pack = (t: Tensor, cu: number[], which: 0 | 1) => {
            const all = device.empty([1, cu.at(-1)!, t.shape[2]!, t.shape[3]!], dtype);
            for (const [n, pair] of lens.entries())
              all.slice([null, [cu[n]!, cu[n + 1]!]]).copyFrom(cut(t, n, pair[which]));
            return all;
          };
          const packed = attentionGqa({
            q: pack(padded.q, cuQ, 0),
            k: pack(padded.k, cuKv, 1),
            v: pack(padded.v, cuKv, 1),
            cuQ: i32(cuQ),
            cuKv: i32(cuKv),
            ...params,
          });
          for (const [n, [lenQ, lenKv]] of lens.entries()) {
            const one = attentionGqa({
              q: cut(padded.q, n, lenQ),
              k: cut(padded.k, n, lenKv),
              v: cut(padded.v, n, lenKv),
              ...params,
            });
            await same({ y: cut(got.y, n, lenQ), lse: got.lse.slice([[n, n + 1], null, [0, lenQ]]) }, one, dtype);
            const rows: [number, number] = [cuQ[n]!, cuQ[n + 1]!];
            await same({ y: packed.y.slice([null, rows]), lse: packed.lse.slice([null, null, rows]) }, one, dtype);
          }
        },
      ),
      runs,
    ));

  test('with batchInvariant neither company nor threads change a bit', async () => {
    await using one = await openDevice('cpu', { threads: 1 });
    await using three = await openDevice('cpu', { threads: 3 });
    for (const dtype of ['f32', 'bf16'] as const)
      for (const lenQ of [1, 3, 70]) {
        const on = (d: Device, batch: number) => {
          const random = (len: number, heads: number, seed: number) => d.random([4, len, heads, 64], dtype, { seed });
          const [q, k, v] = [random(lenQ, 8, 1), random(600, 2, 2), random(600, 2, 3)].map((t) =>
            t.slice([[0, batch]]),
          );
          const { y, lse } = attentionGqa({ q: q!, k: k!, v: v!, causal: true, batchInvariant: true });
          return [y.slice([0]), lse.slice([0])].map((t) => t.hash());
        };
        const alone = await Promise.all(on(one, 1));
        for (const hashes of [on(one, 4), on(three, 1), on(three, 4)]) expect(await Promise.all(hashes)).toEqual(alone);
      }
  });
});

describe('NaN and infinity', () => {
  const sizes = { batch: 2, lenQ: 20, lenKv: 40, headsKv: 1, group: 2, dim: 32, dimV: 32 };
  const finite = async (t: Tensor) => expect((await list(t)).every(Number.isFinite)).toBe(true);

  test('in padding, and in rows of no sequence, are never read', async () => {
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const { q, k, v } = inputs(sizes, dtype);
      const want = attentionGqa({ q, k, v, lensKv: i32([17, 33]), lensQ: i32([20, 5]) });
      for (const t of [k, v]) {
        t.slice([0, [17, 40]]).copyFrom(device.full([23, 1, 32], Number.NaN, dtype));
        t.slice([1, [33, 40]]).copyFrom(device.full([7, 1, 32], Number.POSITIVE_INFINITY, dtype));
      }
      q.slice([1, [5, 20]]).copyFrom(device.full([15, 2, 32], Number.NaN, dtype));
      const got = attentionGqa({ q, k, v, lensKv: i32([17, 33]), lensQ: i32([20, 5]) });
      await finite(got.y);
      expect(await list(got.y)).toEqual(await list(want.y));
      const one = (t: Tensor) => t.slice([[0, 1]]);
      const packed = attentionGqa({ q: one(q), k: one(k), v: one(v), cuQ: i32([3, 12, 20]), cuKv: i32([0, 10, 17]) });
      await finite(packed.y);
      expect(await list(packed.y.slice([null, [0, 3]]))).toEqual(new Array(3 * 64).fill(0));
    }
  });

  test('in a query or a visible key reach their rows and no others', async () => {
    const { q, k, v } = inputs({ ...sizes, batch: 1 });
    q.slice([0, 3, 1]).write(new Array(32).fill(Number.NaN));
    const { y, lse } = attentionGqa({ q, k, v });
    const bad = (await Numbers.of(y)).data;
    for (let row = 0; row < 40; ++row) expect(Number.isNaN(bad[row * 32])).toBe(row === 2 * 3 + 1);
    expect((await list(lse)).map(Number.isNaN).indexOf(true)).toBe(20 + 3);
    const good = inputs({ ...sizes, batch: 1 });
    good.k.slice([0, 35, 0]).write(new Array(32).fill(Number.NaN));
    const seen = await Numbers.of(attentionGqa({ ...good, causal: true }).y);
    // Query i stands at place i + 20.
    for (let i = 0; i < 20; ++i) expect(Number.isNaN(seen.at(0, i, 0, 0))).toBe(i + 20 >= 35);
  });

  test('scores beyond the range of exponentials are no trouble', async () => {
    const { q, k, v } = inputs({ ...sizes, batch: 1 });
    for (const scale of [1e4, -1e4, 1e30]) await finite(attentionGqa({ q, k, v, scale }).y);
  });
});

test('work counts visible pairs, each operand once, and the keys that a window leaves', () => {
  const zeros = (...shape: number[]) => device.zeros(shape, 'bf16');
  const args = { q: zeros(2, 5, 4, 8), k: zeros(2, 9, 2, 8), v: zeros(2, 9, 2, 6) };
  const flops = (params: Omit<Parameters<typeof attentionGqa>[0], 'q' | 'k' | 'v'>) => {
    using plan = attentionGqa.bind({ ...args, ...params });
    return plan.work.flops;
  };
  const pair = 2 * (8 + 6) * 4 * 2;
  expect(flops({})).toBe(pair * 45);
  expect(flops({ causal: true })).toBe(pair * (5 + 6 + 7 + 8 + 9));
  expect(flops({ windowLeft: 1, causal: true })).toBe(pair * 10);
  expect(flops({ windowLeft: 1, windowRight: 2 })).toBe(pair * (4 + 4 + 4 + 3 + 2));
  expect(flops({ windowRight: 2 })).toBe(pair * (7 + 8 + 9 + 9 + 9));
  const bytes = (params: object, q = args.q) => {
    using plan = attentionGqa.bind({ ...args, q, ...params });
    return plan.work.bytes;
  };
  const own = 2 * (2 * 5 * 4 * 8 + 2 * 5 * 4 * 6) + 4 * (2 * 4 * 5);
  const cache = 2 * 2 * 9 * 2 * (8 + 6);
  expect(bytes({})).toBe(own + cache);
  expect(bytes({ windowLeft: 1, causal: true })).toBe(own + (cache * 6) / 9);
  expect(bytes({ bias: device.zeros([1, 1, 5, 9]).expand([2, 4, 5, 9]) })).toBe(own + cache + 4 * 45);
  const late = { q: zeros(2, 12, 4, 8), causal: true };
  expect(flops(late)).toBe(pair * 45);
});
