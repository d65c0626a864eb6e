// Normalisation, ranks and the efficiency score against their definitions.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { exactly } from '../../src/report/pareto.js';
import { harmonic, normalise, ranks, scores } from '../../src/report/scores.js';

const numbers = fc.array(fc.double({ min: 0.001, max: 1000, noNaN: true }), { minLength: 1, maxLength: 8 });

test('Eq. 10 and 11: the best is 1, the worst 0.1, linear between; equal values are all 1', () => {
  expect(normalise([2, 4, 3], 'higher')).toEqual([0.1, 1, 0.55]);
  expect(normalise([2, 4, 3], 'lower')).toEqual([1, 0.1, 0.55]);
  expect(normalise([7, 7], 'lower')).toEqual([1, 1]);
});

test('normalised values lie in [0.1, 1] and do not depend on the unit', () => {
  fc.assert(
    fc.property(numbers, fc.constantFrom('lower' as const, 'higher' as const), (values, better) => {
      const one = normalise(values, better);
      const scaled = normalise(
        values.map((v) => 1024 * v),
        better,
      );
      for (const [i, v] of one.entries()) {
        expect(v).toBeGreaterThanOrEqual(0.1 - 1e-12);
        expect(v).toBeLessThanOrEqual(1);
        expect(scaled[i]).toBeCloseTo(v, 9);
      }
    }),
  );
});

test('Eq. 12: a weighted harmonic mean, between the smallest and the largest, blind to the scale of the weights', () => {
  expect(harmonic([1, 0.5], [1, 1])).toBeCloseTo(2 / 3);
  expect(harmonic([1, 0.5], [3, 0])).toBe(1);
  expect(harmonic([1], [0])).toBe(null);
  const unit = fc.array(fc.tuple(fc.double({ min: 0.1, max: 1, noNaN: true }), fc.integer({ min: 1, max: 9 })), {
    minLength: 1,
  });
  fc.assert(
    fc.property(unit, (pairs) => {
      const values = pairs.map(([v]) => v);
      const weights = pairs.map(([, w]) => w);
      const mean = harmonic(values, weights)!;
      expect(mean).toBeGreaterThanOrEqual(Math.min(...values) - 1e-12);
      expect(mean).toBeLessThanOrEqual(Math.max(...values) + 1e-12);
      expect(
        harmonic(
          values,
          weights.map((w) => 2 * w),
        ),
      ).toBeCloseTo(mean, 9);
    }),
  );
});

test('ranks: ordinal as in the paper, and what the intervals allow', () => {
  const around = (value: number, half: number) => ({ value, low: value - half, high: value + half });
  expect(ranks([around(1, 0.1), around(2, 0.6), around(2.5, 0.6), around(9, 0.1)], 'lower')).toEqual([
    { ordinal: 1, best: 1, worst: 1 },
    { ordinal: 2, best: 2, worst: 3 },
    { ordinal: 3, best: 2, worst: 3 },
    { ordinal: 4, best: 4, worst: 4 },
  ]);
  expect(ranks([exactly(5), exactly(5), exactly(4)], 'higher').map(({ ordinal }) => ordinal)).toEqual([1, 1, 3]);
});

test('a metric that one member lacks is left out for all', () => {
  const axes = [
    { name: 'a', better: 'lower', weight: 1 },
    { name: 'b', better: 'higher', weight: 1 },
  ] as const;
  const found = scores(
    [
      [exactly(1), exactly(1)],
      [exactly(2), null],
    ],
    axes,
  );
  expect(found.used).toEqual([0]);
  expect(found.members.map(({ score }) => score)).toEqual([1, 0.1]);
  const [first] = scores([[null, null]], axes).members;
  expect(first).toEqual({ normalised: [], ranks: [], score: null });
});
