// The measuring loop on a simulated clock: what it takes, when it stops, what it says about disturbed samples.
import { expect, test } from 'vitest';
import { type Round, timeClock } from '../../src/measure/loop.js';
import { randomSource } from '../../src/random.js';

const rule = { minSamples: 10, minSeconds: 0.5, target: 0.01, maxSeconds: 15 };

/** A device whose call takes `seconds` (1 + noise), read by a clock that costs `overhead` a sample. */
function simulated(
  seconds: number,
  noise = 0,
  { overhead = 0, steal = (_: number): number | null => 0, seed = 1 } = {},
) {
  const next = randomSource(seed);
  const state = { time: 0, rounds: 0, perSample: [] as number[] };
  const run = async (samples: number, calls: number): Promise<Round> => {
    const list = Float64Array.from({ length: samples }, () => {
      const spent = overhead + calls * seconds * (1 + noise * (2 * next() - 1));
      state.time += spent;
      state.perSample.push(spent);
      return spent / calls;
    });
    return { seconds: list, stealShare: steal(state.rounds++) };
  };
  return { state, run, now: () => state.time };
}

test('short calls are grouped so that a sample lasts as long as wanted, however dear reading the clock is', async () => {
  const { run, now } = simulated(1e-6, 0.01, { overhead: 5e-7 });
  const record = await timeClock(run, { rule, sampleSeconds: 1e-3, now });
  expect(record.callsPerSample).toBeGreaterThan(900);
  expect(record.callsPerSample).toBeLessThan(1100);
  expect(record.median / 1e-6).toBeCloseTo(1, 2);
});

test('a long call is a sample by itself', async () => {
  const { run, now } = simulated(0.08);
  const record = await timeClock(run, { rule, sampleSeconds: 1e-3, now });
  expect(record).toMatchObject({
    callsPerSample: 1,
    n: 10,
    stop: { rule: 'precision', converged: true, target: 0.01 },
  });
  expect(record.stop.measuredSeconds).toBeCloseTo(0.8, 6);
});

test('noise that allows the target is measured until it is reached', async () => {
  const { run, now } = simulated(1e-3, 0.2);
  const record = await timeClock(run, { rule, sampleSeconds: 1e-3, now });
  const [low, high] = record.ci95Median!;
  expect(record.stop.rule).toBe('precision');
  expect((high - low) / 2 / record.median).toBeLessThanOrEqual(0.01);
  expect(low).toBeLessThan(1e-3 * 1.01);
  expect(high).toBeGreaterThan(1e-3 * 0.99);
});

test('noise beyond reach stops early and does not claim to have converged', async () => {
  const { run, now } = simulated(0.02, 0.9);
  const record = await timeClock(run, { rule: { ...rule, target: 1e-4 }, sampleSeconds: 1e-3, now });
  expect(record.stop.converged).toBe(false);
  expect(['noise', 'time']).toContain(record.stop.rule);
  expect(record.stop.elapsedSeconds).toBeLessThan(16);
});

test('time runs out: one round too many at most', async () => {
  const { run, now } = simulated(2, 0.5);
  const record = await timeClock(run, { rule: { ...rule, maxSeconds: 15 }, sampleSeconds: 1e-3, now });
  expect(record.stop).toMatchObject({ rule: 'time', converged: false });
  expect(record.n).toBeLessThan(10);
});

test('rounds with stolen time are kept and counted', async () => {
  const disturbed = simulated(1e-3, 0.01, { steal: (round) => (round === 4 ? 0.2 : 0) });
  const record = await timeClock(disturbed.run, { rule, sampleSeconds: 1e-3, now: disturbed.now });
  expect(record.stolenSamples).toBeGreaterThan(0);
  expect(record.stolenSamples).toBeLessThan(record.n);
  const unseen = simulated(1e-3, 0.01, { steal: () => null });
  expect((await timeClock(unseen.run, { rule, sampleSeconds: 1e-3, now: unseen.now })).stolenSamples).toBeNull();
});

test('an aborted measurement rejects with the reason of the signal', async () => {
  const { run, now } = simulated(1e-3, 0.9);
  const controller = new AbortController();
  const reason = new Error('enough');
  const measuring = timeClock(run, {
    rule,
    sampleSeconds: 1e-3,
    now,
    signal: controller.signal,
    onRound: () => controller.abort(reason),
  });
  await expect(measuring).rejects.toBe(reason);
});

test('progress rises to 1', async () => {
  const { run, now } = simulated(1e-3, 0.1);
  const seen: number[] = [];
  await timeClock(run, { rule, sampleSeconds: 1e-3, now, onRound: (done) => seen.push(done) });
  expect(seen.at(-1)).toBe(1);
  expect(seen.every((done) => done > 0 && done <= 1)).toBe(true);
});
