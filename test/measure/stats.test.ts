// Statistics against values known from tables and against simulated noise whose truth is known.
import { describe, expect, test } from 'vitest';
import {
  inefficiency,
  median,
  medianInterval,
  medianRank,
  quantile,
  relativeHalfWidth,
  studentT95,
  summarize,
} from '../../src/measure/stats.js';
import { randomSource, shuffle } from '../../src/random.js';

/** Standard normal numbers by the polar method. */
function normal(seed: number): () => number {
  const next = randomSource(seed);
  return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

describe('order statistics', () => {
  test('quantiles interpolate as R type 7', () => {
    const sorted = [1, 2, 4, 8];
    expect([0, 0.25, 0.5, 0.75, 1].map((p) => quantile(sorted, p))).toEqual([1, 1.75, 3, 5, 8]);
    expect(quantile([7], 0.3)).toBe(7);
    expect(quantile([], 0.5)).toBeNaN();
  });

  test('a summary of known numbers', () => {
    const stat = summarize([2, 4, 4, 4, 5, 5, 7, 9]);
    expect(stat).toMatchObject({ n: 8, min: 2, median: 4.5, mean: 5, q1: 4, q3: 5.5, max: 9, mad: 0.5 });
    expect(stat.sd).toBeCloseTo(Math.sqrt(32 / 7), 12);
    expect(stat.ci95Median).toEqual([2, 9]);
  });

  test('samples that do not vary have a point as interval and no autocorrelation', () => {
    expect(summarize(new Array(20).fill(3))).toMatchObject({
      sd: 0,
      mad: 0,
      ac1: 0,
      ci95Median: [3, 3],
      ci95Mean: [3, 3],
    });
  });

  test('too few samples claim no interval', () => {
    expect(summarize([1]).ci95Mean).toBeNull();
    expect(summarize([1, 2, 3, 4, 5]).ci95Median).toBeNull();
    expect(relativeHalfWidth(null, 1)).toBe(Number.POSITIVE_INFINITY);
  });

  test('nothing, and what is not finite, is refused', () => {
    expect(() => summarize([])).toThrow(/samples is empty/);
    expect(() => summarize([1, Number.NaN])).toThrow(/samples\[1\] is NaN/);
  });

  // Conover, Practical Nonparametric Statistics, table A3: ranks of the 95 % sign-test interval.
  test.each([
    [5, 0],
    [6, 1],
    [8, 1],
    [9, 2],
    [10, 2],
    [15, 4],
    [20, 6],
    [25, 8],
    [30, 10],
    [40, 14],
    [50, 18],
    [100, 40],
  ])('%i samples: rank %i', (n, rank) => expect(medianRank(n)).toBe(rank));

  test('the rank approaches the normal approximation for many samples', () => {
    expect(Math.abs(medianRank(10001) - (5000.5 - 0.98 * Math.sqrt(10001)))).toBeLessThan(2);
  });

  // Any table of Student's t, two-sided 95 %.
  test.each([
    [1, 12.706],
    [2, 4.303],
    [3, 3.182],
    [5, 2.571],
    [10, 2.228],
    [30, 2.042],
    [1000, 1.962],
  ])('t with %i degrees of freedom is %f', (degrees, value) =>
    expect(Math.abs(studentT95(degrees) / value - 1)).toBeLessThan(0.005),
  );
});

describe('dependence', () => {
  test('independent samples are worth themselves, a first-order process what theory says', () => {
    const noise = normal(5);
    expect(inefficiency(Float64Array.from({ length: 20000 }, noise))).toBeLessThan(1.1);
    let state = 0;
    const series = Float64Array.from({ length: 20000 }, () => {
      state = 0.6 * state + noise();
      return state;
    });
    const theory = (1 + 0.6) / (1 - 0.6);
    expect(Math.abs(inefficiency(series) / theory - 1)).toBeLessThan(0.2);
    expect(summarize(series).ac1).toBeCloseTo(0.6, 1);
  });

  test('alternating samples earn no narrower interval', () => {
    expect(inefficiency(Float64Array.from({ length: 100 }, (_, i) => i % 2))).toBe(1);
  });

  test('dependence widens the interval of the median, and can void it', () => {
    const sorted = Float64Array.from({ length: 100 }, (_, i) => i);
    const wide = medianInterval(sorted, 25)!;
    const narrow = medianInterval(sorted, 100)!;
    expect(wide[1] - wide[0]).toBeGreaterThan(1.8 * (narrow[1] - narrow[0]));
    expect(medianInterval(sorted, 2)).toBeNull();
  });
});

describe('coverage of the 95 % intervals on noise with known truth', () => {
  const trials = 1000;
  /** Share of trials in which each interval that was claimed contains the truth. */
  function coverage(
    n: number,
    draw: (next: () => number, i: number) => number,
    truth: { median: number; mean: number },
  ) {
    let medians = 0;
    let means = 0;
    let claimed = 0;
    for (let trial = 0; trial < trials; trial++) {
      const next = normal(1000 + trial);
      const stat = summarize(Float64Array.from({ length: n }, (_, i) => draw(next, i)));
      if (stat.ci95Median) {
        claimed++;
        const [low, high] = stat.ci95Median;
        if (low <= truth.median && truth.median <= high) medians++;
      }
      const [from, to] = stat.ci95Mean!;
      if (from <= truth.mean && truth.mean <= to) means++;
    }
    expect(claimed / trials).toBeGreaterThan(0.95);
    return { median: medians / claimed, mean: means / trials };
  }
  // Three standard errors of a share of 0.95 over 1000 trials are 0.021.
  const least = 0.925;

  test.each([10, 31, 200])('normal noise, %i samples', (n) => {
    const share = coverage(n, (next) => 10 + next(), { median: 10, mean: 10 });
    expect(share.median).toBeGreaterThan(least);
    expect(share.mean).toBeGreaterThan(least);
    expect(share.median).toBeLessThan(0.999);
  });

  test('timings with a long tail: one in twenty samples is interrupted', () => {
    const draw = (next: () => number) => 10 + 0.1 * Math.abs(next()) + (next() > 1.645 ? 5 : 0);
    const sample = Float64Array.from(
      { length: 200001 },
      (
        (next) => () =>
          draw(next)
      )(normal(1)),
    );
    expect(coverage(100, draw, { median: median(sample), mean: 0 }).median).toBeGreaterThan(least);
  });

  test('a processor whose speed wanders (first-order dependence 0.5)', () => {
    let state = 0;
    const draw = (next: () => number, i: number) => {
      state = (i === 0 ? 0 : 0.5 * state) + next();
      return 10 + state;
    };
    const share = coverage(200, draw, { median: 10, mean: 10 });
    expect(share.median).toBeGreaterThan(0.9);
    expect(share.mean).toBeGreaterThan(0.9);
  });
});

test('schedules are reproducible: the same seed gives the same order', () => {
  const order = (seed: number) => shuffle([0, 1, 2, 3, 4, 5, 6, 7], randomSource(seed));
  expect(order(7)).toEqual(order(7));
  expect(order(7)).not.toEqual(order(8));
  expect([...order(7)].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  const next = randomSource(1);
  const values = Float64Array.from({ length: 10000 }, next);
  expect(Math.abs(values.reduce((a, b) => a + b) / 10000 - 0.5)).toBeLessThan(0.01);
});
