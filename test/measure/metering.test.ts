// Energy windows of real plans and functions on a meter of known power: joules per call are power times seconds per call, idle is
// seen, failures cost the joules alone, and nothing readable costs no time.
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { compare, type Device, gemm, measure, type Plan } from '../../src/index.js';
import type { EnergyOptions } from '../../src/measure/options.js';
import type { MeasureRecord } from '../../src/measure/record.js';
import { mean } from '../../src/measure/stats.js';
import { loadCalls, subject } from '../../src/measure/subject.js';
import { madeUpMeter } from './meter.js';
import { quick, smallProduct } from './product.js';
import { complaints } from './record.js';

const watts = 80;
const windows: EnergyOptions = { windows: 3, windowSeconds: 0.4, idleSeconds: 0.25 };

let device: Device;
let plan: Plan;
beforeAll(async () => {
  ({ device, plan } = await smallProduct());
});
afterAll(() => device.close());

/** The record's interval holds P times its own seconds per call, and both are off by little. */
function expectTruth({ energy }: MeasureRecord): void {
  const truth = watts * energy.secondsPerCall.value!;
  expect(energy.powerW.value! / watts).toBeGreaterThan(0.99);
  expect(energy.powerW.value! / watts).toBeLessThan(1.01);
  const { value } = energy.perCallJ;
  expect(value! / truth).toBeGreaterThan(0.97);
  expect(value! / truth).toBeLessThan(1.03);
}

test('a plan: joules per call, idle, net of idle, busy all the time, and a record that fits the schema', async () => {
  const record = await measure(plan, { ...quick, clocks: ['device'], energy: { ...windows, meter: madeUpMeter() } });
  expectTruth(record);
  expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
  const [domain] = record.energy.domains;
  expect(domain).toMatchObject({ name: 'gpu:0', source: 'nvml', scope: 'gpu', disputed: { value: false } });
  expect(domain!.windows).toHaveLength(3);
  for (const { begin, end, iterations } of domain!.windows) {
    expect(end - begin).toBeGreaterThan(0.3);
    expect(iterations).toBeGreaterThan(32);
  }
  // It draws the same at idle, so nothing is left of it.
  expect(domain!.idleBeforeW.value! / watts).toBeCloseTo(1, 1);
  expect(domain!.idleAfterW.value! / watts).toBeCloseTo(1, 1);
  expect(Math.abs(record.energy.netPerCallJ.value!)).toBeLessThan(0.05 * record.energy.perCallJ.value!);
  expect(domain!.steady.reasons.join()).not.toMatch(/had work/);
  expect(record.metrics!.AEC.honest.joulesPerCall).toEqual(record.energy.perCallJ);
  expect(record.flags).not.toContain('disputed');
});

test('a function: the same from JavaScript, where nobody knows how long a device had work', async () => {
  const record = await measure(() => plan.run(), { ...quick, energy: { ...windows, meter: madeUpMeter() } });
  expectTruth(record);
  expect(record.energy.steady).toMatchObject({ value: null });
  expect(record.energy.steady.reasons.join()).toMatch(/how long the device had work was not measured/);
});

test('compare: windows in rounds, and a ratio of energies that is that of the times', async () => {
  const twice = async () => {
    await plan.run();
    await plan.run();
  };
  const { ratios, records } = await compare(
    { once: () => plan.run(), twice },
    { ...quick, energy: { ...windows, meter: madeUpMeter() } },
  );
  for (const record of Object.values(records)) expectTruth(record);
  const { comparison } = records.twice!;
  expect(comparison).toMatchObject({ energyRounds: 3 });
  expect(ratios.twice!.energy).toEqual(comparison!.energyRatio);
  // At constant power joules go as seconds, window by window.
  const seconds = (one: MeasureRecord) =>
    one.energy.domains[0]!.windows.map(({ begin, end, iterations }) => (end - begin) / iterations);
  const [here, base] = [seconds(records.twice!), seconds(records.once!)];
  const times = Math.exp(mean(here.map((value, round) => Math.log(value / base[round]!))));
  expect(comparison!.energyRatio.value! / times).toBeGreaterThan(0.97);
  expect(comparison!.energyRatio.value! / times).toBeLessThan(1.03);
  // Rounds: each case once before any comes again.
  const begins = (one: MeasureRecord) => one.energy.domains[0]!.windows.map(({ begin }) => begin);
  const order = ['once', 'twice']
    .flatMap((name) => begins(records[name]!).map((begin) => ({ name, begin })))
    .sort((a, b) => a.begin - b.begin)
    .map(({ name }) => name);
  for (let round = 0; round < 3; round++)
    expect(order.slice(2 * round, 2 * round + 2).sort()).toEqual(['once', 'twice']);
});

describe('what goes wrong costs the joules and nothing else', () => {
  const run = (energy: Parameters<typeof madeUpMeter>[0]) =>
    measure(plan, {
      ...quick,
      clocks: ['device'],
      energy: { windows: 2, windowSeconds: 0.3, idleSeconds: 0.2, meter: madeUpMeter(energy) },
    });
  const expectNone = (record: MeasureRecord, state: string, reason: RegExp): void => {
    expect(record.verdict).toBe('ok');
    expect(record.time!.device!.median).toBeGreaterThan(0);
    expect(record.energy.perCallJ).toMatchObject({ value: null, state, reason: expect.stringMatching(reason) });
    expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
  };

  test('a meter that throws once the windows are over', async () =>
    expectNone(await run({ failsAfter: 2 }), 'unavailable', /^the meter failed: the driver went away$/));

  test('a meter that throws at once', async () =>
    expectNone(await run({ failsAfter: 0 }), 'unavailable', /^the meter failed: the driver went away$/));

  test('a counter that falls silent half-way', async () =>
    expectNone(await run({ silentAfter: 2 }), 'unavailable', /^none of 2 windows can be used: the counter ticked/));

  test('a counter that does not move is found out at idle', async () => {
    const record = await run({ stuck: true });
    expectNone(record, 'zero-stuck', /^the energy counter did not move in/);
    expect(record.energy.unread).toMatchObject([{ name: 'gpu:0', state: 'zero-stuck' }]);
  });

  test('power readings that contradict the counter are flagged', async () => {
    const record = await run({ powerShare: 0.7 });
    expect(record.flags).toContain('disputed');
    expect(record.energy.perCallJ.value).toBeGreaterThan(0);
  });
});

test('inputs of zeros are not metered: they draw less than any data', async () => {
  const [x, w] = [device.zeros([8, 64], 'f32'), device.full([64, 64], 0, 'f32')];
  const zeros = gemm.bind({ x, w });
  const meter = madeUpMeter();
  const record = await measure(zeros, { ...quick, clocks: ['device'], energy: { ...windows, meter } });
  expect(record.energy.perCallJ).toMatchObject({ value: null, reason: expect.stringMatching(/^all inputs are zeros/) });
  expect(meter.calls).toBe(0);
  const mixed = gemm.bind({ x, w: device.random([64, 64], 'f32') });
  const other = await measure(mixed, { ...quick, clocks: ['device'], energy: { ...windows, meter } });
  expect(other.energy.perCallJ.value).toBeGreaterThan(0);
});

test('nothing readable, or not asked for: no time is lost, and the reason is that of the counter', async () => {
  const started = performance.now();
  const none = { domains: [], recording: async () => [] };
  const long = { windows: 100, windowSeconds: 10, idleSeconds: 10 };
  const record = await measure(plan, { ...quick, clocks: ['device'], energy: { ...long, meter: none } });
  expect(record.energy.perCallJ).toMatchObject({ value: null, reason: 'the meter has no counter' });
  const off = await measure(plan, { ...quick, clocks: ['device'], energy: false });
  expect(off.energy.perCallJ).toMatchObject({ value: null, reason: 'metering was switched off for this run' });
  expect(performance.now() - started).toBeLessThan(40_000);
});

test('an abort ends the windows', async () => {
  const stop = new AbortController();
  const reason = new Error('enough');
  const measuring = measure(plan, {
    ...quick,
    clocks: ['device'],
    signal: stop.signal,
    energy: { windows: 50, windowSeconds: 0.2, idleSeconds: 0.2, meter: madeUpMeter() },
    onProgress: ({ phase }) => phase === 'energy' && stop.abort(reason),
  });
  await expect(measuring).rejects.toBe(reason);
});

test.each<[unknown, RegExp]>([
  [7, /^measure: energy is 7, expected true, false or an object$/],
  [{ windows: 0 }, /^measure: energy.windows is 0, expected a whole number from 1/],
  [{ windowSeconds: 0 }, /^measure: energy.windowSeconds is 0, expected more than 0/],
  [{ idleSeconds: -1 }, /^measure: energy.idleSeconds is -1/],
  [{ wndows: 3 }, /^measure: energy is given wndows, expected meter, windows/],
  [{ meter: {} }, /^measure: energy.meter is .*, expected a meter/],
])('energy: %j is refused', async (energy, message) => {
  await expect(measure(plan, { energy: energy as EnergyOptions })).rejects.toThrow(message);
});

test('samples of a load are whole rounds over the copies, bounded by what a graph holds', () => {
  expect(loadCalls(1e-3, 1)).toBe(20);
  expect(loadCalls(1e-3, 7)).toBe(21);
  expect(loadCalls(1, 7)).toBe(1);
  expect(loadCalls(1e-3, 100)).toBe(20);
  expect(loadCalls(1e-9, 1)).toBe(16384);
});

test('a call that was thought to be far slower than it is still fills its window', async () => {
  const options = { name: 'a', cache: 'hot', coldLimitBytes: 0, check: null } as const;
  await using it = await subject(plan, options);
  const { begin, end, iterations } = await it.load({ settleSeconds: 0.1, seconds: 0.3, secondsPerCall: 0.5 });
  expect(end - begin).toBeGreaterThan(0.2);
  expect(iterations).toBeGreaterThan(100);
});
