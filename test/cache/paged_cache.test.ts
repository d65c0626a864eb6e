// PagedCache over tensors: tables that kvAppend takes, pages copied in every cache before they are written to, and what it refuses.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Device, kvAppend, openDevice, PagedCache, type CachedSequence, type Tensor } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const code = (name: string) => expect.objectContaining({ code: `ERR_KERNWATT_${name}` });

/** A cache of one layer, pages of 4 tokens, one head of 2 and of 1 columns. */
function made(pages = 6) {
  const kCache = device.full([pages, 4, 1, 2], -1, 'bf16');
  const vCache = device.full([pages, 4, 1, 1], -1, 'bf16');
  return { cache: new PagedCache({ caches: [kCache, vCache] }), kCache, vCache };
}

/** Appends tokens by their number, as keys (number, 0) and values (number). */
async function put(
  { cache, kCache, vCache }: ReturnType<typeof made>,
  sequences: CachedSequence[],
  numbers: number[][],
) {
  cache.append(sequences.map((sequence, i) => ({ sequence, tokens: numbers[i]!.length })));
  const len = Math.max(...numbers.map((list) => list.length));
  const rows = numbers.map((list) => [...list, ...new Array<number>(len - list.length).fill(99)]);
  const v = device.tensor(rows.flat(), [rows.length, len, 1, 1]);
  const k = device.tensor(
    rows.flat().flatMap((n) => [n, 0]),
    [rows.length, len, 1, 2],
  );
  using tables = cache.tables(sequences, { batch: rows.length });
  kvAppend({ k, v, kCache, vCache, ...tables });
  await device.stream.mark();
}

/** The tokens of a sequence as its pages hold them. */
async function tokens(cache: Tensor, { pages, length }: CachedSequence): Promise<number[]> {
  const values = await cache.read();
  const columns = cache.shape[3]!;
  return Array.from({ length }, (_, t) => values[(pages[Math.floor(t / 4)]! * 4 + (t % 4)) * columns]!);
}

test('steps of a batch land where the tables say; forks share what they have and part where they differ', async () => {
  const all = made();
  const { cache, kCache, vCache } = all;
  const [a, b] = [cache.sequence(), cache.sequence()];
  await put(all, [a, b], [[1, 2, 3, 4, 5], [11]]);
  expect([cache.usedPages, a.length, b.length, a.appended]).toEqual([3, 5, 1, 5]);
  const fork = a.fork();
  const prompt = a.fork(4);
  expect([cache.usedPages, fork.length, prompt.length]).toEqual([3, 5, 4]);
  await put(all, [a, fork, prompt, b], [[6, 7], [26], [35], [12]]);
  for (const held of [kCache, vCache]) {
    expect(await tokens(held, a)).toEqual([1, 2, 3, 4, 5, 6, 7]);
    expect(await tokens(held, fork)).toEqual([1, 2, 3, 4, 5, 26]);
    expect(await tokens(held, prompt)).toEqual([1, 2, 3, 4, 35]);
    expect(await tokens(held, b)).toEqual([11, 12]);
  }
  expect(cache.freePages).toBe(1);
  // A guess that was wrong, and another in its place.
  a.truncate(5);
  await put(all, [a], [[8]]);
  expect(await tokens(kCache, a)).toEqual([1, 2, 3, 4, 5, 8]);
  for (const sequence of [a, fork, prompt, b]) sequence.free();
  expect([cache.usedPages, cache.freePages]).toEqual([0, 6]);
});

test('a full cache refuses a step as a whole, before anything is written, and takes it once there is room', async () => {
  const all = made(3);
  const { cache, kCache } = all;
  const [a, b] = [cache.sequence(), cache.sequence()];
  await put(
    all,
    [a, b],
    [
      [1, 2, 3, 4, 5],
      [11, 12],
    ],
  );
  const before = await kCache.read({ raw: true });
  const fork = a.fork();
  // Either would fit alone.
  expect(() =>
    cache.append([
      { sequence: b, tokens: 2 },
      { sequence: a, tokens: 1 },
    ]),
  ).toThrow(code('OUT_OF_MEMORY'));
  expect([a.length, b.length, fork.length, cache.freePages]).toEqual([5, 2, 5, 0]);
  expect(await kCache.read({ raw: true })).toEqual(before);
  fork.free();
  await put(all, [b, a], [[13, 14], [6]]);
  expect(await tokens(kCache, a)).toEqual([1, 2, 3, 4, 5, 6]);
  expect(await tokens(kCache, b)).toEqual([11, 12, 13, 14]);
});

test('tables of a fixed shape take any step, empty slots included', async () => {
  const all = made();
  const { cache } = all;
  const [a, b] = [cache.sequence(), cache.sequence()];
  await put(all, [a, b], [[1, 2, 3, 4, 5], [11]]);
  using tables = cache.tables([a], { batch: 3, maxPages: 4 });
  const numbers = async () => [
    Array.from(await tables.pageTable.read()),
    Array.from(await tables.lensKv.read()),
    Array.from(await tables.lensQ.read()),
  ];
  const [first, second] = a.pages;
  expect(await numbers()).toEqual([
    [first, second, ...new Array(10).fill(0)],
    [5, 0, 0],
    [5, 0, 0],
  ]);
  cache.append([{ sequence: a, tokens: 1 }]);
  cache.update(tables, [b, a]);
  expect(await numbers()).toEqual([
    [b.pages[0], 0, 0, 0, first, second, 0, 0, 0, 0, 0, 0],
    [1, 6, 0],
    [1, 1, 0],
  ]);
  expect(Object.keys(tables)).toEqual(['pageTable', 'lensKv', 'lensQ']);
});

describe('refused:', () => {
  test('caches that do not belong together', () => {
    expect(() => new PagedCache({ caches: [] })).toThrow(code('ARGUMENT'));
    expect(() => new PagedCache({ caches: [device.zeros([4])] })).toThrow(code('SHAPE'));
    expect(() => new PagedCache({ caches: [device.zeros([4, 2, 1]), device.zeros([4, 3, 1])] })).toThrow(
      expect.objectContaining({ message: 'PagedCache: caches[1] has 4 pages of 3, but caches[0] has 4 of 2' }),
    );
  });

  test('sequences and counts that make no sense', () => {
    const { cache } = made();
    const sequence = cache.sequence();
    const append =
      (...steps: [CachedSequence, number][]) =>
      () =>
        cache.append(steps.map(([one, tokens]) => ({ sequence: one, tokens })));
    expect(append([sequence, -1])).toThrow(code('ARGUMENT'));
    expect(append([sequence, 1.5])).toThrow(code('ARGUMENT'));
    expect(append([sequence, 1], [sequence, 1])).toThrow(code('ARGUMENT'));
    expect(append([made().cache.sequence(), 1])).toThrow(code('ARGUMENT'));
    cache.append([{ sequence, tokens: 5 }]);
    expect(() => sequence.fork(6)).toThrow(
      expect.objectContaining({ message: 'fork: tokens are 6, expected 0 to the length 5' }),
    );
    expect(() => sequence.truncate(-1)).toThrow(code('ARGUMENT'));
    expect(() => cache.tables([sequence], { maxPages: 1 })).toThrow(code('SHAPE'));
    expect(() => cache.tables([sequence, sequence], { batch: 1 })).toThrow(code('SHAPE'));
    sequence.free();
    sequence.free();
    expect(cache.freePages).toBe(6);
    for (const use of [() => sequence.fork(), append([sequence, 1]), () => cache.tables([sequence])])
      expect(use).toThrow(code('DISPOSED'));
  });
});
