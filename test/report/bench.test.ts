// The tables of bench from made-up records: what is wrong shows as wrong, what is unknown as unknown.
import { expect, test } from 'vitest';
import { known } from '../../src/measure/quantity.js';
import { benchReport } from '../../src/report/bench.js';
import { quantity } from '../../src/report/format.js';
import { clock, metered, observed, record } from '../measure/record.js';

test('a right record: rates, the share of the peak that bounds it, the six metrics', () => {
  const text = benchReport([record()]);
  expect(text).toMatch(
    /^made up +m=10 rowsW=20 k=30 +f32 +avx2 +cold +20\.0 ms +±0\.0 % +50\.0 +0\.500 +50\.0 % fma_f32$/m,
  );
  expect(text).toMatch(
    /^made up +avx2 +cold +0\.0186 \| n\/a +n\/a \| 50\.0 % +21\.0 ms \| 20\.0 ms +0\.794 +476 +\| 500 +n\/a \| n\/a +n\/a \| n\/a$/m,
  );
  expect(text.match(/^FLOP of gemm: 2 batch m rowsW k for the product; the epilogue is not counted$/gm)).toHaveLength(
    1,
  );
  expect(text).toMatch(/^peak fma_f32 on cpu: 100 GFLOP\/s, empirical: a test$/m);
  expect(text).toMatch(/^n\/a MCR: w is stored as it came/m);
});

test('work bound by memory is set against bandwidth', () => {
  const text = benchReport([record({}, { work: { flops: 1e7, minBytes: 1e8, tokens: 1, params: 1 } })]);
  expect(text).toMatch(/50\.0 % read$/m);
});

test('a wrong result says so and shows no number', () => {
  const failed = { ...observed.correctness, state: 'failed', reason: 'y[row 0, column 0] is 1, expected 2' } as const;
  const text = benchReport([record({ correctness: failed }), record()]);
  expect(text).toMatch(/^made up +m=10 rowsW=20 k=30 +f32 +avx2 +INVALID$/m);
  expect(text).toMatch(/^INVALID made up: y\[row 0, column 0\] is 1, expected 2$/m);
  // One row of metrics: that of the right one.
  expect(text.match(/^made up +avx2 +cold/gm)).toHaveLength(1);
  expect(benchReport([record({ correctness: failed })])).not.toContain('six metrics');
});

test('energy is set against the least that work can take, where a calibration knows it', () => {
  expect(benchReport([record()])).not.toContain('least');
  const calibration = {
    joulesPerFlop: known(1e-10, 'J/FLOP', 'a test'),
    joulesPerByte: known(1e-9, 'J/B', 'a test'),
    constantW: known(10, 'W', 'a test'),
    source: 'calibration 1a2b3c4d of 2026-01-02 on this device',
  };
  const one = record({ energy: metered([1.2, 1.2]), calibration });
  const text = benchReport([one, record()]);
  expect(text).toContain(
    'Energy against the least that work can take: operations, bytes and busy time at the costs of calibration 1a2b3c4d',
  );
  const { energyFloorJ, energyEfficiency } = one.roofline!;
  const row = new RegExp(`^made up +avx2 +cold +${quantity(energyFloorJ)} .* ${quantity(energyEfficiency)}$`, 'm');
  expect(text).toMatch(row);
  expect(text.match(new RegExp(row.source, 'gm'))).toHaveLength(1);
});

test('reasons are said once, not once for each row', () => {
  const text = benchReport([record(), record(), record({ times: { device: clock(0.01) } })]);
  expect(text.match(/a test has no meter/g)).toHaveLength(1);
  expect(text).toMatch(/^n\/a AL, AT: the host clock was not read/m);
});
