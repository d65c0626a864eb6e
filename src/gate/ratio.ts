// Ratios with errors on a logarithmic scale, where a ratio of ratios is a difference. Each side of an interval keeps its own width,
// so an order-statistic interval need not be symmetric (the method of variance estimates recovery, Zou and Donner 2008).
import { type Interval, mean } from '../measure/stats.js';
import { studentTail, studentUpper } from '../measure/student.js';

export interface LogRatio {
  /** Natural logarithm of the ratio. */
  log: number;
  /** Standard error below and above it. */
  below: number;
  above: number;
  /** Degrees of freedom of both. */
  degrees: number;
}

/** A value with its 95 % interval, as an interval on `degrees` degrees of freedom. */
export function fromInterval(value: number, [low, high]: Interval, degrees: number): LogRatio {
  const t = studentUpper(0.025, degrees);
  const log = Math.log(value);
  return {
    log,
    below: low > 0 ? Math.max(0, log - Math.log(low)) / t : Number.POSITIVE_INFINITY,
    above: Math.max(0, Math.log(high) - log) / t,
    degrees,
  };
}

const variance = ({ below, above }: LogRatio): number => (below ** 2 + above ** 2) / 2;

/** a / b of two independent estimates; degrees of freedom after Welch and Satterthwaite. */
export function quotient(a: LogRatio, b: LogRatio): LogRatio {
  const [va, vb] = [variance(a), variance(b)];
  const degrees = (va + vb) ** 2 / (va ** 2 / a.degrees + vb ** 2 / b.degrees);
  return {
    log: a.log - b.log,
    below: Math.hypot(a.below, b.above),
    above: Math.hypot(a.above, b.below),
    degrees: Number.isNaN(degrees) ? Math.min(a.degrees, b.degrees) : degrees,
  };
}

/**
 * Mean of `news` over mean of `bases`, one estimate for each run; no bases: the news are ratios to the base already. With several
 * runs on a side, what runs differ by is known and counts, where it is more than their own errors say.
 */
export function pooled(news: readonly LogRatio[], bases: readonly LogRatio[]): LogRatio {
  const sides = [news, bases].filter((side) => side.length > 0).map(average);
  const within = sides.length === 1 ? sides[0]! : quotient(sides[0]!, sides[1]!);
  const degrees = news.length + bases.length - sides.length;
  if (degrees === 0) return within;
  const squares = [news, bases].map((side) => {
    const center = side.length > 0 ? mean(side.map(({ log }) => log)) : 0;
    return side.reduce((sum, { log }) => sum + (log - center) ** 2, 0);
  });
  const shares = [news, bases].reduce((sum, { length }) => sum + (length > 0 ? 1 / length : 0), 0);
  const between = Math.sqrt(((squares[0]! + squares[1]!) / degrees) * shares);
  // Of two errors with their own degrees of freedom the one counts that reaches further.
  const reach = studentUpper(0.025, degrees) * between;
  const own = studentUpper(0.025, within.degrees) * Math.max(within.below, within.above);
  return reach > own ? { log: within.log, below: between, above: between, degrees } : within;
}

function average(side: readonly LogRatio[]): LogRatio {
  if (side.length === 1) return side[0]!;
  return {
    log: mean(side.map(({ log }) => log)),
    below: Math.hypot(...side.map(({ below }) => below)) / side.length,
    above: Math.hypot(...side.map(({ above }) => above)) / side.length,
    degrees: Math.min(...side.map(({ degrees }) => degrees)),
  };
}

export function interval95({ log, below, above, degrees }: LogRatio): Interval {
  const t = studentUpper(0.025, degrees);
  return [Math.exp(log - t * below), Math.exp(log + t * above)];
}

/** Probability of a ratio this far above `limit`, or farther, if the true one were at the limit. */
export function pAbove({ log, below, degrees }: LogRatio, limit: number): number {
  const distance = log - Math.log(limit);
  return below === 0 ? (distance > 0 ? 0 : 1) : studentTail(distance / below, degrees);
}

/** The same for a ratio this far below it; a ratio known exactly may be as large as the limit. */
export function pBelow({ log, above, degrees }: LogRatio, limit: number): number {
  const distance = Math.log(limit) - log;
  return above === 0 ? (distance >= 0 ? 0 : 1) : studentTail(distance / above, degrees);
}

/** Holm's step-down adjustment: rejecting what is at most a keeps the chance of any false rejection at most a. */
export function holm(values: readonly number[]): number[] {
  const adjusted = new Array<number>(values.length);
  let largest = 0;
  for (const [rank, i] of [...values.keys()].sort((a, b) => values[a]! - values[b]!).entries()) {
    largest = Math.max(largest, Math.min(1, (values.length - rank) * values[i]!));
    adjusted[i] = largest;
  }
  return adjusted;
}
