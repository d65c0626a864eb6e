// The order of compare() and its ratios, on simulated drift whose true ratio is known.
import { expect, test } from 'vitest';
import { Interleaved, mirroredBlocks } from '../../src/measure/interleave.js';
import { summarize } from '../../src/measure/stats.js';
import { randomSource } from '../../src/random.js';

test('every block holds each case twice, mirrored, in seeded random order', () => {
  const order = mirroredBlocks(3, 50, randomSource(3));
  const firsts = new Set<number>();
  for (let start = 0; start < order.length; start += 6) {
    const block = [...order.slice(start, start + 6)];
    expect(block.slice(0, 3).sort()).toEqual([0, 1, 2]);
    expect(block).toEqual([...block].reverse());
    firsts.add(block[0]!);
  }
  expect(firsts.size).toBe(3);
  expect(mirroredBlocks(3, 50, randomSource(3))).toEqual(order);
});

test('a machine that slows down by half during the run does not show in the ratio', () => {
  const trials = 100;
  let covered = 0;
  for (let trial = 0; trial < trials; trial++) {
    const next = randomSource(trial);
    const seen = new Interleaved(2);
    const order = mirroredBlocks(2, 200, next);
    // Case 1 takes 0.8 of the time of case 0; 5 % noise; the clock drops linearly to half.
    seen.add(
      order,
      Float64Array.from(order, (one, i) => (one === 0 ? 1 : 0.8) * (1 + i / order.length) * (0.95 + 0.1 * next())),
    );
    expect(seen.blocks).toBe(200);
    const { median, ci95Median } = summarize(seen.ratios(1, 0));
    expect(Math.abs(median / 0.8 - 1)).toBeLessThan(0.02);
    if (ci95Median![0] <= 0.8 && 0.8 <= ci95Median![1]) covered++;
  }
  // The median of ratios of noisy times lies a trifle off the ratio of medians.
  expect(covered / trials).toBeGreaterThan(0.88);
});

test('a case against itself: the interval contains 1', () => {
  const next = randomSource(9);
  const seen = new Interleaved(2);
  for (let round = 0; round < 5; round++) {
    const order = mirroredBlocks(2, 40, next);
    seen.add(
      order,
      Float64Array.from(order, () => 1 + 0.1 * next()),
    );
  }
  expect(seen.samples.map((list) => list.length)).toEqual([400, 400]);
  const [low, high] = summarize(seen.ratios(1, 0)).ci95Median!;
  expect(low).toBeLessThan(1);
  expect(high).toBeGreaterThan(1);
});
