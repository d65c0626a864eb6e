// What a list of timings says: order statistics, spread, dependence and intervals. Pure functions, no outlier removed.
// Intervals allow for dependence between neighbouring samples (clock drift, a noisy neighbour) through an effective count.

/** A summary of samples, in the unit of the samples. Intervals are null where too few samples exist to state one. */
export interface Stat {
  n: number;
  min: number;
  q1: number;
  median: number;
  mean: number;
  q3: number;
  p95: number;
  p99: number;
  max: number;
  /** Sample standard deviation (n - 1). */
  sd: number;
  /** Median absolute deviation from the median, unscaled. */
  mad: number;
  /** Autocorrelation of neighbouring samples, -1 to 1; 0 when they do not vary. */
  ac1: number;
  /** How many independent samples the n are worth for the median; at most n. */
  nEffective: number;
  /** Order-statistic 95 % interval of the median. */
  ci95Median: Interval | null;
  /** Student's 95 % interval of the mean. */
  ci95Mean: Interval | null;
}

export type Interval = [low: number, high: number];

/** Quantile p of ascending values, interpolated linearly between order statistics (Hyndman and Fan's type 7). */
export function quantile(sorted: ArrayLike<number>, p: number): number {
  if (sorted.length === 0) return Number.NaN;
  const at = p * (sorted.length - 1);
  const low = Math.floor(at);
  const high = Math.min(low + 1, sorted.length - 1);
  return sorted[low]! + (at - low) * (sorted[high]! - sorted[low]!);
}

export const ascending = (values: ArrayLike<number>): Float64Array => Float64Array.from(values).sort();

export const median = (values: ArrayLike<number>): number => quantile(ascending(values), 0.5);

export function mean(values: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < values.length; i++) sum += values[i]!;
  return sum / values.length;
}

/**
 * Rank k (from 1) such that [x(k), x(n + 1 - k)] covers the median of n independent samples with at least 95 %:
 * the largest k with P(Bin(n, 1/2) < k) <= 2.5 %. 0 when even [min, max] does not (n < 6).
 */
export function medianRank(n: number): number {
  let logTerm = -n * Math.LN2; // ln P(Bin = 0)
  let below = 0; // P(Bin < k)
  let k = 0;
  while (k < n / 2) {
    const next = below + Math.exp(logTerm);
    if (next > 0.025) break;
    below = next;
    k++;
    logTerm += Math.log((n - k + 1) / k);
  }
  return k;
}

/** Autocorrelation at `lag` of a series with the given mean and sum of squared deviations; 0 when it does not vary. */
function autocorrelation(values: ArrayLike<number>, lag: number, center: number, squares: number): number {
  if (!(squares > 0)) return 0;
  let sum = 0;
  for (let i = lag; i < values.length; i++) sum += (values[i]! - center) * (values[i - lag]! - center);
  return sum / squares;
}

/**
 * Statistical inefficiency: n / inefficiency samples are worth independent ones. 1 + 2 * (sum of autocorrelations up to
 * the first that is not distinguishable from 0, 2 / sqrt(n)); never below 1, so negative dependence earns nothing.
 */
export function inefficiency(values: ArrayLike<number>): number {
  const n = values.length;
  if (n < 4) return 1;
  const center = mean(values);
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (values[i]! - center) ** 2;
  const floor = 2 / Math.sqrt(n);
  let sum = 0;
  for (let lag = 1; lag < n / 2; lag++) {
    const r = autocorrelation(values, lag, center, squares);
    if (r < floor) break;
    sum += r;
  }
  return 1 + 2 * sum;
}

/** Two-sided 95 % quantile of Student's t; Cornish-Fisher expansion, within 0.5 % from 3 degrees of freedom. */
export function studentT95(degrees: number): number {
  if (degrees < 1.5) return 12.706;
  if (degrees < 2.5) return 4.303;
  const z = 1.959964;
  const v = degrees;
  const g1 = (z ** 3 + z) / 4;
  const g2 = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96;
  const g3 = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384;
  const g4 = (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160;
  return z + g1 / v + g2 / v ** 2 + g3 / v ** 3 + g4 / v ** 4;
}

/** Order-statistic interval of the median; dependence widens it as if only nEffective samples had been drawn. */
export function medianInterval(sorted: ArrayLike<number>, nEffective = sorted.length): Interval | null {
  const n = sorted.length;
  const exact = medianRank(n);
  if (exact === 0) return null;
  const widening = Math.sqrt(n / Math.max(1, Math.min(n, nEffective)));
  const rank = Math.floor((n + 1) / 2 - ((n + 1) / 2 - exact) * widening);
  // With so much dependence that even the extremes cannot carry 95 %, nothing is claimed.
  if (rank < 1) return null;
  return [sorted[rank - 1]!, sorted[n - rank]!];
}

/** Summary of samples in the order they were taken; throws RangeError on an empty list or a value that is not finite. */
export function summarize(samples: ArrayLike<number>): Stat {
  const n = samples.length;
  if (n === 0) throw new RangeError('summarize: samples is empty, expected at least 1');
  for (let i = 0; i < n; i++) {
    if (!Number.isFinite(samples[i]))
      throw new RangeError(`summarize: samples[${i}] is ${samples[i]}, expected finite`);
  }
  const sorted = ascending(samples);
  const middle = quantile(sorted, 0.5);
  const average = mean(samples);
  let squares = 0;
  for (let i = 0; i < n; i++) squares += (samples[i]! - average) ** 2;
  const sd = n > 1 ? Math.sqrt(squares / (n - 1)) : 0;
  // The median's interval depends on which side of the median each sample fell, so that is what must be independent.
  const sides = Float64Array.from(samples, (value) => Math.sign(value - middle));
  const nEffective = n / inefficiency(sides);
  const nMean = n / inefficiency(samples);
  const half = nMean > 2 ? (studentT95(nMean - 1) * sd) / Math.sqrt(nMean) : null;
  return {
    n,
    min: sorted[0]!,
    q1: quantile(sorted, 0.25),
    median: middle,
    mean: average,
    q3: quantile(sorted, 0.75),
    p95: quantile(sorted, 0.95),
    p99: quantile(sorted, 0.99),
    max: sorted[n - 1]!,
    sd,
    mad: median(Float64Array.from(samples, (value) => Math.abs(value - middle))),
    ac1: autocorrelation(samples, 1, average, squares),
    nEffective,
    ci95Median: medianInterval(sorted, nEffective),
    ci95Mean: half === null ? null : [average - half, average + half],
  };
}

/** Half width of an interval relative to its centre value; Infinity when there is no interval or the centre is 0. */
export function relativeHalfWidth(interval: Interval | null, center: number): number {
  if (interval === null || !(center > 0)) return Number.POSITIVE_INFINITY;
  return (interval[1] - interval[0]) / 2 / center;
}
