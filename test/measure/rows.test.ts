// Which rows a correctness check looks at.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { sampleRows } from '../../src/measure/correctness.js';

test('first and last row and both sides of tile edges come first', () => {
  const rows = sampleRows(1000, 20, 1);
  expect(rows.slice(0, 2)).toEqual([0, 999]);
  for (const row of [7, 8, 63, 64, 127, 128, 255, 256]) expect(rows).toContain(row);
});

test('no row twice, none outside, as many as wanted and there are', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 1, max: 300 }), fc.nat(), (rows, most, seed) => {
      const chosen = sampleRows(rows, most, seed);
      expect(new Set(chosen).size).toBe(chosen.length);
      expect(chosen.length).toBe(Math.min(rows, most));
      expect(chosen.every((row) => Number.isInteger(row) && row >= 0 && row < rows)).toBe(true);
    }),
  );
});

test('the same seed chooses the same rows', () => {
  expect(sampleRows(10_000, 64, 5)).toEqual(sampleRows(10_000, 64, 5));
  expect(sampleRows(10_000, 64, 5)).not.toEqual(sampleRows(10_000, 64, 6));
});
