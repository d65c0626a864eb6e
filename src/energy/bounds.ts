// Energy between two moments that somebody else chose, such as one request of a server: a point estimate between hard bounds.
// The counter only grows, so what it showed before and after the two moments encloses the truth as far as the counter is right.
import { known, missing, type Quantity } from '../measure/quantity.js';
import type { Interval } from '../measure/stats.js';
import { meanOver } from './fit.js';
import type { MeterData } from './recording.js';
import { broken, findTicks, type Series, type Ticks } from './ticks.js';

export interface BoundedEnergy {
  /** The counter, interpolated between the ticks around each end. Null for windows shorter than two of its periods. */
  joules: Quantity;
  /** No less and no more than this by the counter; null when no tick follows the end yet or none precedes the begin. */
  bounds: Interval | null;
  /** Mean of the power readings times the length: the only estimate for a short window, and never a measurement of it. */
  integral: Quantity;
}

/**
 * Energy from `begin` to `end`, seconds of the clock of the readings. Readings must go on until the counter has ticked once after
 * `end`; until then the upper bound is not known.
 */
export function boundEnergy(
  { counter, power }: Pick<MeterData, 'counter' | 'power'>,
  begin: number,
  end: number,
): BoundedEnergy {
  const seconds = end - begin;
  const watts = power && meanOver(power, begin, end);
  const integral =
    watts == null
      ? missing('J', power ? 'the window holds fewer than two power readings' : 'power was not read')
      : known(watts * seconds, 'J', averageOf(power!.averagedSeconds));
  const none = (reason: string): BoundedEnergy => ({ joules: missing('J', reason), bounds: null, integral });
  if (!(seconds > 0))
    return none(`the window ends at ${end} s, expected after its begin at ${begin} s: the clock went back`);
  const ticks = findTicks(counter);
  const contradiction = broken(ticks, begin, end);
  if (contradiction) return none(contradiction);
  const { periodSeconds } = ticks;
  if (!Number.isFinite(periodSeconds))
    return none(`the energy counter ticked ${ticks.seconds.length} times, expected at least 3`);
  const shown = (value: number) => `${Number(value.toPrecision(3))} s`;
  if (seconds < 2 * periodSeconds)
    return none(
      `the window of ${shown(seconds)} is shorter than two periods of the energy counter (${shown(2 * periodSeconds)}); meter several calls together`,
    );
  const bounds = enclose(ticks, begin, end);
  const instant = power?.averagedSeconds === 0 ? power : undefined;
  const [from, to] = [interpolate(ticks, instant, begin), interpolate(ticks, instant, end)];
  if (from === null) return { ...none('the counter did not tick before the window'), bounds };
  if (to === null) return { ...none('the counter has not ticked since the window'), bounds };
  return {
    joules: known(to - from, 'J', `energy counter, interpolated between ticks${instant ? ' by instant power' : ''}`),
    bounds,
    integral,
  };
}

const averageOf = (seconds: number): string =>
  `mean of power readings${seconds > 0 ? `, each an average over ${seconds} s that reaches back before the window` : ''}, times the length`;

/**
 * A tick is known to precede a moment when the poll that found it does, and to follow one when the poll before it does.
 * At least: from the first tick after the begin to the last before the end. At most: from the last before to the first after.
 */
function enclose({ earliest, latest, joules }: Ticks, begin: number, end: number): Interval | null {
  const before = (when: number) => latest.findLastIndex((time) => time <= when);
  const after = (when: number) => earliest.findIndex((time) => time >= when);
  const [outerFrom, innerFrom, innerTo, outerTo] = [before(begin), after(begin), before(end), after(end)];
  if (outerFrom < 0 || outerTo < 0) return null;
  return [Math.max(0, joules[innerTo]! - joules[innerFrom]!), joules[outerTo]! - joules[outerFrom]!];
}

/**
 * The counter at a moment; null where a tick before or after it is missing. Between two ticks the joules are spread as the instant
 * power was, else evenly: then the edge of a burst is read low by a third of a period of what it draws above idle.
 */
function interpolate({ seconds, joules }: Ticks, power: Series | undefined, when: number): number | null {
  const after = seconds.findIndex((time) => time >= when);
  if (after < 1) return null;
  const [from, to] = [seconds[after - 1]!, seconds[after]!];
  const [first, all] = power ? [meanOver(power, from, when), meanOver(power, from, to)] : [null, null];
  const weight = first !== null && all !== null && all > 0 ? first / all : 1;
  const share = Math.min(1, (weight * (when - from)) / (to - from));
  return joules[after - 1]! + share * (joules[after]! - joules[after - 1]!);
}
