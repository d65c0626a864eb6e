// Where a cumulative energy counter moved. A meter publishes its counter every tick (tens of milliseconds) and says nothing in
// between, so the readings themselves are stale by up to a period; only the moment of a change is a time at which the value was
// true. Polling faster than the counter ticks finds that moment to within one poll.
import { median } from '../measure/stats.js';

/** Columns of readings in the order they were taken: seconds of one monotonic clock, and what was read. */
export interface Series {
  readonly seconds: ArrayLike<number>;
  readonly values: ArrayLike<number>;
  /** Stretches that the meter already knows to be useless, such as one in which a counter wrapped unseen. */
  readonly breaks?: readonly Break[];
}

/** A stretch of time in which the readings contradict themselves; nothing that touches it can be known. */
export interface Break {
  from: number;
  to: number;
  reason: string;
}

export interface Ticks {
  /** When the counter moved: the middle of the two polls around it. Ascending unless a break says otherwise. */
  seconds: Float64Array;
  /** Those polls: the counter had its old value at `earliest` and its new one at `latest`. */
  earliest: Float64Array;
  latest: Float64Array;
  /** The counter from then on, joules. */
  joules: Float64Array;
  /** Median time between ticks, and its median absolute deviation, seconds; NaN below three ticks. */
  periodSeconds: number;
  jitterSeconds: number;
  /** Median uncertainty of a tick's time, seconds: the gap between its two polls. */
  gapSeconds: number;
  /** Largest unit of which every step of the counter is a multiple, joules; NaN without a step. */
  quantumJoules: number;
  breaks: Break[];
}

/** Steps are compared in microjoules, the finest unit of the counters there are. */
const unit = 1e-6;

function commonUnit(a: number, b: number): number {
  while (b > 0) [a, b] = [b, a % b];
  return a;
}

/**
 * Ticks of a counter in joules that only grows. A counter that falls (the driver was unloaded) and a clock that runs backwards are
 * breaks; ticks are found on both sides of them, never across. A reading that is no number (the meter did not answer) is a gap.
 */
export function findTicks({ seconds, values, breaks: known = [] }: Series): Ticks {
  const at: number[] = [];
  const earliest: number[] = [];
  const latest: number[] = [];
  const joules: number[] = [];
  const spacings: number[] = [];
  const breaks = [...known];
  let quantum = 0;
  let previous = -1;
  let connected = false;
  for (let i = 0; i < seconds.length; i++) {
    const [time, value] = [seconds[i]!, values[i]!];
    if (!Number.isFinite(time) || !Number.isFinite(value)) continue;
    const before = previous < 0 ? null : { time: seconds[previous]!, value: values[previous]! };
    const contradiction = contradicts(before, time, value);
    if (contradiction) {
      const other = before?.time ?? time;
      breaks.push({ from: Math.min(time, other), to: Math.max(time, other), reason: contradiction });
      connected = false;
    } else if (before && value > before.value) {
      const middle = (before.time + time) / 2;
      const last = at.at(-1)!;
      if (connected && !known.some(({ from, to }) => to > last && from < middle)) spacings.push(middle - last);
      at.push(middle);
      earliest.push(before.time);
      latest.push(time);
      joules.push(value);
      quantum = commonUnit(Math.round((value - before.value) / unit), quantum);
      connected = true;
    }
    previous = i;
  }
  const period = spacings.length >= 2 ? median(spacings) : Number.NaN;
  return {
    seconds: Float64Array.from(at),
    earliest: Float64Array.from(earliest),
    latest: Float64Array.from(latest),
    joules: Float64Array.from(joules),
    periodSeconds: period,
    jitterSeconds: median(spacings.map((spacing) => Math.abs(spacing - period))),
    gapSeconds: median(at.map((_, i) => latest[i]! - earliest[i]!)),
    quantumJoules: quantum > 0 ? quantum * unit : Number.NaN,
    breaks,
  };
}

function contradicts(before: { time: number; value: number } | null, time: number, value: number): string | null {
  if (value < 0) return `the counter is ${value} J, below 0`;
  if (before && time < before.time) return `the clock went back from ${before.time} s to ${time} s`;
  if (before && value < before.value)
    return `the counter went back from ${before.value} J to ${value} J: it was reset, as when the driver is unloaded`;
  return null;
}

/** Why nothing can be known about [begin, end], or null. */
export function broken(ticks: Ticks, begin: number, end: number): string | null {
  return ticks.breaks.find(({ from, to }) => !(to < begin || from > end))?.reason ?? null;
}
