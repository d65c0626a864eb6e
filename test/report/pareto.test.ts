// Fronts under uncertainty, held against the textbook definition where numbers are exact.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dominates, type Estimate, exactly, flipped, front, order, type Point } from '../../src/report/pareto.js';

const around = (value: number, half: number): Estimate => ({ value, low: value - half, high: value + half });
const value = fc.integer({ min: 0, max: 6 });
const estimate = fc.tuple(value, fc.integer({ min: 0, max: 2 })).map(([v, half]) => around(v, half));
const cell = fc.oneof({ weight: 9, arbitrary: estimate }, { weight: 1, arbitrary: fc.constant(null) });
const points = (one: fc.Arbitrary<Estimate | null>) =>
  fc
    .integer({ min: 1, max: 4 })
    .chain((axes) => fc.array(fc.array(one, { minLength: axes, maxLength: axes }), { maxLength: 14 }));

test('intervals that overlap decide nothing, the very same number is a tie, an unknown interval is not an exact number', () => {
  expect(order(around(1, 0.1), around(2, 0.1))).toBe(-1);
  expect(order(around(2, 0.1), around(1, 0.1))).toBe(1);
  expect(order(around(1, 0.6), around(2, 0.6))).toBe(null);
  expect(order(exactly(3), exactly(3))).toBe(0);
  expect(order({ value: 1, low: null, high: null }, exactly(9))).toBe(null);
  expect(order(flipped(around(1, 0.1)), flipped(around(2, 0.1)))).toBe(1);
});

describe('domination', () => {
  test('worse on every axis, or tied on some, with separated intervals', () => {
    expect(dominates([around(1, 0.1), exactly(5)], [around(2, 0.1), exactly(5)])).toBe(true);
    expect(dominates([around(1, 0.1), exactly(6)], [around(2, 0.1), exactly(5)])).toBe(false);
    expect(dominates([around(1, 0.6), exactly(4)], [around(2, 0.6), exactly(5)])).toBe(false);
    expect(dominates([exactly(5)], [exactly(5)])).toBe(false);
    expect(dominates([around(1, 0), null], [around(2, 0), exactly(5)])).toBe(false);
  });

  test('never both ways, never by what it itself is, and transitive', () => {
    fc.assert(
      fc.property(points(cell), (all) => {
        for (const a of all)
          for (const b of all) {
            if (!dominates(a, b)) continue;
            expect(dominates(b, a)).toBe(false);
            for (const c of all) if (dominates(b, c)) expect(dominates(a, c)).toBe(true);
          }
      }),
    );
  });
});

describe('front', () => {
  /** By the definition, every pair. */
  const slow = (all: readonly Point[]): boolean[] => all.map((b) => !all.some((a) => dominates(a, b)));

  test('is what comparing every pair gives, names a winner on the front, and is never empty', () => {
    fc.assert(
      fc.property(points(cell), (all) => {
        const by = front(all);
        expect(by.map((winner) => winner === null)).toEqual(slow(all));
        for (const [i, winner] of by.entries()) {
          if (winner === null) continue;
          expect(by[winner]).toBe(null);
          expect(dominates(all[winner]!, all[i]!)).toBe(true);
        }
        if (all.length > 0) expect(by).toContain(null);
      }),
    );
  });

  test('of exact numbers is the textbook front: nothing at least as good everywhere and better somewhere', () => {
    fc.assert(
      fc.property(points(value.map(exactly)), (all) => {
        const numbers = all.map((point) => point.map((one) => one!.value));
        const beaten = numbers.map((b) =>
          numbers.some((a) => a.every((x, i) => x <= b[i]!) && a.some((x, i) => x < b[i]!)),
        );
        expect(front(all).map((winner) => winner !== null)).toEqual(beaten);
      }),
    );
  });

  test('less certainty never throws anyone off', () => {
    const wider = (one: Estimate | null) => one && { ...one, low: one.low! - 1, high: one.high! + 1 };
    fc.assert(
      fc.property(points(cell), (all) => {
        const before = front(all);
        const after = front(all.map((point) => point.map(wider)));
        // An exact tie that becomes an overlap only makes domination rarer.
        for (const [i, winner] of before.entries()) if (winner === null) expect(after[i]).toBe(null);
      }),
    );
  });

  test('does not depend on the order of points or on units', () => {
    const scaled = (one: Estimate | null) => one && { value: 8 * one.value, low: 8 * one.low!, high: 8 * one.high! };
    fc.assert(
      fc.property(points(cell), (all) => {
        const on = front(all).map((winner) => winner === null);
        expect(front(all.map((point) => point.map(scaled))).map((w) => w === null)).toEqual(on);
        expect(front([...all].reverse()).map((w) => w === null)).toEqual([...on].reverse());
      }),
    );
  });
});
