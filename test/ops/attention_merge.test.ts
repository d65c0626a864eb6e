// attention_merge: attention over parts of the keys, merged, is attention over all of them; and what it refuses.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionGqa, attentionMerge, type Backend, type Device, openDevice, type Tensor } from '../../src/index.js';
import { close, share } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
const none = Number.NEGATIVE_INFINITY;

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test('weighs parts by their sums of exponentials', async () => {
    // Two heads of one query: shares 1/4 and 3/4, and a part that has seen nothing.
    const lseParts = device.tensor([0, 5, Math.log(3), none], [2, 1, 2, 1]);
    const yParts = device.tensor([4, 8, 1, 2, -4, 0, Number.NaN, Number.NaN], [2, 1, 1, 2, 2]);
    const { y, lse } = attentionMerge({ yParts, lseParts }, { backend });
    close(await list(y), [-2, 2, 1, 2], 1e-6);
    close(await list(lse), [Math.log(4), 5], 1e-6);
  });

  test('gives 0 and -Infinity where no part has seen a key, and for no parts', async () => {
    const lseParts = device.full([3, 1, 2, 2], none);
    const yParts = device.full([3, 1, 2, 2, 4], Number.NaN);
    for (const parts of [3, 0]) {
      const part = (t: Tensor) => t.slice([[0, parts]]);
      const { y, lse } = attentionMerge({ yParts: part(yParts), lseParts: part(lseParts) }, { backend });
      expect(await list(y)).toEqual(new Array(16).fill(0));
      expect(await list(lse)).toEqual(new Array(4).fill(none));
    }
  });

  test('lets NaN of a part that has seen keys through', async () => {
    const yParts = device.tensor([Number.NaN, 1, 2, 3], [2, 1, 1, 1, 2]);
    const { y } = attentionMerge({ yParts, lseParts: device.zeros([2, 1, 1, 1]) }, { backend });
    expect(await list(y)).toEqual([Number.NaN, 2]);
  });
});

const few = (max: number, min = 1) => fc.integer({ min, max });
const problem = fc.record({
  batch: few(2),
  lenQ: few(30),
  lenKv: few(90),
  headsKv: few(3),
  group: few(3),
  dim: few(70),
  dimV: few(70),
  seed: few(1e6, 0),
  dtype: fc.constantFrom('f32', 'bf16', 'f16'),
  cuts: fc.array(few(90, 0), { maxLength: 3 }),
});
const runs = { numRuns: process.env.KERNWATT_FULL ? 200 : 20 };
type Problem = typeof problem extends fc.Arbitrary<infer P> ? P : never;

/** The whole in one call, and in parts that end at the cuts, with results of the parts in f32. */
function split({ batch, lenQ, lenKv, headsKv, group, dim, dimV, seed, dtype, cuts }: Problem) {
  const heads = headsKv * group;
  const q = device.random([batch, lenQ, heads, dim], dtype, { seed });
  const k = device.random([batch, lenKv, headsKv, dim], dtype, { seed: seed + 1 });
  const v = device.random([batch, lenKv, headsKv, dimV], dtype, { seed: seed + 2 });
  const bias = device.random([1, heads, lenQ, lenKv], 'f32', { seed: seed + 3 });
  const sink = device.random([heads], 'f32', { seed: seed + 4 });
  const ends = [0, ...cuts.map((cut) => Math.min(cut, lenKv)), lenKv].sort((a, b) => a - b);
  const parts = ends.length - 1;
  const yParts = device.empty([parts, batch, lenQ, heads, dimV]);
  const lseParts = device.empty([parts, batch, heads, lenQ]);
  for (let n = 0; n < parts; ++n) {
    const keys = [ends[n]!, ends[n + 1]!] as const;
    attentionGqa({
      q,
      k: k.slice([null, keys]),
      v: v.slice([null, keys]),
      bias: bias.slice([null, null, null, keys]),
      sink: n === 0 ? sink : undefined,
      y: yParts.slice([n]),
      lse: lseParts.slice([n]),
    });
  }
  return { whole: attentionGqa({ q, k, v, bias, sink }, { dtype: 'f32' }), parts: { yParts, lseParts } };
}

describe('identities', () => {
  test('merged parts of the keys are the whole', () =>
    fc.assert(
      fc.asyncProperty(problem, async (p) => {
        const { whole, parts } = split(p);
        const { y, lse } = attentionMerge(parts);
        close(await list(y), await list(whole.y), share[p.dtype]);
        close(await list(lse), await list(whole.lse));
      }),
      runs,
    ));

  test('the order of the parts and merging twice change nothing', () =>
    fc.assert(
      fc.asyncProperty(problem, few(4), async (p, at) => {
        const { parts } = split(p);
        const [y, lse] = [parts.yParts, parts.lseParts];
        const count = y.shape[0]!;
        const once = attentionMerge(parts);
        const cut = Math.min(at, count);
        const both = {
          yParts: device.empty([2, ...y.shape.slice(1)]),
          lseParts: device.empty([2, ...lse.shape.slice(1)]),
        };
        // The later parts first.
        for (const [n, range] of [[cut, count] as const, [0, cut] as const].entries())
          attentionMerge({
            yParts: y.slice([range]),
            lseParts: lse.slice([range]),
            y: both.yParts.slice([n]),
            lse: both.lseParts.slice([n]),
          });
        const twice = attentionMerge(both);
        close(await list(twice.y), await list(once.y));
        close(await list(twice.lse), await list(once.lse));
      }),
      runs,
    ));

  test('a part is itself, to the bit, whatever its type', async () => {
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const yParts = device.random([1, 2, 3, 4, 40], dtype);
      const lseParts = device.random([1, 2, 4, 3]);
      const { y, lse } = attentionMerge({ yParts, lseParts });
      expect(await list(y)).toEqual(await list(yParts));
      expect(await list(lse)).toEqual(await list(lseParts));
    }
  });
});

describe('refused before the launch:', () => {
  const zeros = (...shape: number[]) => device.zeros(shape);
  const call = (args: Record<string, unknown>) => () =>
    attentionMerge.run({ yParts: zeros(3, 2, 4, 8, 16), lseParts: zeros(3, 2, 8, 4), ...args });
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `attention_merge: ${message}` });

  test('sizes that differ', () => {
    expect(call({})).not.toThrow();
    expect(call({ lseParts: zeros(2, 2, 8, 4) })).toThrow(refused('SHAPE', 'lseParts has parts 2, but yParts has 3'));
    expect(call({ lseParts: zeros(3, 2, 4, 8) })).toThrow(refused('SHAPE', 'lseParts has headsQ 4, but yParts has 8'));
    expect(call({ yParts: zeros(2, 4, 8, 16) })).toThrow(
      refused('SHAPE', 'yParts is [2, 4, 8, 16], expected [parts, batch, lenQ, headsQ, dimV]'),
    );
    expect(call({ y: zeros(2, 4, 8, 12) })).toThrow(refused('SHAPE', 'y has dimV 12, but yParts has 16'));
  });

  test('element types, and outputs over their inputs', () => {
    expect(call({ lseParts: device.zeros([3, 2, 8, 4], 'f16') })).toThrow(
      refused('DTYPE', 'lseParts is f16, expected f32'),
    );
    const yParts = zeros(3, 2, 4, 8, 16);
    expect(call({ yParts, y: yParts.slice([0]) })).toThrow(
      refused('ARGUMENT', 'y overlaps yParts in memory, expected separate tensors'),
    );
  });
});

test('work counts 2 for each element of the parts, and each operand once', () => {
  using plan = attentionMerge.bind({
    yParts: device.zeros([3, 2, 4, 8, 16], 'bf16'),
    lseParts: device.zeros([3, 2, 8, 4]),
  });
  expect(plan.work).toEqual({
    flops: 2 * 3 * 1024,
    bytes: 2 * 3 * 1024 + 4 * 3 * 64 + 2 * 1024 + 4 * 64,
    tokens: 8,
    params: null,
  });
});
