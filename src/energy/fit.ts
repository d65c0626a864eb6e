// Power in one window from the ticks inside it. Reading the counter at both ends of a window instead is biased: both readings
// are stale, the first lacks idle joules, the last joules of the load, so a burst is read low by (P - Pidle) / P * period / 2 /
// length (4.2 % for 1 s at 600 W over 100 W and 100 ms ticks). Between two ticks inside, all joules belong to the window.
import { mean } from '../measure/stats.js';
import type { Stretch } from './recording.js';
import { broken, type Series, type Ticks } from './ticks.js';

/** Ticks that a line with a trend needs at least. */
const fewestTicks = 5;

/** Into how many steps a window is divided to see its trend, where it has so many ticks. */
const longSteps = 8;

export interface Fit {
  /** Least-squares slope of energy over time at the ticks inside, watts. */
  watts: number;
  ticks: number;
  /** Mean power of the window by summing instead of fitting: steps between ticks, both ends filled with the nearest step. */
  summedWatts: number;
  /** Standard error of `watts` that comes from reading a stepped counter at poll times, watts. */
  resolutionWatts: number;
  /** Standard error of the mean of the steps, from their scatter about the trend, watts. */
  scatterWatts: number;
  /** Change of power from begin to end of the window as a share of its mean, and the standard error of that share. */
  drift: number;
  driftError: number;
  /** Degrees of freedom of driftError. */
  degrees: number;
}

/** Slope of y over x by least squares, the x and y it passes through, and the sum of squared deviations of x. */
function line(x: ArrayLike<number>, y: ArrayLike<number>) {
  const [cx, cy] = [mean(x), mean(y)];
  let xx = 0;
  let xy = 0;
  for (let i = 0; i < x.length; i++) {
    xx += (x[i]! - cx) ** 2;
    xy += (x[i]! - cx) * (y[i]! - cy);
  }
  return { slope: xy / xx, cx, cy, xx };
}

/** Fits the ticks wholly inside [begin, end], or says why that cannot be done. */
export function fitWindow(ticks: Ticks, begin: number, end: number): Fit | string {
  if (!(end > begin)) return `the window ends at ${end} s, expected after its begin at ${begin} s: the clock went back`;
  const contradiction = broken(ticks, begin, end);
  if (contradiction) return contradiction;
  const inside: number[] = [];
  let late = 0;
  for (let i = 0; i < ticks.seconds.length; i++) {
    if (ticks.earliest[i]! < begin || ticks.latest[i]! > end) continue;
    // A tick found long after it happened has the right value at the wrong time; leaving it out loses nothing else.
    if (ticks.latest[i]! - ticks.earliest[i]! > Math.max(ticks.periodSeconds / 4, 2 * ticks.gapSeconds)) late++;
    else inside.push(i);
  }
  if (inside.length < fewestTicks) {
    const why = late > 0 ? `, and ${late} more that were found too late to know when` : '';
    return `the counter ticked ${inside.length} times in a window of ${(end - begin).toPrecision(3)} s${why}, expected at least ${fewestTicks}`;
  }
  const at = Float64Array.from(inside, (i) => ticks.seconds[i]!);
  const joules = Float64Array.from(inside, (i) => ticks.joules[i]!);
  const last = at.length - 1;
  const { slope: watts, xx } = line(at, joules);
  const power = (i: number, j: number) => (joules[j]! - joules[i]!) / (at[j]! - at[i]!);
  const ends = power(0, 1) * (at[0]! - begin) + power(last - 1, last) * (end - at[last]!);
  const summedWatts = (joules[last]! - joules[0]! + ends) / (end - begin);
  // Neighbouring steps share an uncertain tick, one's gain is the other's loss; longer steps are nearly independent.
  const steps = Math.min(longSteps, last);
  const edges = Array.from({ length: steps + 1 }, (_, i) => Math.round((i * last) / steps));
  const powers = Float64Array.from({ length: steps }, (_, i) => power(edges[i]!, edges[i + 1]!));
  const middles = Float64Array.from({ length: steps }, (_, i) => (at[edges[i]!]! + at[edges[i + 1]!]!) / 2);
  // A value rounded down to its unit and a time known to one gap are each off by a uniform error.
  const quantum = Number.isFinite(ticks.quantumJoules) ? ticks.quantumJoules : 0;
  const perTick = Math.hypot(quantum, watts * ticks.gapSeconds) / Math.sqrt(12);
  const trend = line(middles, powers);
  let squares = 0;
  for (let i = 0; i < steps; i++) squares += (powers[i]! - trend.cy - trend.slope * (middles[i]! - trend.cx)) ** 2;
  const degrees = steps - 2;
  const share = (end - begin) / Math.abs(summedWatts);
  return {
    watts,
    ticks: at.length,
    summedWatts,
    resolutionWatts: perTick / Math.sqrt(xx),
    scatterWatts: Math.sqrt(squares / degrees / steps),
    drift: trend.slope * share,
    driftError: Math.sqrt(squares / degrees / trend.xx) * share,
    degrees,
  };
}

/** Last index whose time is at most `when`, or -1. */
export function lastUntil(seconds: ArrayLike<number>, when: number): number {
  let found = -1;
  for (let i = 0; i < seconds.length && seconds[i]! <= when; i++) found = i;
  return found;
}

/** Mean of readings over [begin, end]: trapezoids, the nearest reading beyond the first and last. Null below two readings. */
export function meanOver({ seconds, values }: Series, begin: number, end: number): number | null {
  const inside: number[] = [];
  for (let i = 0; i < seconds.length; i++)
    if (seconds[i]! >= begin && seconds[i]! <= end && Number.isFinite(values[i])) inside.push(i);
  if (inside.length < 2) return null;
  const [first, last] = [inside[0]!, inside.at(-1)!];
  let sum = values[first]! * (seconds[first]! - begin) + values[last]! * (end - seconds[last]!);
  for (let k = 1; k < inside.length; k++) {
    const [a, b] = [inside[k - 1]!, inside[k]!];
    sum += ((values[a]! + values[b]!) / 2) * (seconds[b]! - seconds[a]!);
  }
  return sum / (end - begin);
}

/** The readings taken within the stretches. */
export function readingsWithin({ seconds, values }: Series, stretches: readonly Stretch[]): number[] {
  const seen: number[] = [];
  for (let i = 0; i < seconds.length; i++)
    if (stretches.some(({ begin, end }) => seconds[i]! >= begin && seconds[i]! <= end)) seen.push(values[i]!);
  return seen;
}

/** The lowest and the highest of some values, and their mean. */
export const rangeOf = (values: readonly number[]): { min: number; mean: number; max: number } => ({
  min: Math.min(...values),
  mean: mean(values),
  max: Math.max(...values),
});
