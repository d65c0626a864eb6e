// The roofline of plan.explain(): what a call costs at least, by ceilings that were measured or are nominal, and how to know them.
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { identify, writeCalibration } from '../src/calibrate/cache.js';
import type { Calibration } from '../src/calibrate/calibration.js';
import { roofOf } from '../src/ceilings.js';
import { calibrate, type Device, type DType, gemm, openDevice } from '../src/index.js';
import { librarySearch } from '../src/library.js';
import { type Peak, peaksFor } from '../src/measure/peaks.js';
import { missing } from '../src/measure/quantity.js';

let device: Device;
beforeAll(async () => {
  device = await openDevice('cpu');
});
afterAll(() => device.close());

const roofline = (on: Device, dtype: DType, m: number, n: number, k: number) => {
  using plan = gemm.bind({ x: on.random([m, k], dtype), w: on.random([n, k], dtype) });
  return plan.explain().roofline!;
};

test('counts operations and bytes, and says how to know the ceilings', () => {
  expect(roofline(device, 'bf16', 2, 3, 5)).toEqual({
    flops: 60,
    bytes: 2 * (2 * 5 + 3 * 5 + 2 * 3),
    intensity: 60 / 62,
    boundBy: null,
    floorSeconds: null,
    predictedShare: null,
    ceilings: 'unknown',
    reason: 'this process knows no ceilings of cpu: await calibrate(device) reads or measures them',
  });
  expect(roofline(device, 'f32', 0, 0, 5)).toMatchObject({ intensity: null, reason: 'there is nothing to compute' });
});

test('the longer of two times decides', () => {
  expect(roofOf(1000, 10, 100, 2)).toEqual({ intensity: 100, boundBy: 'compute', floorSeconds: 10 });
  expect(roofOf(100, 10, 100, 2)).toEqual({ intensity: 10, boundBy: 'bandwidth', floorSeconds: 5 });
});

test('knows what was measured in this process, for the element types it was measured for', async () => {
  await using own = await openDevice('cpu');
  const { flops, bandwidth } = await peaksFor(own, 'f32', 0.05);
  const [compute, traffic] = [flops as Peak, bandwidth as Peak];
  for (const [m, boundBy] of [
    [1, 'bandwidth'],
    [512, 'compute'],
  ] as const) {
    const found = roofline(own, 'f32', m, 512, 512);
    expect(found).toMatchObject({ boundBy, ceilings: 'measured' });
    expect(found.floorSeconds).toBe(Math.max(found.flops / compute.value, found.bytes / traffic.value));
    expect(found.reason).toMatch(/^fma_f32 [\d.]+ [GT]FLOP\/s, read [\d.]+ GB\/s$/);
  }
  // 16-bit numbers may have a higher ceiling, which nobody has measured here.
  expect(roofline(own, 'f16', 8, 8, 8).ceilings).toBe('unknown');
});

test('calibrate() brings what is kept of an earlier run', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'kernwatt-ceilings-'));
  const peak = (name: string, value: number): Peak => ({
    kind: name === 'read' ? 'bandwidth' : 'flops',
    name,
    value,
    unit: name === 'read' ? 'B/s' : 'FLOP/s',
    source: 'empirical',
    provenance: 'made up',
  });
  const cost = missing('J', 'not metered');
  await using own = await openDevice('cpu');
  const calibration: Calibration = {
    schema: 'kernwatt.calibration/1',
    id: 'made-up',
    createdAt: new Date(0).toISOString(),
    identity: await identify(own),
    device: { name: 'cpu', product: 'made up' },
    peaks: [peak('fma_f32', 2e12), peak('dot_bf16', 1e12), peak('read', 1e11)],
    missing: [{ name: 'dot_f16', reason: 'there is none' }],
    energy: {
      joulesPerFlop: { fma_f32: cost, dot_f16: cost, dot_bf16: cost },
      joulesPerByte: cost,
      constantW: cost,
      fit: null,
      loads: [],
      includes: [],
      caveats: [],
      unread: [],
    },
  };
  expect(writeCalibration(calibration, folder).note).toBeNull();
  expect((await calibrate(own, { cache: folder })).cached).toBe(true);
  // Dot products that are slower than f32, or missing, do not decide.
  for (const dtype of ['f32', 'bf16', 'f16'] as const)
    expect(roofline(own, dtype, 1024, 1024, 1024)).toMatchObject({
      boundBy: 'compute',
      floorSeconds: 2 ** 31 / 2e12,
      reason: 'fma_f32 2.00 TFLOP/s, read 100 GB/s',
    });
  rmSync(folder, { recursive: true });
});

test.runIf(librarySearch('emu').some(({ path }) => existsSync(path)))(
  'an emulated device has the nominal ceilings of its architecture, and the share that is predicted',
  async () => {
    await using emulated = await openDevice('emu');
    const found = roofline(emulated, 'bf16', 1, 512, 1024);
    expect(found).toMatchObject({
      boundBy: 'bandwidth',
      ceilings: 'nominal',
      reason: 'clocks typical of the architecture',
    });
    expect(found.floorSeconds).toBeGreaterThan(found.bytes / 1e12);
    expect(found.predictedShare).toBeGreaterThan(0);
    expect(found.predictedShare).toBeLessThanOrEqual(1);
  },
);
