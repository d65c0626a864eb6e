// attention_gqa_paged: identities that hold whatever the definition says (pages are attention_gqa on gathered keys, decoding token
// by token is prefill, parts are the whole, again is the same), and what it refuses or reports.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  attentionGqa,
  attentionGqaPaged,
  type Backend,
  type Device,
  kvAppend,
  openDevice,
  type Tensor,
} from '../../src/index.js';
import { randomSource } from '../../src/random.js';
import { close, dequantised, share } from './attention.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const list = async (t: Tensor) => Array.from(await t.read());
const i32 = (values: readonly number[], shape: number[] = [values.length]) =>
  device.tensor(Int32Array.from(values), shape);
/** The same numbers, written by queued work, so that the host does not know them. */
const queued = (values: readonly number[], shape: number[] = [values.length]) =>
  device.empty(shape, 'i32').copyFrom(i32(values, shape));

const heads = { headsQ: 4, headsKv: 2, dim: 24 };

interface Cached {
  k: Tensor;
  v: Tensor;
  kCache: Tensor;
  vCache: Tensor;
  table: number[];
  maxPages: number;
  pageTable: Tensor;
}

/** Keys and values of requests, in rows and in pages of their own in any order; what no token fills is NaN. */
async function cached(lengths: readonly number[], pageSize: number, dtype: 'f32' | 'bf16' = 'f32'): Promise<Cached> {
  const { headsKv, dim } = heads;
  const longest = Math.max(...lengths);
  const maxPages = Math.ceil(longest / pageSize);
  const row = headsKv * dim;
  const next = randomSource(pageSize);
  const free = Array.from({ length: lengths.length * maxPages }, (_, page) => page);
  const table = lengths.flatMap((length) =>
    Array.from({ length: maxPages }, (_, i) =>
      i * pageSize < length ? free.splice(Math.floor(next() * free.length), 1)[0]! : -1,
    ),
  );
  const rows = (seed: number) => device.random([lengths.length, longest, headsKv, dim], dtype, { seed });
  const [k, v] = [rows(1), rows(2)];
  const pages = async (from: Tensor) => {
    const numbers = await from.read();
    const cache = new Float32Array(lengths.length * maxPages * pageSize * row).fill(Number.NaN);
    for (const [b, length] of lengths.entries())
      for (let j = 0; j < length; ++j) {
        const slot = table[b * maxPages + Math.floor(j / pageSize)]! * pageSize + (j % pageSize);
        const at = (b * longest + j) * row;
        cache.set((numbers as Float32Array).subarray(at, at + row), slot * row);
      }
    return device.tensor(cache, [lengths.length * maxPages, pageSize, headsKv, dim], dtype);
  };
  const pageTable = i32(table, [lengths.length, maxPages]);
  return { k, v, kCache: await pages(k), vCache: await pages(v), table, maxPages, pageTable };
}

describe.each<Backend>(['ref', 'cpu'])('%s', (backend) => {
  test.each([1, 3, 16, 64, 256])('pages of %i are attentionGqa on gathered keys, bit for bit', async (pageSize) => {
    const lengths = [70, 0, 33];
    const { k, v, kCache, vCache, pageTable } = await cached(lengths, pageSize);
    const q = device.random([3, 5, heads.headsQ, heads.dim], 'f32', { seed: 3 });
    const [lensKv, lensQ] = [i32(lengths), i32([5, 0, 2])];
    const params = { windowLeft: 40, softcap: 4 };
    const paged = attentionGqaPaged({ q, kCache, vCache, pageTable, lensKv, lensQ, ...params }, { backend });
    const whole = attentionGqa({ q, k, v, lensKv, lensQ, causal: true, ...params }, { backend });
    expect(await list(paged.y)).toEqual(await list(whole.y));
    expect(await list(paged.lse)).toEqual(await list(whole.lse));
  });

  test('decoding token by token is prefill', async () => {
    const length = 40;
    const { kCache, vCache, pageTable } = await cached([length], 16);
    const q = device.random([1, length, heads.headsQ, heads.dim], 'f32', { seed: 4 });
    const at = (lenKv: number) => ({ kCache, vCache, pageTable, lensKv: i32([lenKv]) });
    const prefill = await list(attentionGqaPaged({ q, ...at(length) }, { backend }).y);
    const steps: number[] = [];
    for (let i = 0; i < length; ++i) {
      const one = q.slice([null, [i, i + 1]]);
      steps.push(...(await list(attentionGqaPaged({ q: one, ...at(i + 1) }, { backend }).y)));
    }
    close(steps, prefill, share.f32);
  });
});

test('the keys of a request in parts are the whole, and the same every time', async () => {
  const lengths = [2100, 5, 0];
  const { kCache, vCache, pageTable } = await cached(lengths, 16, 'bf16');
  const q = device.random([3, 1, heads.headsQ, heads.dim], 'bf16', { seed: 5 });
  const of = async (args: { splits?: number; batchInvariant?: boolean }) =>
    list(attentionGqaPaged({ q, kCache, vCache, pageTable, lensKv: i32(lengths), ...args }, { dtype: 'f32' }).y);
  const whole = await of({ splits: 1 });
  for (const args of [{}, { splits: 2 }, { splits: 9 }, { batchInvariant: true }]) {
    const parts = await of(args);
    close(parts, whole, share.bf16);
    for (let i = 0; i < 10; ++i) expect(await of(args)).toEqual(parts);
  }
});

describe.each<Backend>(['ref', 'cpu'])('a cache of f8e4m3 on %s', (backend) => {
  test.each([1, 16, 17, 64])('is one of f32 that holds what it stands for, in pages of %i', async (pageSize) => {
    const [lengths, lenQ, { headsQ, headsKv, dim }] = [[70, 0, 33], 3, heads];
    const maxPages = Math.ceil(70 / pageSize);
    const random = (seed: number) => device.random([3, 70, headsKv, dim], 'bf16', { seed });
    const [kCache, vCache] = [0, 0].map(() =>
      device.full([3 * maxPages, pageSize, headsKv, dim], Number.NaN, 'f8e4m3'),
    ) as [Tensor, Tensor];
    const scales = { kScale: device.tensor([0.013, 0.4]), vScale: device.tensor([3, 0.02]) };
    const order = Array.from({ length: 3 * maxPages }, (_, i) => 3 * maxPages - 1 - i);
    const where = { pageTable: i32(order, [3, maxPages]), lensKv: i32(lengths) };
    kvAppend({ k: random(1), v: random(2), lensQ: i32(lengths), ...where, kCache, vCache, ...scales }, { backend });
    const whole = {
      kCache: await dequantised(kCache, scales.kScale),
      vCache: await dequantised(vCache, scales.vScale),
    };
    const params = { sink: device.random([headsQ], 'f32', { seed: 4 }), windowLeft: 40, softcap: 4 };
    for (const dtype of ['f32', 'bf16', 'f16'] as const) {
      const q = device.random([3, lenQ, headsQ, dim], dtype, { seed: 3 });
      const wide = device.tensor(await q.read(), q.shape);
      const f8 = attentionGqaPaged({ q, kCache, vCache, ...where, ...scales, ...params }, { backend, dtype: 'f32' });
      const f32 = attentionGqaPaged({ q: wide, ...whole, ...where, ...params }, { backend });
      close(await list(f8.y), await list(f32.y), share[dtype]);
      close(await list(f8.lse), await list(f32.lse), share.f32);
    }
  });
});

describe('refuses', () => {
  const good = async () => {
    const { kCache, vCache, pageTable } = await cached([9, 4], 4);
    const q = device.zeros([2, 1, heads.headsQ, heads.dim]);
    return { q, kCache, vCache, pageTable, lensKv: i32([9, 4]) };
  };
  const refused = (code: string, message: string) =>
    expect.objectContaining({ code: `ERR_KERNWATT_${code}`, message: `attention_gqa_paged: ${message}` });

  test('sizes that disagree, and heads that are no groups', async () => {
    const args = await good();
    expect(() => attentionGqaPaged({ ...args, lensKv: i32([9]) })).toThrow(
      refused('SHAPE', 'lensKv has batch 1, but q has 2'),
    );
    expect(() => attentionGqaPaged({ ...args, vCache: device.zeros([6, 5, 2, 24]) })).toThrow(
      refused('SHAPE', 'vCache has pageSize 5, but kCache has 4'),
    );
    expect(() => attentionGqaPaged({ ...args, q: device.zeros([2, 1, 3, 24]) })).toThrow(
      refused('SHAPE', 'headsKv 2 does not divide headsQ 3'),
    );
    expect(() => attentionGqaPaged({ ...args, splits: -1 })).toThrow(/splits is -1/);
  });

  test('types that differ, and scales without f8e4m3 or the other way round', async () => {
    const args = await good();
    const [kCache, vCache] = [device.zeros([6, 4, 2, 24], 'f8e4m3'), device.zeros([6, 4, 2, 24], 'f8e4m3')];
    const scale = device.full([2], 1);
    const f8 = { ...args, kCache, vCache, kScale: scale, vScale: scale };
    expect(() => attentionGqaPaged({ ...args, kCache: device.zeros([6, 4, 2, 24], 'bf16') })).toThrow(
      refused('DTYPE', 'kCache is bf16, but q is f32, expected that or f8e4m3'),
    );
    expect(() => attentionGqaPaged({ ...f8, vCache: args.vCache })).toThrow(
      refused('DTYPE', 'vCache is f32, but kCache is f8e4m3'),
    );
    expect(() => attentionGqaPaged({ ...args, kCache, vCache })).toThrow(
      refused('ARGUMENT', 'kScale is missing with a cache of f8e4m3, expected it with f8e4m3 alone'),
    );
    expect(() => attentionGqaPaged({ ...args, kCache, vCache, kScale: scale })).toThrow(
      refused('ARGUMENT', 'vScale is missing with a cache of f8e4m3, expected it with f8e4m3 alone'),
    );
    expect(() => attentionGqaPaged({ ...args, kScale: scale })).toThrow(
      refused('ARGUMENT', 'kScale is given with a cache of f32, expected it with f8e4m3 alone'),
    );
    expect(() => attentionGqaPaged({ ...f8, vScale: device.full([3], 1) })).toThrow(
      refused('SHAPE', 'vScale has headsKv 3, but kCache has 2'),
    );
    expect(() => attentionGqaPaged({ ...f8, vScale: device.full([2], 1, 'bf16') })).toThrow(
      refused('DTYPE', 'vScale is bf16, expected f32'),
    );
  });

  test('lengths and pages out of range that the host knows, before the launch', async () => {
    const args = await good();
    expect(() => attentionGqaPaged({ ...args, lensKv: i32([13, 4]) })).toThrow(
      refused('INDEX', 'lensKv[0] is 13, expected 0 to 12'),
    );
    expect(() => attentionGqaPaged({ ...args, pageTable: i32([0, 1, 2, 6, 7, 8], [2, 3]) })).toThrow(
      refused('INDEX', 'pageTable[1, 0] is 6, expected 0 to 5'),
    );
  });

  test.each(['cpu', 'ref'] as const)(
    'those that only the device knows, from the stream of %s; other requests are right',
    async (backend) => {
      const args = await good();
      const want = await list(attentionGqaPaged(args, { backend }).y);
      const y = device.empty([2, 1, heads.headsQ, heads.dim]);
      attentionGqaPaged({ ...args, y, pageTable: queued([0, 99, 2, 1, 7, 8], [2, 3]) }, { backend });
      await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'page_table[0, 1] is 99, expected 0 to 5'));
      const { table } = await cached([9, 4], 4);
      const spoilt = queued([99, ...table.slice(1)], [2, 3]);
      attentionGqaPaged({ ...args, y, pageTable: spoilt }, { backend });
      await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'page_table[0, 0] is 99, expected 0 to 5'));
      expect((await list(y)).slice(want.length / 2)).toEqual(want.slice(want.length / 2));
      attentionGqaPaged({ ...args, y, lensKv: queued([-1, 4]) }, { backend });
      await expect(device.stream.mark()).rejects.toThrow(refused('INDEX', 'lens_kv[0] is -1, expected 0 to 12'));
      expect(await list(y)).toEqual([...new Array(want.length / 2).fill(0), ...want.slice(want.length / 2)]);
    },
  );
});
