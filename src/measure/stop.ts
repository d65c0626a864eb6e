// When enough has been measured: pure functions over the samples so far, so that the rule itself can be tested.
import { quantile, relativeHalfWidth, type Stat } from './stats.js';

export interface StopRule {
  /** Fewest samples before any rule but `time` may end a measurement. */
  minSamples: number;
  /** Fewest seconds of measured work, likewise. */
  minSeconds: number;
  /** Wanted half width of the median's 95 % interval, relative to the median. */
  target: number;
  /** Longest wall time, seconds, including everything between samples. */
  maxSeconds: number;
}

/** The rule of a full measurement and of a quick one. */
export const fullStop: StopRule = { minSamples: 10, minSeconds: 0.5, target: 0.01, maxSeconds: 15 };
export const quickStop: StopRule = { minSamples: 10, minSeconds: 0.1, target: 0.05, maxSeconds: 2 };

/**
 * - `precision`: the interval is as narrow as asked; the only rule that counts as converged.
 * - `noise`: the spread has settled and the target is out of reach within maxSeconds, so more samples only cost time.
 * - `time`: maxSeconds have passed.
 */
export type StopReason = 'precision' | 'noise' | 'time';

export interface Progress {
  stat: Stat | null;
  /** Seconds of measured work so far. */
  measuredSeconds: number;
  /** Wall seconds since the measurement began. */
  elapsedSeconds: number;
  /** Relative spread after each round so far (spread()), oldest first. */
  spreads: readonly number[];
}

/** Interquartile range over the median: a spread that one stray sample cannot move. */
export const spread = (stat: Stat): number => (stat.median > 0 ? (stat.q3 - stat.q1) / stat.median : 0);

const noiseRounds = 8;
const noiseTolerance = 0.05;

/** Whether the last rounds' spreads differ by less than 5 % of their middle value. */
export function settled(spreads: readonly number[]): boolean {
  if (spreads.length < noiseRounds) return false;
  const recent = Float64Array.from(spreads.slice(-noiseRounds)).sort();
  return recent[noiseRounds - 1]! - recent[0]! <= noiseTolerance * quantile(recent, 0.5);
}

/** The rule that ends the measurement now, or null to go on. */
export function decide(progress: Progress, rule: StopRule): StopReason | null {
  const { stat, measuredSeconds, elapsedSeconds } = progress;
  if (stat !== null && stat.n >= rule.minSamples && measuredSeconds >= rule.minSeconds) {
    const width = relativeHalfWidth(stat.ci95Median, stat.median);
    if (width <= rule.target) return 'precision';
    // The interval narrows as 1 / sqrt(time): what would be reached if every remaining second were spent.
    const best = width * Math.sqrt(elapsedSeconds / rule.maxSeconds);
    if (best > rule.target && settled(progress.spreads)) return 'noise';
  }
  return elapsedSeconds >= rule.maxSeconds ? 'time' : null;
}
