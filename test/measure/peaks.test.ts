// Ceilings: measured once, by what there is to measure, and never in the memory of the caller.
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Device, openDevice } from '../../src/index.js';
import { peakOf, peaksFor } from '../../src/measure/peaks.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu', { threads: 1, memoryLimit: 2 ** 20 });
});
afterAll(() => device.close());

test('are rates with a source, leave no trace in the memory of the device, and ignore its limit', async () => {
  const { flops, bandwidth, spec } = await peaksFor(device, 'f32', 0.05);
  expect(flops).toMatchObject({ kind: 'flops', name: 'fma_f32', unit: 'FLOP/s', source: 'empirical' });
  expect(bandwidth).toMatchObject({ kind: 'bandwidth', name: 'read', unit: 'B/s', source: 'empirical' });
  for (const peak of [flops, bandwidth]) expect(peak.value).toBeGreaterThan(1e8);
  expect(spec).toEqual([]);
  expect(device.memory()).toMatchObject({ currentBytes: 0, peakBytes: 0, reservedPeakBytes: 0 });
});

test('are measured once, and again only on demand, when the larger is kept', async () => {
  const first = await peakOf(device, 'fma_f32', 0.05);
  expect(await peakOf(device, 'fma_f32', 0.05)).toEqual(first);
  const again = await peakOf(device, 'fma_f32', 0.05, true);
  expect(again.value).toBeGreaterThanOrEqual(first.value!);
});

test('of 16-bit operands are those of an instruction, or of f32 where there is none or it is slower', async () => {
  await using plain = await openDevice('cpu', { threads: 1, isa: 'generic' });
  expect(await peakOf(plain, 'dot_bf16', 0.05)).toMatchObject({
    value: null,
    reason: 'cpu has no instruction for dot_bf16: it multiplies in f32',
  });
  for (const dtype of ['bf16', 'f16'] as const)
    expect((await peaksFor(plain, dtype, 0.05)).flops).toMatchObject({ name: 'fma_f32' });
  const best = await peaksFor(device, 'bf16', 0.05);
  const [dot, fma] = [await peakOf(device, 'dot_bf16', 0.05), await peakOf(device, 'fma_f32', 0.05)];
  expect(best.flops.value).toBe(Math.max(dot.value ?? 0, fma.value!));
});
