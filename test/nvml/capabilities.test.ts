// gpu.capabilities() against fakes that lack, refuse or pretend: each query, field and metric gets the state it deserves.
import { afterEach, expect, test } from 'vitest';
import { openNvml } from '../../src/nvml/index.js';
import { gpuQueries } from '../../src/nvml/queries.js';
import { Fake, type Scenario } from './fake.js';

let fake: Fake | undefined;
afterEach(() => fake?.stop());

async function capabilities(scenario: Scenario) {
  fake = await Fake.start(scenario);
  const list = await (await (await openNvml()).device(0)).capabilities();
  return new Map(list.map(({ name, ...rest }) => [name, rest]));
}

/** Names of what is in a state. */
const inState = (found: Map<string, { state: string }>, state: string) =>
  [...found].filter(([, one]) => one.state === state).map(([name]) => name);

test('a GPU on which nearly everything works', async () => {
  const found = await capabilities({ power: 250 });
  expect(found.get('energy')).toMatchObject({ state: 'ok', detail: expect.stringMatching(/^\d+(\.\d+)? J .*moves$/) });
  expect(found.get('instantPower memory')).toEqual({ state: 'ok', detail: '25', fix: null });
  expect(found.get('field 83 energy, mJ')!.state).toBe('ok');
  expect(found.get('gpm tensorUtilisation')).toEqual({ state: 'ok', detail: '0.6', fix: null });
  expect(found.get('migParent')!.state).toBe('unsupported');
  expect(inState(found, 'denied')).toEqual([]);
  expect(inState(found, 'zero-stuck')).toEqual([]);
});

test('nothing that can be asked is left out', async () => {
  const tried = new Set([...(await capabilities({})).keys()].map((name) => name.split(' ')[0]));
  // Needs a process that is accounted for.
  const { account: _, ...queries } = gpuQueries;
  const under: Partial<Record<string, string>> = { fields: 'field', gpmSample: 'gpm', gpmMetrics: 'gpm' };
  for (const name of Object.keys(queries)) expect(tried).toContain(under[name] ?? name);
});

test('a counter that does not move, and a power of nothing, are not `ok`', async () => {
  const found = await capabilities({ stuck: 1, power: 0 });
  expect(found.get('energy')).toMatchObject({
    state: 'zero-stuck',
    detail: expect.stringMatching(/^stays at 5000 J for 1 s$/),
  });
  expect(found.get('power')!.state).toBe('zero-stuck');
  expect(found.get('instantPower gpu')!.state).toBe('zero-stuck');
  expect(found.get('temperature')!.state).toBe('ok');
});

test('denied, unsupported and missing, each by itself', async () => {
  const found = await capabilities({
    deny: ['nvmlDeviceGetTotalEnergyConsumption', 'nvmlGpmSampleGet', 'field:186'],
    unsupported: ['nvmlDeviceGetUtilizationRates', 'field:269'],
    missing: ['nvmlDeviceGetNumGpuCores', 'nvmlDeviceGetSamples'],
  });
  expect(inState(found, 'denied')).toEqual([
    'energy',
    'instantPower gpu',
    'instantPower module',
    'instantPower memory',
    'instantPower base',
    'field 186 instant power, mW',
    ...[...found.keys()].filter((name) => name.startsWith('gpm ')),
  ]);
  expect(inState(found, 'missing')).toEqual(['cores', ...[...found.keys()].filter((name) => /^samples /.test(name))]);
  for (const name of ['utilisation', 'field 269 throttled by software thermal, ns'])
    expect(inState(found, 'unsupported')).toContain(name);
  expect(found.get('energy')).toEqual({
    state: 'denied',
    detail: 'nvmlDeviceGetTotalEnergyConsumption for GPU 0000:1b:00.0: Insufficient Permissions (4)',
    fix: 'run as root',
  });
  expect(found.get('field 186 instant power, mW')!.fix).toBe('run as root');
});

test('a GPU that is lost has lost everything', async () => {
  fake = await Fake.start({ now: 0, lost_at: 1 });
  const gpu = await (await openNvml()).device(0);
  fake.advance(2);
  const states = new Set((await gpu.capabilities()).map(({ state }) => state));
  expect(states).toEqual(new Set(['lost']));
});
