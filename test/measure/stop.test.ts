// The stop rule on summaries made up for each branch, and on simulated noise.
import { expect, test } from 'vitest';
import { summarize } from '../../src/measure/stats.js';
import { decide, fullStop, quickStop, settled, spread } from '../../src/measure/stop.js';
import { randomSource } from '../../src/random.js';

const rule = { minSamples: 10, minSeconds: 0.5, target: 0.01, maxSeconds: 15 };
const steady = summarize(Float64Array.from({ length: 20 }, (_, i) => 1 + 0.001 * (i % 2)));
const noisy = summarize(Float64Array.from({ length: 20 }, (_, i) => 1 + 0.5 * (i % 2)));

test('nothing stops before the fewest samples and seconds, however good they look', () => {
  const few = summarize([1, 1, 1, 1, 1, 1]);
  expect(decide({ stat: null, measuredSeconds: 0, elapsedSeconds: 0, spreads: [] }, rule)).toBeNull();
  expect(decide({ stat: few, measuredSeconds: 5, elapsedSeconds: 5, spreads: [] }, rule)).toBeNull();
  expect(decide({ stat: steady, measuredSeconds: 0.4, elapsedSeconds: 1, spreads: [] }, rule)).toBeNull();
});

test('a narrow interval stops as precision', () => {
  expect(decide({ stat: steady, measuredSeconds: 0.5, elapsedSeconds: 1, spreads: [] }, rule)).toBe('precision');
});

test('settled noise stops only where the target is out of reach', () => {
  const spreads = new Array(10).fill(0.5);
  expect(decide({ stat: noisy, measuredSeconds: 1, elapsedSeconds: 1, spreads }, rule)).toBe('noise');
  expect(decide({ stat: noisy, measuredSeconds: 1, elapsedSeconds: 1, spreads: spreads.slice(0, 7) }, rule)).toBeNull();
  // Twice the wanted width after a fiftieth of the time: worth going on.
  const easy = { ...rule, target: 0.1 };
  expect(decide({ stat: noisy, measuredSeconds: 1, elapsedSeconds: 0.3, spreads }, easy)).toBeNull();
});

test('time always stops, even without a sample', () => {
  expect(decide({ stat: null, measuredSeconds: 0, elapsedSeconds: 15, spreads: [] }, rule)).toBe('time');
  expect(decide({ stat: noisy, measuredSeconds: 9, elapsedSeconds: 15, spreads: [] }, rule)).toBe('time');
});

test('settled looks at the last eight rounds', () => {
  expect(settled([9, 9, ...new Array(8).fill(0.1)])).toBe(true);
  expect(settled([...new Array(7).fill(0.1), 0.2])).toBe(false);
  expect(settled(new Array(8).fill(0))).toBe(true);
});

test('the spread ignores one stray sample', () => {
  expect(spread(summarize([1, 1, 1, 1, 1, 1, 1, 100]))).toBe(0);
});

test('the quick rule asks for less than the full one in everything', () => {
  expect(quickStop.minSeconds).toBeLessThan(fullStop.minSeconds);
  expect(quickStop.maxSeconds).toBeLessThan(fullStop.maxSeconds);
  expect(quickStop.target).toBeGreaterThan(fullStop.target);
  expect(quickStop.minSamples).toBe(fullStop.minSamples);
});

test('measuring simulated timings until the rule stops: the interval still covers the truth', () => {
  let covered = 0;
  const trials = 300;
  for (let trial = 0; trial < trials; trial++) {
    const next = randomSource(trial);
    // Uniform between 0.9 and 1.1 ms: the true median is 1 ms.
    const samples: number[] = [];
    const spreads: number[] = [];
    for (;;) {
      for (let i = 0; i < 50; i++) samples.push(1e-3 * (0.9 + 0.2 * next()));
      const stat = summarize(samples);
      spreads.push(spread(stat));
      const seconds = samples.length * 1e-3;
      const reason = decide(
        { stat, measuredSeconds: seconds, elapsedSeconds: seconds, spreads },
        { ...rule, minSeconds: 0.1 },
      );
      if (reason === null) continue;
      expect(reason).toBe('precision');
      const [low, high] = stat.ci95Median!;
      if (low <= 1e-3 && 1e-3 <= high) covered++;
      break;
    }
  }
  // Looking again and again until it looks good costs a little coverage; it must stay a little.
  expect(covered / trials).toBeGreaterThan(0.88);
});
