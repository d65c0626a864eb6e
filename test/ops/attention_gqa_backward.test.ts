// attention_gqa_backward: finite differences of attention in double precision, identities, and what it refuses.
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  attentionGqa,
  attentionGqaBackward,
  type Backend,
  type Device,
  type DType,
  openDevice,
  type Tensor,
} from '../../src/index.js';
import { type Attention, attend, close, Numbers, type Params, share } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
const none = Number.NEGATIVE_INFINITY;

interface Problem extends Params {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  bias?: Tensor;
  mask?: Tensor;
  alibi?: Tensor;
  sink?: Tensor;
  lensQ?: Tensor;
  lensKv?: Tensor;
}

/** Gradients of the sum of dy y + dlse lse after a forward by the same backend. */
function differentiate(p: Problem, dy: Tensor, dlse: Tensor | undefined, backend: Backend = 'cpu') {
  const { y, lse } = attentionGqa({ ...p }, { backend });
  return attentionGqaBackward({ ...p, y, lse, dy, dlse }, { backend });
}

describe('ref and cpu against finite differences:', () => {
  const sizes = { batch: 2, lenQ: 4, lenKv: 5, headsKv: 2, group: 2, dim: 4, dimV: 3 };
  const heads = sizes.headsKv * sizes.group;

  async function compare(
    params: Params,
    optional: Partial<Record<'bias' | 'mask' | 'alibi' | 'sink', Tensor>> = {},
    { lensQ, lensKv, ...dims }: Partial<typeof sizes> & { lensQ?: number[]; lensKv?: number[] } = {},
  ) {
    const { batch, lenQ, lenKv, headsKv, dim, dimV } = { ...sizes, ...dims };
    const random = (shape: number[], seed: number) => device.random(shape, 'f32', { seed });
    const q = random([batch, lenQ, heads, dim], 1);
    const k = random([batch, lenKv, headsKv, dim], 2);
    const v = random([batch, lenKv, headsKv, dimV], 3);
    const [dy, dlse] = [random([batch, lenQ, heads, dimV], 4), random([batch, heads, lenQ], 5)];
    const lens = {
      ...(lensQ && { lensQ: device.tensor(Int32Array.from(lensQ)) }),
      ...(lensKv && { lensKv: device.tensor(Int32Array.from(lensKv)) }),
    };

    const numbers: Record<string, Numbers> = {};
    for (const [name, t] of Object.entries({ q, k, v, ...optional }))
      numbers[name] = new Numbers(Float64Array.from(await t.read()), t.shape);
    const problem = { ...params, ...numbers, lensQ, lensKv } as unknown as Attention;
    const [byY, byLse] = [await list(dy), await list(dlse)];
    const loss = () => {
      const { y, lse } = attend(problem);
      return (
        y.reduce((sum, value, i) => sum + value * byY[i]!, 0) +
        lse.reduce((sum, value, i) => sum + (Number.isFinite(value) ? value * byLse[i]! : 0), 0)
      );
    };
    const difference = (data: Float64Array) =>
      Array.from(data, (value, i) => {
        if (!Number.isFinite(value)) return 0;
        const step = 1e-5;
        const at = (x: number) => {
          data[i] = x;
          return loss();
        };
        const slope = (at(value + step) - at(value - step)) / (2 * step);
        data[i] = value;
        return slope;
      });
    const expected = Object.fromEntries(
      ['q', 'k', 'v', 'bias', 'sink'].map((name) => {
        const given = numbers[name]?.data as Float64Array | undefined;
        return [`d${name}`, given ? difference(given) : []];
      }),
    );
    for (const backend of ['ref', 'cpu'] as const) {
      const have = differentiate({ q, k, v, ...optional, ...lens, ...params }, dy, dlse, backend);
      for (const [name, gradient] of Object.entries(have)) close(await list(gradient), expected[name]!);
    }
  }

  test.each<Params>([
    {},
    { causal: true },
    { windowLeft: 1 },
    { windowLeft: 1, windowRight: 2 },
    { causal: true, windowLeft: 2 },
    { scale: -0.7 },
    { softcap: 0.5 },
    { softcap: 2, scale: 3, causal: true },
  ])('%o', (params) => compare(params));

  test.each([
    [2, heads],
    [1, heads],
    [2, 1],
    [1, 1],
  ])('bias of %d x %d', (batch, biasHeads) =>
    compare({ causal: true, softcap: 3 }, { bias: device.random([batch, biasHeads, 4, 5], 'f32', { seed: 6 }) }),
  );

  test('sinks, one of them none', () => compare({ causal: true }, { sink: device.tensor([0, 1, -2, none]) }));

  test('slopes and a mask of blocks', () =>
    compare(
      { maskBlockQ: 2, maskBlockKv: 3 },
      {
        alibi: device.tensor([0.5, -0.25, 0, 1]),
        mask: device.random([2, 1, 2, 2], 'u8', { distribution: 'integers', low: 0, high: 2, seed: 9 }),
      },
    ));

  test('lengths, and more queries than keys', async () => {
    const bias = device.random([1, heads, 4, 5], 'f32', { seed: 6 });
    await compare({ causal: true }, { bias, sink: device.random([heads]) }, { lensQ: [4, 2], lensKv: [3, 5] });
    await compare({ causal: true }, {}, { lenQ: 5, lenKv: 3 });
  });
});

const few = (max: number, min = 1) => fc.integer({ min, max });
const problem = fc.record({
  lenQ: few(70),
  lenKv: few(150),
  headsKv: few(2),
  group: few(3),
  dim: few(70),
  dimV: few(70),
  causal: fc.boolean(),
  dtype: fc.constantFrom<'f32' | 'bf16' | 'f16'>('f32', 'bf16', 'f16'),
  seed: few(1e6, 0),
  cut: few(150, 0),
});
type Drawn = typeof problem extends fc.Arbitrary<infer P> ? P : never;
const runs = { numRuns: process.env.KERNWATT_FULL ? 200 : 20 };

/** Random operands of a problem. */
function operands({ lenQ, lenKv, headsKv, group, dim, dimV, dtype, seed }: Drawn, batch = 1) {
  const random = (shape: number[], n: number, type: DType = dtype) =>
    device.random(shape, type, { seed: 7 * seed + n });
  const heads = headsKv * group;
  return {
    q: random([batch, lenQ, heads, dim], 0),
    k: random([batch, lenKv, headsKv, dim], 1),
    v: random([batch, lenKv, headsKv, dimV], 2),
    dy: random([batch, lenQ, heads, dimV], 3),
  };
}

describe('identities', () => {
  test('parts of the keys: dk and dv are parts, dq is their sum', () =>
    fc.assert(
      fc.asyncProperty(problem, async (p) => {
        const { q, k, v, dy } = operands(p);
        const { y, lse } = attentionGqa({ q, k, v });
        const f32 = { dtype: 'f32' } as const;
        const whole = attentionGqaBackward({ q, k, v, y, lse, dy }, f32);
        const cut = Math.min(p.cut, p.lenKv);
        const sum = new Array<number>(q.size).fill(0);
        for (const keys of [[0, cut] as const, [cut, p.lenKv] as const]) {
          const of = (t: Tensor) => t.slice([null, keys]);
          const part = attentionGqaBackward({ q, k: of(k), v: of(v), y, lse, dy }, f32);
          close(await list(part.dk), await list(of(whole.dk)), 1e-4);
          close(await list(part.dv), await list(of(whole.dv)), 1e-4);
          (await list(part.dq)).forEach((value, i) => {
            sum[i]! += value;
          });
        }
        close(sum, await list(whole.dq), p.dtype === 'f32' ? 1e-4 : share[p.dtype]);
      }),
      runs,
    ));

  test('gradients of a group are the sum over heads with keys of their own', () =>
    fc.assert(
      fc.asyncProperty(problem, async (p) => {
        const { q, k, v, dy } = operands(p);
        const repeated = (t: Tensor) => {
          const [batch, len, heads, width] = t.shape as [number, number, number, number];
          const each = t.view([batch, len, heads, 1, width]).expand([batch, len, heads, p.group, width]);
          return each.contiguous().view([batch, len, heads * p.group, width]);
        };
        const { causal } = p;
        const { y, lse } = attentionGqa({ q, k, v, causal });
        const grouped = attentionGqaBackward({ q, k, v, y, lse, dy, causal }, { dtype: 'f32' });
        const apart = attentionGqaBackward({ q, k: repeated(k), v: repeated(v), y, lse, dy, causal }, { dtype: 'f32' });
        for (const name of ['dk', 'dv'] as const) {
          const parts = await list(apart[name]);
          const width = apart[name].shape[3]!;
          const sum = new Array<number>(grouped[name].size).fill(0);
          parts.forEach((value, i) => {
            const head = Math.floor(i / width);
            sum[Math.floor(head / p.group) * width + (i % width)]! += value;
          });
          close(await list(grouped[name]), sum, 1e-4);
        }
        close(await list(grouped.dq), await list(apart.dq), 1e-4);
      }),
      runs,
    ));

  test('packed sequences are each its own problem, to the bit', () =>
    fc.assert(
      fc.asyncProperty(problem, fc.array(few(70, 0), { maxLength: 2 }), async (p, more) => {
        const { q, k, v, dy } = operands(p);
        const ends = (len: number) => [0, ...more.map((n) => Math.min(n, len)), len].sort((a, b) => a - b);
        const [ofQ, ofKv] = [ends(p.lenQ), ends(p.lenKv)];
        const packed = { cuQ: device.tensor(Int32Array.from(ofQ)), cuKv: device.tensor(Int32Array.from(ofKv)) };
        const { y, lse } = attentionGqa({ q, k, v, causal: p.causal, ...packed });
        const all = attentionGqaBackward({ q, k, v, y, lse, dy, causal: p.causal, ...packed });
        for (let n = 0; n + 1 < ofQ.length; ++n) {
          const rows = (t: Tensor) => t.slice([null, [ofQ[n]!, ofQ[n + 1]!]]);
          const keys = (t: Tensor) => t.slice([null, [ofKv[n]!, ofKv[n + 1]!]]);
          const alone = attentionGqaBackward({
            q: rows(q),
            k: keys(k),
            v: keys(v),
            y: rows(y),
            lse: lse.slice([null, null, [ofQ[n]!, ofQ[n + 1]!]]),
            dy: rows(dy),
            causal: p.causal,
          });
          expect(await list(rows(all.dq))).toEqual(await list(alone.dq));
          expect(await list(keys(all.dk))).toEqual(await list(alone.dk));
          expect(await list(keys(all.dv))).toEqual(await list(alone.dv));
        }
      }),
      runs,
    ));

  test('the same bits every time, and for any number of threads', async () => {
    const shape = { q: [2, 300, 4, 40], k: [2, 1100, 2, 40], dy: [2, 300, 4, 40] };
    const results: number[][][] = [];
    for (const threads of [1, 2, 2]) {
      await using own = await openDevice('cpu', { threads });
      const random = (dims: number[], seed: number) => own.random(dims, 'bf16', { seed });
      const [q, k, v, dy] = [random(shape.q, 1), random(shape.k, 2), random(shape.k, 3), random(shape.dy, 4)];
      const bias = own.random([1, 1, 300, 1100], 'bf16', { seed: 5 });
      const { y, lse } = attentionGqa({ q, k, v, bias });
      results.push(await Promise.all(Object.values(attentionGqaBackward({ q, k, v, bias, y, lse, dy })).map(list)));
    }
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  test.each(['ref', 'cpu'] as const)('rows that see nothing and empty problems give 0 in %s', async (backend) => {
    const ones = (...dims: number[]) => device.full(dims, 1);
    const p = { q: ones(1, 3, 2, 4), k: ones(1, 2, 1, 4), v: ones(1, 2, 1, 4), sink: ones(2) };
    const seen = differentiate({ ...p, mask: device.zeros([1, 1, 3, 2], 'u8') }, ones(1, 3, 2, 4), undefined, backend);
    for (const t of Object.values(seen)) expect((await list(t)).every((value) => value === 0)).toBe(true);
    const empty = { ...p, k: ones(1, 0, 1, 4), v: ones(1, 0, 1, 4) };
    const { dq, dk } = differentiate(empty, ones(1, 3, 2, 4), undefined, backend);
    expect(await list(dq)).toEqual(new Array(24).fill(0));
    expect(dk.size).toBe(0);
    const without = { ...p, q: ones(1, 0, 2, 4) };
    const { dv } = differentiate(without, ones(1, 0, 2, 4), undefined, backend);
    expect(await list(dv)).toEqual(new Array(8).fill(0));
  });
});

describe('refused before the launch:', () => {
  const zeros = (shape: number[], dtype: DType = 'f32') => device.zeros(shape, dtype);
  const good = {
    q: [2, 4, 8, 16],
    k: [2, 5, 2, 16],
    v: [2, 5, 2, 12],
    y: [2, 4, 8, 12],
    lse: [2, 8, 4],
    dy: [2, 4, 8, 12],
  };
  const call = (args: Record<string, unknown>) => () =>
    attentionGqaBackward.run({
      ...Object.fromEntries(Object.entries(good).map(([name, shape]) => [name, zeros(shape)])),
      ...args,
    });
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `attention_gqa_backward: ${message}` });

  test('results of another call, by their sizes', () => {
    expect(call({})).not.toThrow();
    expect(call({ lse: zeros([2, 4, 8]) })).toThrow(refused('SHAPE', 'lse has headsQ 4, but q has 8'));
    expect(call({ lse: zeros([2, 8, 5]) })).toThrow(refused('SHAPE', 'lse has lenQ 5, but q has 4'));
    expect(call({ lse: zeros([16, 4]) })).toThrow(refused('SHAPE', 'lse is [16, 4], expected [batch, headsQ, lenQ]'));
    expect(call({ y: zeros([2, 4, 8, 16]) })).toThrow(refused('SHAPE', 'y has dimV 16, but v has 12'));
    expect(call({ y: zeros([1, 4, 8, 12]) })).toThrow(refused('SHAPE', 'y has batch 1, but q has 2'));
    expect(call({ dy: zeros([2, 3, 8, 12]) })).toThrow(refused('SHAPE', 'dy has lenQ 3, but q has 4'));
    expect(call({ dlse: zeros([2, 8, 1]) })).toThrow(refused('SHAPE', 'dlse has lenQ 1, but q has 4'));
    expect(call({ dq: zeros([2, 4, 8, 12]) })).toThrow(refused('SHAPE', 'dq has dim 12, but q has 16'));
    expect(call({ lse: undefined })).toThrow(refused('ARGUMENT', 'lse is missing, expected a tensor'));
  });

  test('a bias, a sink and their gradients that do not fit', () => {
    expect(call({ bias: zeros([1, 8, 4, 5]), sink: zeros([8]) })).not.toThrow();
    expect(call({ bias: zeros([3, 8, 4, 5]) })).toThrow(
      refused('SHAPE', 'bias has batch 3, but q has 2; expected 2 or 1'),
    );
    expect(call({ bias: zeros([1, 2, 4, 5]) })).toThrow(
      refused('SHAPE', 'bias has headsQ 2, but q has 8; expected 8 or 1'),
    );
    expect(call({ sink: zeros([2]) })).toThrow(refused('SHAPE', 'sink has headsQ 2, but q has 8'));
    expect(call({ bias: zeros([1, 8, 4, 5]), dbias: zeros([2, 8, 4, 5]) })).toThrow(
      refused('SHAPE', 'dbias has biasBatch 2, but bias has 1'),
    );
  });

  test('element types, lengths, memory', () => {
    expect(call({ dy: zeros([2, 4, 8, 12], 'bf16') })).toThrow(refused('DTYPE', 'dy is bf16, but q is f32'));
    expect(call({ lse: zeros([2, 8, 4], 'bf16') })).toThrow(refused('DTYPE', 'lse is bf16, expected f32'));
    expect(call({ lensKv: device.tensor(Int32Array.of(5, 9)) })).toThrow(
      refused('INDEX', 'lensKv[1] is 9, expected 0 to 5'),
    );
    const q = zeros(good.q);
    expect(call({ q, dq: q })).toThrow(refused('ARGUMENT', 'dq overlaps q in memory, expected separate tensors'));
    expect(call({ softcap: -1 })).toThrow(refused('ARGUMENT', 'softcap is -1, expected 0 or more'));
    expect(call({ v: zeros([2, 5, 2, 300]), y: zeros([2, 4, 8, 300]), dy: zeros([2, 4, 8, 300]) })).toThrow(
      refused(
        'UNSUPPORTED',
        'dimV is 300, expected 1 to 256: kernels exist for 32, 64, 96, 128, 192, 256, and pad other sizes with zeros',
      ),
    );
  });

  test('results of another device', async () => {
    await using other = await openDevice('cpu', { threads: 1 });
    expect(call({ lse: other.zeros([2, 8, 4]) })).toThrow(
      refused('ARGUMENT', 'lse is on cpu as opened another time than for q, expected one device'),
    );
  });

  test('lengths that only the device knows, from the stream', async () => {
    const lensQ = device.empty([2], 'i32').copyFrom(device.tensor(Int32Array.of(4, 7)));
    call({ lensQ })();
    await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'lens_q[1] is 7, expected 0 to 4'));
  });
});

test('work counts five products for visible pairs, and each operand once', () => {
  const bf16 = (shape: number[]) => device.zeros(shape, 'bf16');
  const q = bf16([1, 6, 4, 16]);
  const [k, v] = [bf16([1, 6, 2, 16]), bf16([1, 6, 2, 8])];
  const [y, dy] = [bf16([1, 6, 4, 8]), bf16([1, 6, 4, 8])];
  using plan = attentionGqaBackward.bind({ q, k, v, y, dy, lse: device.zeros([1, 4, 6]), causal: true });
  const elements = 2 * (q.size + k.size + v.size) + y.size + dy.size;
  expect(plan.work).toEqual({
    flops: (6 * 16 + 4 * 8) * 4 * 21,
    bytes: 2 * elements + 4 * 24,
    tokens: 6,
    params: null,
  });
});
