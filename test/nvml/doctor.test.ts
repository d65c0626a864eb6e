// What `kernwatt doctor` and the list of energy sources say of GPUs: the real probe, on fakes that count, refuse, stand still or are gone.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import type { Doctor } from '../../src/cli/doctor.js';
import { describeGpu } from '../../src/cli/gpus.js';
import { type EnergySource, probeEnergySources } from '../../src/measure/sources.js';
import { Fake, type Scenario } from './fake.js';

let fake: Fake | undefined;
afterEach(() => fake?.stop());

async function source(scenario: Scenario): Promise<EnergySource> {
  fake = await Fake.start(scenario);
  return (await probeEnergySources('/nowhere')).find(({ name }) => name === 'nvml')!;
}

test('a counter that moves is ok, and every GPU is named', async () => {
  expect(await source({ gpus: 2 })).toEqual({
    name: 'nvml',
    state: 'ok',
    detail: expect.stringMatching(/^NVIDIA H200 0000:1b:00\.0: .* J .*; NVIDIA H200 0000:2b:00\.0: .* J since/),
    fix: null,
  });
});

test('one that can be read is enough; what the others lack is said', async () => {
  const energy = 'nvmlDeviceGetTotalEnergyConsumption';
  const found = await source({ gpus: 3, each: [{ deny: [energy] }, {}, { lost_at: 0 }] });
  expect(found).toMatchObject({ state: 'ok', fix: null });
  expect(found.detail).toMatch(
    /0000:1b:00\.0: .*Insufficient Permissions.*0000:2b:00\.0: .* moves; .*GPU 2: GPU is lost/,
  );
  fake?.stop();
  expect(await source({ deny: [energy] })).toMatchObject({ state: 'denied', fix: 'run as root' });
});

test('one that stands still, none, a lost one', async () => {
  expect(await source({ stuck: 1 })).toMatchObject({
    state: 'zero-stuck',
    detail: expect.stringContaining('stays at 5000 J'),
  });
  fake?.stop();
  expect(await source({ gpus: 0 })).toMatchObject({ state: 'missing', fix: expect.stringContaining('--gpus all') });
  fake?.stop();
  expect(await source({ lost_at: 0 })).toMatchObject({ state: 'unavailable', detail: expect.stringMatching(/lost/) });
});

test('no library, and one that is no NVML', async () => {
  const before = process.env.KERNWATT_NVML_LIBRARY;
  const of = async (path: string) => {
    process.env.KERNWATT_NVML_LIBRARY = path;
    return (await probeEnergySources('/nowhere')).at(-1)!;
  };
  try {
    expect(await of('/nowhere/libnvidia-ml.so')).toMatchObject({
      state: 'missing',
      fix: expect.stringMatching(/driver/),
    });
    expect(await of('libm.so.6')).toMatchObject({ state: 'missing', detail: expect.stringContaining('nvmlInit_v2') });
  } finally {
    if (before === undefined) delete process.env.KERNWATT_NVML_LIBRARY;
    else process.env.KERNWATT_NVML_LIBRARY = before;
  }
});

test('doctor: a line per GPU, all of it as JSON, and exit code 0 for --require energy', async () => {
  fake = await Fake.start({ gpus: 2, each: [{}, { deny: ['nvmlGpmSampleGet'] }] });
  const doctor = (...args: string[]) =>
    spawnSync(process.execPath, [resolve(import.meta.dirname, '../../dist/cli/main.js'), 'doctor', ...args], {
      encoding: 'utf8',
    });
  const { status, stdout } = doctor('--json', '--require', 'energy');
  expect(status).toBe(0);
  const { gpus, energy } = JSON.parse(stdout) as Doctor;
  expect(gpus.map(({ index, address, name }) => [index, address, name])).toEqual([
    [0, '0000:1b:00.0', 'NVIDIA H200'],
    [1, '0000:2b:00.0', 'NVIDIA H200'],
  ]);
  expect(gpus[0]!.capabilities.find(({ name }) => name === 'power')).toEqual({
    name: 'power',
    state: 'ok',
    detail: '250',
    fix: null,
  });
  expect(energy.at(-1)).toMatchObject({ name: 'nvml', state: 'ok' });
  const [first, second] = gpus.map(describeGpu) as [string, string];
  expect(first).toMatch(
    /^NVIDIA H200, 0000:1b:00\.0: \d+ of \d+ queries answer, \d+ unsupported \(--json names them\)$/,
  );
  expect(second).toMatch(/\n {2}denied: gpm \(\d+\); fix: run as root$/);
  expect(doctor().stdout).toMatch(/^nvml:1 +NVIDIA H200, 0000:2b:00\.0: \d+ of/m);
});
