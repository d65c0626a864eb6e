// Who waits for a driver that takes its time: never the event loop, and no GPU for another. Workers that end meanwhile, processes
// that exit meanwhile, and what importing loads.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, expect, test } from 'vitest';
import { type Gpu, openNvml } from '../../src/nvml/index.js';
import { Fake } from './fake.js';

let fake: Fake | undefined;
afterEach(() => fake?.stop());

const logs = mkdtempSync(join(tmpdir(), 'kernwatt-nvml-'));
afterAll(() => rmSync(logs, { recursive: true }));

const dist = (file: string) => pathToFileURL(resolve(import.meta.dirname, '../../dist', file)).href;

/** Runs a module in which `openNvml` is imported. */
function child(body: string) {
  const code = `import { openNvml } from ${JSON.stringify(dist('nvml/index.js'))};\n${body}`;
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', code], {
    encoding: 'utf8',
    timeout: 50_000,
  });
  return { status, signal, stdout, stderr };
}

test('the event loop turns while a query waits for the driver; a blocking one stops it', async () => {
  const milliseconds = 400;
  fake = await Fake.start({ slow_ms: { nvmlDeviceGetPowerUsage: milliseconds } });
  const gpu = await (await openNvml()).device(0);
  let turns = 0;
  const timer = setInterval(() => ++turns, 5);
  const begin = performance.now();
  expect(await gpu.power()).toBe(250);
  expect(performance.now() - begin).toBeGreaterThan(milliseconds - 5);
  expect(turns).toBeGreaterThan(10);
  turns = 0;
  const from = performance.now();
  expect(gpu.sync.power()).toBe(250);
  expect(performance.now() - from).toBeGreaterThan(milliseconds - 5);
  expect(turns).toBe(0);
  clearInterval(timer);
});

test('a GPU that hangs keeps no other waiting, and no blocking query', async () => {
  fake = await Fake.start({ gpus: 2, each: [{ slow_ms: { nvmlDeviceGetPowerUsage: 600 } }, {}] });
  const [slow, quick] = (await (await openNvml()).devices()) as [Gpu, Gpu];
  const order: string[] = [];
  const first = slow.power().then(() => order.push('slow'));
  slow.sync.temperature();
  order.push('blocking');
  await quick.power();
  order.push('quick');
  await first;
  expect(order).toEqual(['blocking', 'quick', 'slow']);
});

test('promises are asked on a thread of ours, blocking queries on the caller', async () => {
  fake = await Fake.start({});
  const gpu = await (await openNvml()).device(0);
  const log = join(logs, 'threads');
  fake.set({ log });
  await gpu.power();
  gpu.sync.power();
  const threads = readFileSync(log, 'utf8')
    .trim()
    .split('\n')
    .filter((line) => line.startsWith('nvmlDeviceGetPowerUsage '))
    .map((line) => Number(line.split(' ')[1]));
  expect(threads).toHaveLength(2);
  expect(threads[0]).not.toBe(process.pid); // the main thread has the process's id
  expect(threads[1]).toBe(process.pid);
});

test('a driver that is not ready is asked again, four times in all', async () => {
  fake = await Fake.start({});
  const gpu = await (await openNvml()).device(0);
  const log = join(logs, 'retry');
  fake.set({ log, fail: { nvmlDeviceGetVbiosVersion: 27 } });
  await expect(gpu.vbios()).rejects.toMatchObject({ state: 'unavailable', status: 27 });
  expect(readFileSync(log, 'utf8').match(/nvmlDeviceGetVbiosVersion/g)).toHaveLength(4);
});

test('many at once from several workers, which are terminated meanwhile', async () => {
  fake = await Fake.start({ gpus: 3, slow_ms: { nvmlDeviceGetPowerUsage: 15, nvmlGpmSampleGet: 5 } });
  const worker = `
    import { parentPort } from 'node:worker_threads';
    import { openNvml } from ${JSON.stringify(dist('nvml/index.js'))};
    const gpus = await (await openNvml()).devices();
    const ask = () => gpus.flatMap((gpu) => [gpu.power(), gpu.energy(), gpu.memory(), gpu.gpmSample(), gpu.fields([83, 186])]);
    await Promise.all(ask());
    parentPort.postMessage('answered');
    for (;;) await Promise.all([...ask(), ...ask()]);
  `;
  const { status, stdout, stderr } = child(`
    import { Worker } from 'node:worker_threads';
    const code = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
    const workers = Array.from({ length: 4 }, () => new Worker(code));
    await Promise.all(workers.map((one) => new Promise((done, fail) => one.once('message', done).once('error', fail))));
    const gpu = await (await openNvml()).device(1);
    const mine = Promise.all(Array.from({ length: 20 }, () => gpu.energy()));
    await Promise.all(workers.map((one) => one.terminate()));
    console.log((await mine).every((joules) => joules >= 5000), await gpu.instantPower());
  `);
  expect({ status, stdout, stderr }).toEqual({ status: 0, stdout: 'true 250\n', stderr: '' });
});

test('a process exits while the driver has not answered', async () => {
  fake = await Fake.start({ slow_ms: { nvmlDeviceGetPowerUsage: 60_000 } });
  const begin = performance.now();
  const body = 'const gpu = await (await openNvml()).device(0); gpu.power(); setTimeout(() => process.exit(7), 50);';
  expect(child(body)).toMatchObject({ status: 7, signal: null, stderr: '' });
  expect(performance.now() - begin).toBeLessThan(20_000);
});

test('importing loads neither the addon nor NVML; without a driver the error says what was tried and what to do', () => {
  const loaded =
    'process.report.getReport().sharedObjects.filter((one) => /kernwatt.node|nvml|nvidia-ml/.test(one)).length';
  const { stdout } = child(`
    console.log(${loaded});
    process.env.KERNWATT_NVML_LIBRARY = '/nowhere/libnvidia-ml.so.1';
    const { code, state, status, fix, message } = await openNvml().catch((error) => error);
    console.log(JSON.stringify({ code, state, status, fix, message }), ${loaded});
  `);
  const [before, after] = stdout.split('\n');
  expect(before).toBe('0');
  const [, error, count] = /^(.*) (\d)$/.exec(after!)!;
  expect(count).toBe('1');
  expect(JSON.parse(error!)).toEqual({
    code: 'ERR_KERNWATT_NVML',
    state: 'missing',
    status: null,
    fix: expect.stringMatching(/install the NVIDIA driver.*--gpus all/),
    message: expect.stringMatching(
      /^openNvml: NVML is missing \(.*\/nowhere\/libnvidia-ml\.so\.1: cannot open.*expected one that loads; install/,
    ),
  });
});

test.each([
  [9, 'missing', /modprobe/],
  [18, 'missing', /restart/],
  [4, 'denied', /root/],
])('a driver that answers %d on opening, and then recovers', async (status, state, fix) => {
  // A library of its own, as one that is open stays open.
  fake = await Fake.start({ missing: [`nvmlNothing${status}`], fail: { nvmlInit_v2: status } });
  await expect(openNvml()).rejects.toMatchObject({ state, status, fix: expect.stringMatching(fix) });
  fake.set({ fail: undefined });
  expect(await (await openNvml()).devices()).toHaveLength(1);
});
