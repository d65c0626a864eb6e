// env.gpu of records from the fake NVML: every part known where the driver tells it, null and no failure where it does not.
import { afterEach, expect, test } from 'vitest';
import { factsOf, gpuFacts } from '../../src/measure/gpu_facts.js';
import { openNvml } from '../../src/nvml/open.js';
import { Fake } from '../nvml/fake.js';
import { complaints, record } from './record.js';

let fake: Fake;
afterEach(() => fake.stop());

async function addressOf(index: number): Promise<string> {
  return (await (await openNvml()).device(index)).address!;
}

test('everything a driver tells, of the GPU at that address, and a record that fits the schema', async () => {
  fake = await Fake.start({
    gpus: 2,
    processes: [
      [1, 2 ** 30],
      [2, 2 ** 30],
    ],
  });
  const [first, second] = [await factsOf(await addressOf(0), true), await factsOf(await addressOf(1), false)];
  expect(first).toMatchObject({
    uuidHash: expect.stringMatching(/^[0-9a-f]{16}$/),
    vbios: expect.any(String),
    driver: expect.stringMatching(/^\d+\./),
    nvml: expect.any(String),
    mig: false,
    otherProcesses: 1,
  });
  for (const watts of Object.values(first!.powerLimitW)) expect(watts).toBeGreaterThan(100);
  for (const hertz of Object.values(first!.maxClockHz)) expect(hertz).toBeGreaterThan(1e9);
  expect(second!.otherProcesses).toBe(2);
  expect(second!.pci).not.toBe(first!.pci);
  expect(second!.uuidHash).not.toBe(first!.uuidHash);
  const one = JSON.parse(JSON.stringify(record({ gpu: first })));
  expect(complaints(one)).toEqual([]);
  expect(one.env.gpu).toEqual(first);
});

test('what is denied or unknown to the driver is null, one by one', async () => {
  fake = await Fake.start({
    deny: ['nvmlDeviceGetComputeRunningProcesses_v3'],
    unsupported: ['nvmlDeviceGetEccMode', 'nvmlDeviceGetMigMode', 'nvmlDeviceGetEnforcedPowerLimit'],
  });
  const facts = await factsOf(await addressOf(0), true);
  expect(facts).toMatchObject({ ecc: null, mig: null, otherProcesses: null, powerLimitW: { enforced: null } });
  expect(facts!.powerLimitW.max).toBeGreaterThan(100);
  expect(complaints(JSON.parse(JSON.stringify(record({ gpu: facts }))))).toEqual([]);
});

test('no such GPU, and no GPU at all: null', async () => {
  fake = await Fake.start({});
  expect(await factsOf('0000:ff:1f.0', true)).toBeNull();
  expect(await gpuFacts(null)).toBeNull();
});
