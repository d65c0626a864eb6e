// Device time under tinybench, and what an empty call into C++ is.
import { Bench } from 'tinybench';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Device, deviceTask, emptyNativeCall, gemm, openDevice } from '../../src/index.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

test('a task gives the device time of one call, and what the sample really took', async () => {
  const plan = gemm.bind({ x: device.full([64, 64], 1), w: device.full([64, 64], 1) });
  const { overriddenDuration, overriddenIterationCost } = await deviceTask(plan, 50)();
  expect(overriddenDuration).toBeGreaterThan(0);
  // Fifty calls fit into the time that the sample took.
  expect(50 * overriddenDuration).toBeLessThan(overriddenIterationCost);
  const bench = new Bench({ iterations: 5, time: 1, warmup: false }).add('gemm', deviceTask(plan));
  await bench.run();
  const { result } = bench.tasks[0]!;
  expect(result).toMatchObject({ state: 'completed' });
  plan.dispose();
});

test('the empty call does nothing', () => {
  expect(emptyNativeCall()()).toBeUndefined();
});
