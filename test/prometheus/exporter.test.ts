// `kernwatt/prometheus` against fake GPUs with known truth, as data and as text; and the example as a user runs it.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as wait } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { gemm, openDevice } from '../../src/index.js';
import { type ExporterOptions, openExporter } from '../../src/prometheus/index.js';
import { drawing } from '../cli/run.js';
import { temporary, zone } from '../meter/tree.js';
import { Fake } from '../nvml/fake.js';
import { parse } from './parse.js';

let fake: Fake;
/** What the GPUs do unless a test says otherwise. */
const plain = { gpus: 2, power: 300, each: [{}, { power: 500 }] } as const;
beforeAll(async () => {
  fake = await Fake.start(plain);
});
afterEach(() => fake.set({ each: plain.each, throttle: undefined, deny: undefined, mig: undefined }));
afterAll(() => fake.stop());

async function scraped(options: ExporterOptions = {}, before = async () => {}) {
  await using exporter = await openExporter({ sysfs: temporary(), ...options });
  await before();
  const text = await exporter.metrics();
  const { families, comments } = parse(text);
  const value = (name: string, labels = '') => families.get(`kernwatt_${name}`)?.samples.get(labels);
  return { families, comments, value, text };
}

describe('GPUs', () => {
  test('every reading under a name that says its unit', async () => {
    fake.set({
      each: [{ temperature: 66, clock: 1755, memory_used: 7e9, utilisation: 83 }, { power: 500 }],
      throttle: [
        ['swPowerCap', 0, 1.5],
        ['hwThermal', 0, 0.25],
      ],
    });
    const { value, families } = await scraped();
    expect(value('gpu_power_watts', '{domain="gpu:0"}')).toBe(300);
    expect(value('gpu_power_average_watts', '{domain="gpu:1"}')).toBeGreaterThan(0);
    expect(value('gpu_memory_power_average_watts', '{domain="gpu:0"}')).toBeGreaterThan(0);
    expect(value('gpu_power_limit_watts', '{domain="gpu:0"}')).toBe(700);
    expect(value('gpu_clock_hertz', '{clock="sm",domain="gpu:0"}')).toBe(1.755e9);
    expect(value('gpu_clock_hertz', '{clock="memory",domain="gpu:0"}')).toBe(3.201e9);
    expect(value('gpu_memory_used_bytes', '{domain="gpu:0"}')).toBe(7e9);
    expect(value('gpu_memory_size_bytes', '{domain="gpu:0"}')).toBe(150754820096);
    expect(value('gpu_busy_ratio', '{domain="gpu:0"}')).toBe(0.83);
    expect(value('gpu_memory_busy_ratio', '{domain="gpu:0"}')).toBe(0.4);
    expect(value('gpu_temperature_celsius', '{domain="gpu:0",sensor="gpu"}')).toBe(66);
    expect(value('gpu_temperature_celsius', '{domain="gpu:0",sensor="memory"}')).toBe(48);
    expect(value('gpu_throttled_seconds_total', '{domain="gpu:0",reason="power-cap"}')).toBe(1.5);
    expect(value('gpu_throttled_seconds_total', '{domain="gpu:1",reason="hardware-thermal"}')).toBe(0.25);
    expect([...families.get('kernwatt_gpu_info')!.samples.keys()]).toEqual([
      '{domain="gpu:0",name="NVIDIA H200",pci="0000:1b:00.0",uuid="GPU-fa4e0000-0000-4000-8000-000000000000"}',
      '{domain="gpu:1",name="NVIDIA H200",pci="0000:2b:00.0",uuid="GPU-fa4e0000-0000-4000-8000-000000000001"}',
    ]);
  });

  test('energy grows as the boards draw it', async () => {
    await using exporter = await openExporter({ sysfs: temporary() });
    const read = async () => {
      const energy = (await exporter.families()).find(({ name }) => name === 'kernwatt_energy_joules_total')!;
      expect(energy.samples.map(({ labels }) => labels)).toEqual(
        ['gpu:0', 'gpu:1'].map((domain) => ({ domain, source: 'nvml', scope: 'gpu' })),
      );
      return energy.samples.map(({ value }) => value);
    };
    await wait(600);
    const [begin, first] = [fake.now, await read()];
    await wait(3000);
    const [end, second] = [fake.now, await read()];
    for (const gpu of [0, 1]) {
      const [grown, truth] = [second[gpu]! - first[gpu]!, fake.joules(begin, end, gpu)];
      // Each reading may be half a second old.
      expect(Math.abs(grown - truth)).toBeLessThan((0.6 * truth) / (end - begin));
    }
    const rise = (second[1]! - first[1]!) / (second[0]! - first[0]!);
    expect(rise).toBeGreaterThan(1.3);
    expect(rise).toBeLessThan(2.1);
  });

  test('what is not known is absent, never 0, and a comment says why', async () => {
    fake.set({
      each: [{ deny: ['field:82', 'nvmlDeviceGetMemoryInfo_v2', 'nvmlDeviceGetMemoryInfo'] }, { lost_at: 0 }],
    });
    const { value, comments, families } = await scraped();
    expect(value('gpu_memory_used_bytes', '{domain="gpu:0"}')).toBe(undefined);
    expect(value('gpu_temperature_celsius', '{domain="gpu:0",sensor="memory"}')).toBe(undefined);
    expect(value('gpu_temperature_celsius', '{domain="gpu:0",sensor="gpu"}')).toBe(42);
    expect(comments).toContainEqual(expect.stringMatching(/^kernwatt: gpu:0 memory is denied \(/));
    expect(comments).toContainEqual(
      expect.stringMatching(/^kernwatt: cpu energy is unavailable: no folder .*powercap/),
    );
    const lost = [...families.values()].flatMap(({ samples }) => [...samples.keys()]);
    expect(lost.filter((labels) => labels.includes('"gpu:1"') && !labels.includes('uuid'))).toEqual([]);
    expect(comments).toContainEqual(expect.stringMatching(/lost/i));
  });

  test('no call of the driver is made by the thread of the event loop', async () => {
    const log = join(temporary(), 'calls');
    fake.set({ log });
    await scraped();
    fake.set({ log: undefined });
    const calls = readFileSync(log, 'utf8')
      .trim()
      .split('\n')
      .map((line) => line.split(' '));
    expect(calls.map(([name]) => name)).toContain('nvmlDeviceGetMemoryInfo_v2');
    // The first thread of a process has its number.
    expect(calls.filter(([, thread]) => Number(thread) === process.pid)).toEqual([]);
  });

  test('a divided GPU has no utilisation, and its energy is of the whole', async () => {
    fake.set({ each: [{ mig: 2 }, { power: 500 }] });
    const { value, families } = await scraped({ gpu: '0000:1b:00.0' });
    expect([...families.get('kernwatt_energy_joules_total')!.samples.keys()]).toEqual([
      '{domain="gpu:0",scope="physical-gpu",source="nvml"}',
    ]);
    expect(families.has('kernwatt_gpu_busy_ratio')).toBe(false);
    expect(value('gpu_power_watts', '{domain="gpu:0"}')).toBe(300);
  });
});

test('a CPU package is a counter of its own; one that stands still is no counter', async () => {
  await drawing(
    async (sysfs) => {
      const { families, comments } = await scraped({ sysfs }, () => wait(1600));
      const labels = [...families.get('kernwatt_energy_joules_total')!.samples.keys()];
      expect(labels).toContain('{domain="package-0",scope="package",source="powercap"}');
      expect(labels.filter((one) => one.includes('dram'))).toEqual([]);
      expect(comments).toContainEqual(expect.stringMatching(/^kernwatt: package-0\/dram energy is zero-stuck: /));
    },
    zone('intel-rapl:0:2', 'dram'),
  );
});

test('devices and pools of this process, while they are open', async () => {
  const device = await openDevice('cpu', { threads: 1, memoryLimit: 1 << 20 });
  const w = device.zeros([100]);
  const pool = gemm.pool({ m: 4, w: device.zeros([8, 8]) }, { slots: 2, queue: 5 });
  const options = { devices: [device], pools: { 'my "layer"': pool } };
  const { value, text } = await scraped(options);
  const { currentBytes, reservedBytes } = device.memory();
  expect(value('device_memory_used_bytes', '{device="cpu"}')).toBe(currentBytes);
  expect(value('device_memory_reserved_bytes', '{device="cpu"}')).toBe(reservedBytes);
  expect(value('device_memory_limit_bytes', '{device="cpu"}')).toBe(1 << 20);
  expect(value('pool_slots', '{device="cpu",pool="my \\"layer\\""}')).toBe(2);
  expect(value('pool_queue_slots', '{device="cpu",pool="my \\"layer\\""}')).toBe(5);
  expect(value('pool_memory_bytes', '{device="cpu",pool="my \\"layer\\""}')).toBe(pool.bytes);
  expect(text).toContain('kernwatt_pool_running_requests{pool="my \\"layer\\"",device="cpu"} 0\n');
  await pool.close();
  w.dispose();
  await device.close();
  const after = await scraped(options);
  expect([...after.families.keys()].filter((name) => /device|pool/.test(name))).toEqual([]);
});

test('options that make no sense, and a closed exporter', async () => {
  await expect(openExporter({ gpus: 1 } as never)).rejects.toThrow(/openExporter: gpus is no option, expected gpu/);
  await expect(openExporter({ gpu: 'first' })).rejects.toThrow(/openExporter: gpu is first, expected an index/);
  const exporter = await openExporter({ sysfs: temporary() });
  expect(exporter.contentType).toBe('text/plain; version=0.0.4; charset=utf-8');
  await exporter.close();
  await exporter.close();
  await expect(exporter.metrics()).rejects.toMatchObject({ code: 'ERR_KERNWATT_DISPOSED' });
});

describe('examples/metrics.mjs', () => {
  const start = async (env: Record<string, string>) => {
    const file = resolve(import.meta.dirname, '../../examples/metrics.mjs');
    const child: ChildProcess = spawn(process.execPath, [file], {
      env: { ...process.env, ...env, PORT: '0' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = await once(createInterface(child.stdout!), 'line');
    return { child, url: `http://127.0.0.1:${/^listening on (\d+), computing on \w+/.exec(line)![1]}` };
  };
  const stopped = async (child: ChildProcess) => {
    child.kill('SIGTERM');
    return (await once(child, 'exit'))[0];
  };

  test('answers scrapes, and nothing else', async () => {
    const { child, url } = await start(fake.env);
    const response = await fetch(`${url}/metrics`);
    expect(response.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
    const { families } = parse(await response.text());
    expect(families.get('kernwatt_energy_joules_total')!.samples.size).toBeGreaterThanOrEqual(2);
    expect(families.get('kernwatt_device_memory_used_bytes')!.samples.size).toBe(1);
    expect((await fetch(url)).status).toBe(404);
    expect(await stopped(child)).toBe(0);
  });

  test('without a driver it exports what there is', async () => {
    const { child, url } = await start({ KERNWATT_NVML_LIBRARY: '/nowhere/libnvidia-ml.so' });
    const { families, comments } = parse(await (await fetch(`${url}/metrics`)).text());
    expect([...families.keys()].filter((name) => name.includes('gpu'))).toEqual([]);
    expect(families.has('kernwatt_device_memory_used_bytes')).toBe(true);
    expect(comments).toContainEqual(expect.stringMatching(/^kernwatt: gpu energy is missing: .*fix: install/));
    expect(await stopped(child)).toBe(0);
  });
});
