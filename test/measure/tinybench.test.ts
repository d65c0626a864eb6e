// Device time under tinybench, and what an empty call into C++ is.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { Bench } from 'tinybench';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Device, emptyNativeCall, gemm, openDevice } from '../../src/index.js';
import { deviceTask } from '../../src/measure/tinybench.js';

const root = resolve(import.meta.dirname, '../..');

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

test('a task gives the device time of one call, and what the sample really took', async () => {
  using plan = gemm.bind({ x: device.full([64, 64], 1), w: device.full([64, 64], 1) });
  const { overriddenDuration, overriddenIterationCost } = await deviceTask(plan, 50)();
  expect(overriddenDuration).toBeGreaterThan(0);
  // Fifty calls fit into the time that the sample took.
  expect(50 * overriddenDuration).toBeLessThan(overriddenIterationCost);
});

test('tinybench takes the duration as the sample, and its time budget from what the sample cost', async () => {
  using plan = gemm.bind({ x: device.full([256, 256], 1), w: device.full([256, 256], 1) });
  const task = deviceTask(plan, 20);
  const taken: Awaited<ReturnType<typeof task>>[] = [];
  const noted = async () => {
    taken.push(await task());
    return taken.at(-1)!;
  };
  const bench = new Bench({ iterations: 5, time: 100, warmup: false, retainSamples: true }).add('gemm', noted);
  await bench.run();
  const { result } = bench.tasks[0]!;
  if (result.state !== 'completed') throw new Error(result.state);
  expect([...result.latency.samples!]).toEqual(taken.map((one) => one.overriddenDuration).sort((a, b) => a - b));
  // By device time it would go on for twenty times as long.
  const costs = taken.map((one) => one.overriddenIterationCost);
  const sum = costs.reduce((a, b) => a + b);
  expect(sum).toBeGreaterThanOrEqual(100);
  expect(sum - costs.at(-1)!).toBeLessThan(100);
});

test('what the plan refuses ends up in the result of the task', async () => {
  const plan = gemm.bind({ x: device.full([4, 4], 1), w: device.full([4, 4], 1) });
  plan.dispose();
  const bench = new Bench({ iterations: 1, time: 1, warmup: false }).add('gemm', deviceTask(plan));
  await bench.run();
  expect(bench.tasks[0]!.result).toMatchObject({ state: 'errored', error: { code: 'ERR_KERNWATT_DISPOSED' } });
});

test('examples/micro-bench.mjs, as a user runs it', () => {
  const args = ['dist/cli/main.js', 'bench', './examples/micro-bench.mjs', '--backend', 'cpu', '--json'];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(status).toBe(0);
  const rows = JSON.parse(stdout).result as Record<string, string>[];
  expect(rows.map((row) => row['Task name'])).toEqual(['on the device', 'await plan.run()']);
  for (const row of rows) expect(Number.parseFloat(row['Latency med (ns)']!)).toBeGreaterThan(1000);
});

test('the empty call does nothing', () => {
  expect(emptyNativeCall()()).toBeUndefined();
});
