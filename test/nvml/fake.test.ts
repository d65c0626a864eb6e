// The fake NVML itself, asked through ctypes: what other tests take for the truth about meters has to be true here.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, expect, test } from 'vitest';
import { temporary } from '../meter/tree.js';
import { buildFake, Fake, type Scenario } from './fake.js';

type Answer = number & { state?: string; reason?: string };

let child: ChildProcess | undefined;
let fake: Fake | undefined;

afterEach(() => {
  child?.kill();
  fake?.stop();
});

/** A process that has the fake open; `ask` calls one function of tools/gpu/nvml.py or ask.py. */
async function open(scenario: Scenario) {
  fake = await Fake.start(scenario);
  child = spawn('python3', [join(import.meta.dirname, 'ask.py')], { stdio: ['pipe', 'pipe', 'inherit'] });
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const ask = async <T = Answer>(...request: unknown[]): Promise<T> => {
    child!.stdin!.write(`${JSON.stringify(request)}\n`);
    return JSON.parse((await lines.next()).value);
  };
  const energy = () => ask('number', 'nvmlDeviceGetTotalEnergyConsumption').then(Number);
  return {
    fake,
    ask,
    energy,
    field: async (id: number, scope = 0) => (await ask<[number, number]>('field', id, scope))[0],
  };
}

/** `number` of nvml.py reads 32 bits; these joules fit. */
const bursts: Scenario = {
  now: 0,
  power: [
    [0, 100],
    [0.35, 612.5],
    [1.1, 90],
  ],
  period: 2,
  tick_ms: 20,
  quantum_mj: 10,
  base_mj: 7000,
};

test('the counter holds the joules up to the last tick, rounded down to its quantum', async () => {
  const { fake, energy } = await open(bursts);
  expect(await energy()).toBe(7000);
  for (const by of [0.013, 0.2, 0.4711, 0.5, 3.3, 0.0209, 7, 0.02]) {
    fake.advance(by);
    const tick = 0.02 * Math.floor(fake.now / 0.02 + 1e-9);
    const truth = 1000 * fake.joules(0, tick);
    const counted = (await energy()) - 7000;
    expect(counted % 10).toBe(0);
    expect(truth - counted).toBeGreaterThanOrEqual(-1e-3);
    expect(truth - counted).toBeLessThan(10);
    // It lags: what was drawn since the tick is not in it.
    expect(1000 * fake.joules(0, fake.now) - counted).toBeGreaterThanOrEqual(1000 * fake.joules(tick, fake.now) - 1e-3);
  }
});

test('between two ticks the counter stands still', async () => {
  const { fake, energy } = await open({ now: 1, tick_ms: 100, power: 500, base_mj: 0 });
  const seen = [];
  for (let i = 0; i < 40; i++) {
    seen.push(await energy());
    fake.advance(0.025);
  }
  expect(new Set(seen).size).toBe(10);
  expect(seen[4]! - seen[3]!).toBe(50_000);
});

test('averaged power is the mean of the last second, instant power is of now, and HBM has its share of both', async () => {
  const { fake, ask, field } = await open({ ...bursts, now: 3.4 });
  const average = Math.round(1000 * fake.joules(2.4, 3.4));
  expect(average).not.toBe(90_000);
  expect(await field(185)).toBe(average);
  expect(await ask('number', 'nvmlDeviceGetPowerUsage')).toBe(average);
  expect(await field(186)).toBe(90_000);
  expect(await field(185, 2)).toBe(Math.round(0.1 * average));
  expect(await field(186, 2)).toBe(9000);
  expect(await ask('field', 186, 1)).toMatchObject({ state: 'unsupported' });
});

test('noise is of each tick, the same each time, and has no bias', async () => {
  const scenario: Scenario = { now: 100, power: 400, noise: 0.05, seed: 3, tick_ms: 20, base_mj: 0 };
  const { fake, energy } = await open(scenario);
  const counted: number[] = [];
  for (let i = 0; i < 400; i++) {
    counted.push(await energy());
    fake.advance(0.02);
  }
  const ticks = counted.slice(1).map((value, i) => (value - counted[i]!) / 8000 - 1);
  const mean = ticks.reduce((a, b) => a + b) / ticks.length;
  const deviation = Math.sqrt(ticks.reduce((a, b) => a + (b - mean) ** 2, 0) / ticks.length);
  expect(deviation).toBeGreaterThan(0.044);
  expect(deviation).toBeLessThan(0.056);
  expect(Math.abs(mean)).toBeLessThan(3 * (0.05 / Math.sqrt(400)));
  fake.set({ now: 100 });
  expect(await energy()).toBe(counted[0]);
  fake.set({ seed: 4 });
  expect(await energy()).not.toBe(counted[0]);
});

test('draw() changes the power from now on, and leaves the past alone', async () => {
  const { fake, energy } = await open({ now: 5, power: 100, base_mj: 0 });
  fake.draw(700);
  expect(await energy()).toBe(500_000);
  fake.advance(1);
  expect(await energy()).toBe(1_200_000);
  expect(fake.joules(4, 6)).toBeCloseTo(800, 9);
});

test('a reset begins at 0, and a counter that is stuck stays', async () => {
  const { fake, energy } = await open({ now: 9, power: 100, reset_at: 10 });
  expect(await energy()).toBe(5_900_000);
  fake.advance(2);
  expect(await energy()).toBe(100_000);
  fake.set({ reset_at: undefined, stuck: 1 });
  expect(await energy()).toBe(5_000_000);
  fake.set({ base_mj: 0 });
  expect(await energy()).toBe(0);
});

test('throttling counts nanoseconds and shows in the reasons while it lasts', async () => {
  const throttle = [
    ['swPowerCap', 1, 2.5],
    ['hwThermal', 2, 3],
    ['swPowerCap', 4, 9],
  ] as const;
  const { fake, ask, field } = await open({
    now: 2.25,
    throttle,
    clock: [
      [0, 1980],
      [2, 1200],
    ],
  });
  const reasons = () => ask('number', 'nvmlDeviceGetCurrentClocksEventReasons');
  expect([await field(74), await field(270), await field(75), await field(271)]).toEqual([1.25e9, 0.25e9, 0.25e9, 0]);
  expect(await reasons()).toBe(0x4 | 0x8 | 0x40);
  fake.set({ now: 5, utilisation: 0 });
  expect([await field(74), await field(270)]).toEqual([2.5e9, 1e9]);
  expect(await reasons()).toBe(0x4 | 0x1);
  expect(await ask('number', 'nvmlDeviceGetPerformanceState')).toBe(0);
});

test('refusals, each by its name: permission, support, any status, a lost GPU', async () => {
  const { fake, ask } = await open({
    now: 1,
    deny: ['nvmlDeviceGetPowerUsage', 'field:186'],
    unsupported: ['field:74'],
    fail: { 'field:83': 6, nvmlDeviceGetTotalEnergyConsumption: 999 },
    lost_at: 2,
  });
  const power = () => ask('number', 'nvmlDeviceGetPowerUsage');
  expect(await power()).toMatchObject({ state: 'denied' });
  expect(await ask('field', 186)).toMatchObject({ state: 'denied' });
  expect(await ask('field', 74)).toMatchObject({ state: 'unsupported' });
  expect(await ask('field', 83)).toMatchObject({ state: 'no data' });
  expect((await ask('number', 'nvmlDeviceGetTotalEnergyConsumption')).reason).toContain('(999)');
  expect(await ask('field', 185)).toEqual([250_000, 1]);
  fake.set({ deny: undefined });
  expect(await power()).toBe(250_000);
  fake.advance(1);
  expect((await power()).reason).toContain('GPU is lost (15)');
});

test('functions that are missing are not in the library', async () => {
  const missing = ['nvmlDeviceGetMemoryInfo_v2', 'nvmlDeviceGetFieldValues'];
  const { ask } = await open({ missing });
  expect(await ask('memory')).toMatchObject({ state: 'missing' });
  expect(await ask('field', 83)).toMatchObject({ state: 'missing' });
  expect(await ask('number', 'nvmlDeviceGetPowerUsage')).toBe(250_000);
  const symbols = (file: string) => spawnSync('nm', ['-D', '--defined-only', file], { encoding: 'utf8' }).stdout;
  const whole = symbols(await buildFake());
  const cut = symbols(await buildFake(missing));
  for (const name of missing) {
    expect(whole).toMatch(new RegExp(`\\b${name}\\b`));
    expect(cut).not.toMatch(new RegExp(`\\b${name}\\b`));
  }
  expect(whole).not.toMatch(/ [TW] (?!nvml)/);
});

test('memory by both versions of the structure, and processes', async () => {
  const { fake, ask } = await open({
    now: 0,
    memory_used: 5e9,
    processes: [
      [4242, 3e9],
      [77, null],
    ],
  });
  const { total, reserved, free, used } = await ask<Record<string, number>>('memory');
  expect(used).toBe(5e9);
  expect(reserved! + free! + used!).toBe(total);
  expect(await ask('memory', 0x01000028)).toMatchObject({ reason: expect.stringContaining('(25)') });
  expect(await ask<[number, number][]>('processes')).toEqual([
    [4242, 3e9],
    [77, 2 ** 64],
  ]);
  fake.set({ struct_version: 'old' });
  expect(await ask('memory')).toMatchObject({ reason: expect.stringContaining('(25)') });
});

test('several GPUs with names and scenarios of their own', async () => {
  const { fake, ask, field } = await open({ now: 0, gpus: 3, power: 100, each: [{}, { power: 300 }] });
  expect(await field(186)).toBe(100_000);
  expect(await ask('select', 'nvmlDeviceGetHandleByPciBusId_v2', '0000:2b:00.0')).toBe(null);
  expect(await field(186)).toBe(300_000);
  const uuid = await ask<string>('string', 'nvmlDeviceGetUUID');
  await ask('select', 'nvmlDeviceGetHandleByIndex_v2', 2);
  expect(await ask<string>('string', 'nvmlDeviceGetUUID')).not.toBe(uuid);
  await ask('select', 'nvmlDeviceGetHandleByUUID', uuid);
  expect(await field(186)).toBe(300_000);
  expect(await ask('select', 'nvmlDeviceGetHandleByIndex_v2', 3)).toMatchObject({ state: 'unsupported' });
  expect([fake.joules(0, 2), fake.joules(0, 2, 1)]).toEqual([200, 600]);
});

test('a divided GPU: memory and processes of its instances, power of the whole', async () => {
  const { ask } = await open({ now: 0, mig: 2, memory_used: 4e9, processes: [[9, 1]] });
  expect(await ask('memory')).toMatchObject({ state: 'denied' });
  expect(await ask('field', 185)).toEqual([250_000, 1]);
  await ask('select', 'nvmlDeviceGetHandleByUUID', 'MIG-fa4e0000-0000-4000-8000-000000001000');
  expect((await ask<{ used: number }>('memory')).used).toBe(2e9);
  expect(await ask('processes')).toEqual([[9, 1]]);
  expect(await ask('field', 185)).toMatchObject({ state: 'unsupported' });
});

test('GPM answers between two samples, for each metric by itself', async () => {
  const { fake, ask } = await open({ now: 0, gpm: { 2: 87.5, 10: 33 }, fail: { 'gpm:10': 4 } });
  await ask('sample');
  fake.advance(0.05);
  await ask('sample');
  fake.advance(0.2);
  await ask('sample');
  const far = await ask<Record<string, unknown>>('gpm', 0, 2);
  expect(far).toMatchObject({ SM_UTIL: 87.5, DRAM_BW: 'Insufficient Permissions (4)', HMMA: 'Not Supported (3)' });
  expect(await ask('gpm', 0, 1)).toMatchObject({ SM_UTIL: 'No data (21)' });
  expect(await ask('gpm', 2, 0)).toMatchObject({ state: 'unsupported' });
});

test('slow calls take their time, and the log names them', async () => {
  const log = join(temporary(), 'calls');
  const { ask } = await open({ slow_ms: { nvmlDeviceGetPowerUsage: 80 }, log });
  const before = performance.now();
  await ask('number', 'nvmlDeviceGetPowerUsage');
  expect(performance.now() - before).toBeGreaterThan(75);
  const calls = readFileSync(log, 'utf8')
    .trim()
    .split('\n')
    .map((line) => line.split(' ')[0]);
  expect(calls).toEqual(['nvmlInit_v2', 'nvmlDeviceGetHandleByIndex_v2', 'nvmlDeviceGetPowerUsage']);
});

test('on real time the counter goes with the clock', async () => {
  const { fake, energy } = await open({ power: 800, tick_ms: 5, base_mj: 0 });
  const [begin, first] = [fake.now, await energy()];
  await new Promise((done) => setTimeout(done, 300));
  const [second, end] = [await energy(), fake.now];
  const counted = (second - first) / 1000;
  expect(counted).toBeLessThanOrEqual(fake.joules(begin, end) + 4.001);
  expect(counted).toBeGreaterThan(800 * 0.29 - 4);
});
