// Arithmetic of ratios with errors: known values, and coverage on simulated runs.
import { describe, expect, test } from 'vitest';
import { fromInterval, holm, interval95, pAbove, pBelow, pooled, quotient } from '../../src/gate/ratio.js';
import { normal } from './records.js';

const exactly = (value: number) => fromInterval(value, [value, value], 10);

test('an interval comes back as it went in, also when it is not symmetric', () => {
  const [low, high] = interval95(fromInterval(1.1, [1.0, 1.15], 7));
  expect(low).toBeCloseTo(1.0, 9);
  expect(high).toBeCloseTo(1.15, 9);
});

test('a quotient has the errors of both, each on the side where it counts', () => {
  const a = fromInterval(2, [1.9, 2.4], 1e9);
  const b = fromInterval(1, [0.9, 1], 1e9);
  const [low, high] = interval95(quotient(a, b));
  expect(Math.log(2 / low)).toBeCloseTo(Math.log(2 / 1.9), 6);
  expect(Math.log(high / 2)).toBeCloseTo(Math.hypot(Math.log(2.4 / 2), Math.log(1 / 0.9)), 6);
  // Welch and Satterthwaite: equal errors add their degrees of freedom.
  const half = fromInterval(1, [1 / 1.1, 1.1], 4);
  expect(quotient(half, half).degrees).toBeCloseTo(8, 9);
  for (const end of interval95(quotient(exactly(3), exactly(2)))) expect(end).toBeCloseTo(1.5, 12);
});

test('probabilities: at the limit a half, exact ratios none or one, an interval that reaches below 0 never decides', () => {
  const one = fromInterval(1, [0.9, 1.1], 20);
  expect(pAbove(one, 1)).toBeCloseTo(0.5, 9);
  expect(pBelow(one, 1)).toBeCloseTo(0.5, 9);
  const [low, high] = interval95(one);
  expect(pAbove(one, low)).toBeCloseTo(0.025, 6);
  expect(pBelow(one, high)).toBeCloseTo(0.025, 6);
  expect([pAbove(exactly(2), 1), pAbove(exactly(1), 1), pBelow(exactly(1), 1), pBelow(exactly(2), 1)]).toEqual([
    0, 1, 0, 1,
  ]);
  expect(pAbove(fromInterval(5, [-1, 9], 4), 1)).toBeCloseTo(0.5, 9);
});

// Holm 1979: multiply by n, n - 1, ... in ascending order and never let it fall.
test('Holm', () => {
  expect(holm([0.01, 0.04, 0.03, 0.005])).toEqual([0.03, 0.06, 0.06, 0.02].map((p) => expect.closeTo(p, 12)));
  expect(holm([0.6, 0.7])).toEqual([1, 1]);
  expect(holm([])).toEqual([]);
});

describe('several runs on a side', () => {
  test('runs that differ by more than their own errors widen the interval, runs that agree narrow it', () => {
    const run = (value: number) => fromInterval(value, [value / 1.01, value * 1.01], 1e6);
    const width = (news: number[], bases: number[]) => {
      const [low, high] = interval95(pooled(news.map(run), bases.map(run)));
      return Math.log(high / low) / 2;
    };
    const single = width([1], [1]);
    expect(single).toBeCloseTo(Math.SQRT2 * Math.log(1.01), 6);
    expect(width([1, 1, 1, 1], [1, 1, 1, 1])).toBeCloseTo(single / 2, 6);
    expect(width([0.9, 1, 1.1], [0.9, 1, 1.1])).toBeGreaterThan(10 * single);
  });

  test('covers the truth in 95 % of runs that differ by 2 % each, where a single run on a side does not', () => {
    const trials = 2000;
    const covered = (runs: number) => {
      let inside = 0;
      for (let trial = 0; trial < trials; trial++) {
        const next = normal(100 + trial);
        const run = () => {
          const log = 0.02 * next() + 0.005 * next();
          return fromInterval(Math.exp(log), [Math.exp(log - 0.0098), Math.exp(log + 0.0098)], 1e6);
        };
        const side = () => Array.from({ length: runs }, run);
        const [low, high] = interval95(pooled(side(), side()));
        if (low <= 1 && 1 <= high) inside++;
      }
      return inside / trials;
    };
    expect(covered(3)).toBeGreaterThan(0.935);
    expect(covered(3)).toBeLessThan(0.97);
    expect(covered(1)).toBeLessThan(0.6);
  });
});
