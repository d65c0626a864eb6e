// The whole way from counter to record: plans measured with a meter of the fake NVML on the real clock, whose energy is known.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { compare, type Device, gemm, type Meter, measure, openMeter, type Plan } from '../../src/index.js';
import type { MeasureRecord } from '../../src/measure/record.js';
import { Fake, type Scenario } from '../nvml/fake.js';
import { quick as short, smallProduct } from './product.js';
import { complaints } from './record.js';

const watts = 320;
const quick = { ...short, clocks: ['device'] } as const;
const windows = { windows: 3, windowSeconds: 0.5, idleSeconds: 0.3 };

let device: Device;
let plan: Plan;
let fake: Fake;
let meter: Meter;
beforeAll(async () => {
  ({ device, plan } = await smallProduct());
});
afterAll(() => device.close());
afterEach(async () => {
  await meter.close();
  fake.stop();
});

async function start(scenario: Scenario): Promise<void> {
  fake = await Fake.start({ power: watts, tick_ms: 20, ...scenario });
  meter = await openMeter({ gpu: 0 });
  expect(meter.domains).toMatchObject([{ name: 'gpu:0', state: 'ok' }]);
}

/** Each window holds what the fake drew in it, divided by its calls, and the record their mean. */
function expectTruth({ energy }: MeasureRecord, count: number): void {
  const [domain] = energy.domains;
  expect(domain!.refused).toEqual([]);
  expect(domain!.windows).toHaveLength(count);
  let sum = 0;
  for (const { begin, end, iterations, perCallJ } of domain!.windows) {
    const truth = fake.joules(begin, end) / iterations;
    expect(Math.abs(perCallJ / truth - 1)).toBeLessThan(0.02);
    sum += truth / count;
  }
  const { ci95, value } = energy.perCallJ as { value: number; ci95: [number, number] };
  expect(Math.abs(value / sum - 1)).toBeLessThan(0.02);
  expect(sum).toBeGreaterThan(ci95[0]);
  expect(sum).toBeLessThan(ci95[1]);
}

test('joules per call of a plan are the watts of the board times the seconds of a call', async () => {
  await start({ clock: 1755, temperature: 55, utilisation: 85 });
  const record = await measure(plan, { ...quick, energy: { ...windows, windowSeconds: 1, meter } });
  expectTruth(record, 3);
  expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
  const [domain] = record.energy.domains;
  expect(domain).toMatchObject({ source: 'nvml', disputed: { value: false }, clockHz: { mean: 1755e6 } });
  expect(domain!.counter.periodSeconds.value).toBeCloseTo(0.02, 2);
  expect(record.metrics!.AEC.paper.AEC.value! / watts).toBeCloseTo(1, 1);
  expect(record.flags).not.toContain('disputed');
  const { PCU } = record.metrics!.PCU.paper;
  expect(PCU).toMatchObject({ state: 'ok', unit: '1', value: expect.closeTo(0.85, 12) });
  expect(record.time!.smClockHz).toMatchObject({
    unit: 'Hz',
    value: 1755e6,
    basis: expect.stringMatching(/^SM clock by NVML, 1755 to 1755 MHz: mean of \d+ readings in 3 energy windows$/),
  });
});

test('compare(): each case by its own windows, in rounds, and the ratio of their energies', async () => {
  await start({});
  const { w, x } = { x: device.random([256, 256], 'f32'), w: device.random([256, 256], 'f32') };
  const larger = gemm.bind({ x, w });
  const { clocks: _, ...options } = quick;
  const { records, ratios } = await compare({ plan, larger }, { ...options, energy: { ...windows, meter } });
  for (const record of Object.values(records)) expectTruth(record, 3);
  const per = (name: string) => records[name]!.energy.perCallJ.value!;
  expect(ratios.larger!.energy.value! / (per('larger') / per('plan'))).toBeCloseTo(1, 1);
  expect(records.larger!.comparison!.energyRounds).toBe(3);
});

test('a counter whose gain is wrong contradicts the power readings: disputed, with the number', async () => {
  await start({ gain: 1.3 });
  const record = await measure(plan, { ...quick, energy: { ...windows, meter } });
  expect(record.flags).toContain('disputed');
  expect(record.energy.disputed.reasons[0]).toMatch(
    /^the power readings add up to 2\d % less than the energy counter$/,
  );
});

test('a board that is lost half-way costs the joules alone', async () => {
  await start({});
  const measuring = measure(plan, {
    ...quick,
    energy: { ...windows, meter },
    onProgress: ({ phase }) => phase === 'energy' && fake.set({ lost_at: fake.now }),
  });
  const record = await measuring;
  expect(record.verdict).toBe('ok');
  expect(record.time!.device!.median).toBeGreaterThan(0);
  expect(record.energy.domains[0]?.refused.length).toBeGreaterThan(0);
  expect(complaints(JSON.parse(JSON.stringify(record)))).toEqual([]);
});

test('a board shared with other processes: not attributable, and the gate will know', async () => {
  await start({ processes: [[4242, 2 ** 30]] });
  const record = await measure(plan, { ...quick, energy: { ...windows, windows: 2, meter } });
  // A CPU plan is none of the processes of the board, and whose the one is, nobody can tell from a container.
  expect(record.energy.attributable.value).not.toBe(true);
});
