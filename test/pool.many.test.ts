// A hundred thousand requests of random sizes, all at a time, through one pool: each gets its own answer.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { attentionMerge, type Device, type DeviceName, gemm, openDevice } from '../src/index.js';
import { randomSource } from '../src/random.js';
import { targets } from './targets.js';

const found = targets().targets;
const emulated = found.some(({ name }) => name === 'emu:0');
const full = process.env.KERNWATT_FULL !== undefined;

/** Whole numbers, so that sums are exact in any order. */
const integers = (size: number, next: () => number) =>
  Float32Array.from({ length: size }, () => Math.floor(next() * 9) - 4);

interface Load {
  name: DeviceName;
  requests: number;
  clients: number;
  slots: number;
}
const loads: Load[] = [{ name: 'cpu', requests: 100_000, clients: 1000, slots: 16 }];
if (emulated) loads.push({ name: 'emu:0', requests: full ? 2000 : 200, clients: 40, slots: 4 });

describe.each(loads)('$requests requests on $name', ({ name, requests, clients, slots }) => {
  let device: Device;
  beforeAll(async () => {
    device = await openDevice(name);
  });
  afterAll(() => device.close());

  test('of gemm, against the definition', async () => {
    const [k, n, mostM] = [7, 5, 12];
    const next = randomSource(11);
    const weights = integers(n * k, next);
    // One run of the definition answers for every request: row r of a request is row (start + r) of this.
    const rows = 4096;
    const x = integers(rows * k, next);
    const definition = await openDevice('cpu');
    const { y: truth } = gemm(
      { x: definition.tensor(x, [rows, k]), w: definition.tensor(weights, [n, k]) },
      { backend: 'ref' },
    );
    const expected = (await truth.read()) as Float32Array;
    await definition.close();

    await using pool = gemm.pool({ m: mostM, w: device.tensor(weights, [n, k]) }, { slots, queue: requests });
    let wrong = 0;
    let answered = 0;
    const ask = async (seed: number) => {
      const own = randomSource(seed);
      const m = Math.floor(own() * (mostM + 1));
      const start = Math.floor(own() * (rows - m));
      const { y } = await pool.run({ x: x.subarray(start * k, (start + m) * k) });
      ++answered;
      if (y.length !== m * n) ++wrong;
      else for (let i = 0; i < y.length; ++i) if (y[i] !== expected[start * n + i]) ++wrong;
    };
    const all = Array.from({ length: requests }, (_, seed) => ask(seed));
    expect([pool.running, pool.waiting]).toEqual([slots, requests - slots]);
    await Promise.all(all);
    expect({ wrong, answered }).toEqual({ wrong: 0, answered: requests });
    expect([pool.running, pool.waiting]).toEqual([0, 0]);
  }, 240_000);

  test('of several inputs and results, some of them aborted, some refused', async () => {
    const most = { parts: 3, batch: 1, lenQ: 4, headsQ: 2, dimV: 8 };
    await using pool = attentionMerge.pool(most, { device, slots, queue: clients });
    const outcomes = { answered: 0, aborted: 0, refused: 0, wrong: 0 };
    const request = async (seed: number) => {
      const next = randomSource(seed);
      const lenQ = 1 + Math.floor(next() * 4);
      const size = lenQ * most.headsQ * most.dimV;
      const values = integers(size, next);
      // One part has seen every key, the others none: the result is that part, exactly.
      const parts = 1 + Math.floor(next() * 3);
      const chosen = Math.floor(next() * parts);
      const yParts = new Float32Array(parts * size).fill(Number.NaN);
      yParts.set(values, chosen * size);
      const lse = new Float32Array(parts * lenQ * most.headsQ).fill(Number.NEGATIVE_INFINITY);
      lse.fill(seed % 100, chosen * lenQ * most.headsQ, (chosen + 1) * lenQ * most.headsQ);
      const lenWrong = next() < 0.05 ? 5 : lenQ;
      const controller = new AbortController();
      if (next() < 0.1) setImmediate(() => controller.abort(seed));
      try {
        const results = await pool.run(
          {
            yParts: {
              data: lenWrong === lenQ ? yParts : new Float32Array(parts * 5 * 16),
              shape: [parts, 1, lenWrong, 2, 8],
            },
            lseParts: {
              data: lenWrong === lenQ ? lse : new Float32Array(parts * 2 * 5),
              shape: [parts, 1, 2, lenWrong],
            },
          },
          { signal: controller.signal },
        );
        ++outcomes.answered;
        const same = results.y.length === size && results.y.every((v, i) => v === values[i]);
        if (!same || !results.lse.every((v) => v === seed % 100)) ++outcomes.wrong;
      } catch (error) {
        if (error === seed) ++outcomes.aborted;
        else if ((error as { code?: string }).code === 'ERR_KERNWATT_SHAPE') ++outcomes.refused;
        else throw error;
      }
    };
    const rounds = Math.ceil(requests / 20 / clients);
    for (let round = 0; round < rounds; ++round)
      await Promise.all(Array.from({ length: clients }, (_, i) => request(round * clients + i)));
    expect(outcomes.wrong).toBe(0);
    expect(outcomes.answered + outcomes.aborted + outcomes.refused).toBe(rounds * clients);
    expect(Math.min(outcomes.answered, outcomes.aborted, outcomes.refused)).toBeGreaterThan(0);
  }, 240_000);
});
