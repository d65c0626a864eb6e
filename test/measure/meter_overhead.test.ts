// What a meter costs: interleaved ratios with intervals on a fake GPU meter, what the text makes of them, and no meter says why.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Device, openDevice } from '../../src/index.js';
import { meterOverhead, overheadText } from '../../src/measure/meter_overhead.js';
import { Fake } from '../nvml/fake.js';
import { madeUpMeter } from './meter.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

test('on the fake NVML: each kernel has a ratio near 1 with its interval, and the text says which meter', async () => {
  using _fake = await Fake.start({ tick_ms: 20 });
  const { domains, kernels, reason } = await meterOverhead(device, { seconds: 1 });
  // Where the CPU packages can be read, they are the meter of a CPU device.
  expect(domains.length).toBeGreaterThan(0);
  expect(reason).toBeNull();
  for (const { ratio, ci95, blocks, onSeconds, offSeconds } of kernels) {
    expect(blocks).toBeGreaterThanOrEqual(6);
    expect(onSeconds / offSeconds).toBeGreaterThan(0.5);
    expect(ratio).toBeGreaterThan(0.7);
    expect(ratio).toBeLessThan(1.4);
    expect(ci95![0]).toBeLessThanOrEqual(ratio);
    expect(ci95![1]).toBeGreaterThanOrEqual(ratio);
  }
  const text = overheadText({ domains: ['gpu:0'], reason, kernels });
  expect(text).toMatch(
    /^Time with the meter of gpu:0 on, over time with it off, in turns:\ngemm of one row, .* blocks: /,
  );
});

test('the text says whether 1 % is kept, broken, or lost in noise', () => {
  const text = (low: number, high: number) => {
    const kernel = { kernel: 'gemm', ratio: (low + high) / 2, ci95: [low, high] as [number, number], blocks: 9 };
    return overheadText({ domains: ['gpu:0'], reason: null, kernels: [{ ...kernel, onSeconds: 1, offSeconds: 1 }] });
  };
  expect(text(0.995, 1.005)).toMatch(/gemm: 1.0000, 95 % CI 0.9950 to 1.0050, 9 blocks: within 1 %$/);
  expect(text(1.15, 1.25)).toMatch(/: not within 1 %$/);
  expect(text(0.9, 1.1)).toMatch(/: too noisy to say whether it is within 1 %$/);
});

test('no counter: nothing is timed, and the reason is said', async () => {
  const domains = madeUpMeter().domains.map((one) => ({ ...one, state: 'denied' as const, reason: 'only root may' }));
  const none = await meterOverhead(device, {
    open: async () => ({ ...madeUpMeter(), domains, [Symbol.asyncDispose]: async () => {} }),
  });
  expect(none).toEqual({ domains: [], reason: 'gpu:0: only root may', kernels: [] });
  expect(overheadText(none)).toBe(
    'What a meter costs cannot be measured here, as no counter can be read: gpu:0: only root may',
  );
});
