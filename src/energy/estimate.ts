// Energy per call from windows of a steady load: power of each window by regression over counter ticks (fit.ts), Student's interval
// over windows, resolution and drift beside it, a second opinion from the power readings, and whether any of it may be believed.
import { known, type MissingState, missing, type Quantity } from '../measure/quantity.js';
import { mean, studentT95 } from '../measure/stats.js';
import { type Fit, fitWindow, lastUntil, meanOver, rangeOf, readingsWithin } from './fit.js';
import { type Evidence, type Judgement, judgeAttributable, judgeDisputed, judgeSteady } from './judge.js';
import type { LoadWindow, MeterData, MeterScope, Stretch } from './recording.js';
import { broken, findTicks, type Series, type Ticks } from './ticks.js';

export interface WindowEstimate extends Stretch {
  iterations: number;
  ticks: number;
  powerW: number;
  perCallJ: number;
}

/** Half widths of the 95 % interval as shares of the value; docs/measuring.md says how they add up. */
export interface Uncertainty {
  /** Student's, over windows; null with a single window. */
  statistical: number | null;
  /** From the unit of the counter and the gaps between polls. */
  resolution: number;
  /** How far summing the steps differs from fitting a line: what is left when power was not constant. */
  drift: number;
  /** Gain and offset of the sensor itself: no maker states them for these counters. */
  sensor: 'undocumented';
}

export interface EnergyEstimate {
  perCallJ: Quantity;
  powerW: Quantity;
  /** perCallJ without what the device would have used at idle in the same time. */
  netPerCallJ: Quantity;
  idleBeforeW: Quantity;
  idleAfterW: Quantity;
  /** Counter at the end minus counter at the beginning, as most tools do; biased low on bursts, here for comparison alone. */
  endMinusBeginJ: Quantity;
  /** The same joules per call from the power readings, and by how much they differ from perCallJ as a share of it. */
  integralJ: Quantity;
  integralDifference: Quantity;
  uncertainty: Uncertainty | null;
  counter: {
    ticks: number;
    periodSeconds: Quantity;
    jitterSeconds: Quantity;
    gapSeconds: Quantity;
    quantumJ: Quantity;
  };
  windows: WindowEstimate[];
  /** Windows that gave nothing, and why. */
  refused: (Stretch & { reason: string })[];
  /** Nanoseconds of throttling within the windows; null for a counter that went back. */
  throttledNs: Record<string, number | null>;
  clockHz: { min: number; mean: number; max: number } | null;
  temperatureC: { begin: number; end: number } | null;
  /** Whether counter and power readings contradict each other, the power limit or idle power. */
  disputed: Judgement;
  /** Whether the windows were long stretches of one constant power. */
  steady: Judgement;
  /** Whether the joules are those of this work alone. */
  attributable: Judgement;
}

export interface EstimateInput {
  data: MeterData;
  windows: readonly LoadWindow[];
  idle?: { before?: Stretch; after?: Stretch };
  scope: MeterScope;
  /** The power limit in force, watts; null or absent: not known. */
  powerLimitW?: number | null;
}

const tickBasis = 'slope over the ticks of the energy counter';
const naiveBasis =
  'counter at the end minus counter at the beginning: biased, as both lag by up to one period; for comparison only';

/** Estimates energy per call. What cannot be known is null with a reason; nothing here throws on bad readings. */
export function estimateEnergy({ data, windows, idle = {}, scope, powerLimitW = null }: EstimateInput): EnergyEstimate {
  const ticks = findTicks(data.counter);
  const fits: { window: LoadWindow; fit: Fit }[] = [];
  const refused: EnergyEstimate['refused'] = [];
  for (const window of windows) {
    const fit = window.iterations > 0 ? fitWindow(ticks, window.begin, window.end) : 'the window holds no iteration';
    if (typeof fit === 'string') refused.push({ begin: window.begin, end: window.end, reason: fit });
    else fits.push({ window, fit });
  }
  const kept = fits.map(({ window }) => window);
  const absent = (unit: string) => missing(unit, whyNothing(ticks, refused), stateOf(data.counter));
  const calls = fits.map(({ window, fit }) => (fit.watts * (window.end - window.begin)) / window.iterations);
  const uncertainty = fits.length === 0 ? null : uncertaintyOf(fits, calls);
  const basis = `${tickBasis}, ${fits.length} window${fits.length === 1 ? '' : 's'}`;
  const quantity = (values: readonly number[], unit: string) =>
    uncertainty === null ? absent(unit) : estimated(values, unit, basis, uncertainty);
  const perCallJ = quantity(calls, 'J');
  const powerW = quantity(
    fits.map(({ fit }) => fit.watts),
    'W',
  );
  const idleBeforeW = idlePower(ticks, idle.before, 'before');
  const idleAfterW = idlePower(ticks, idle.after, 'after');
  const secondsPerCall = mean(kept.map(({ begin, end, iterations }) => (end - begin) / iterations));
  const integralJ = integral(data, kept);
  const evidence: Evidence = {
    fits,
    windows: kept,
    throttledNs: throttled(data, kept),
    clockHz: clockRange(data, kept),
    perCallJ,
    integralJ,
    powerW,
    idleW: [idleBeforeW, idleAfterW],
    powerLimitW,
  };
  const disputed = judgeDisputed(evidence);
  return {
    perCallJ,
    powerW,
    netPerCallJ: net(perCallJ, [idleBeforeW, idleAfterW], secondsPerCall),
    idleBeforeW,
    idleAfterW,
    endMinusBeginJ: endMinusBegin(data.counter, ticks, windows),
    integralJ,
    integralDifference:
      integralJ.value === null || perCallJ.value === null
        ? { ...(integralJ.value === null ? integralJ : absent('J')), unit: '1' }
        : known(
            integralJ.value / perCallJ.value - 1,
            '1',
            'joules by the power readings over joules by the counter, less 1',
          ),
    uncertainty,
    counter: describeCounter(ticks),
    windows: fits.map(({ window: { begin, end, iterations }, fit }, i) => ({
      begin,
      end,
      iterations,
      ticks: fit.ticks,
      powerW: fit.watts,
      perCallJ: calls[i]!,
    })),
    refused,
    throttledNs: evidence.throttledNs,
    clockHz: evidence.clockHz,
    temperatureC: temperatures(data, kept),
    disputed,
    steady: judgeSteady(evidence),
    attributable: judgeAttributable(scope),
  };
}

/** A counter that never moves is not a meter, whatever it claims to be. */
function stateOf({ values }: Series): MissingState {
  for (let i = 1; i < values.length; i++) if (values[i] !== values[0]) return 'unavailable';
  return values.length > 1 ? 'zero-stuck' : 'unavailable';
}

function whyNothing(ticks: Ticks, refused: EnergyEstimate['refused']): string {
  if (refused.length === 0) return 'no window of load was marked';
  if (ticks.seconds.length === 0 && ticks.breaks.length === 0) return 'the energy counter never moved';
  return `none of ${refused.length} windows can be used: ${[...new Set(refused.map(({ reason }) => reason))].join('; ')}`;
}

/** Half width of Student's 95 % interval of the mean, as a share of it; null with a single value. */
function spreadOf(values: readonly number[]): number | null {
  const n = values.length;
  if (n < 2) return null;
  const center = mean(values);
  const squares = values.reduce((sum, value) => sum + (value - center) ** 2, 0);
  return (studentT95(n - 1) * Math.sqrt(squares / (n - 1) / n)) / Math.abs(center);
}

/** What summing and fitting differ by over all windows, beyond what noise alone makes them differ: an unbiased square, or 0. */
function leftByDrift(fits: readonly { fit: Fit }[]): number {
  const n = fits.length;
  const differences = fits.map(({ fit }) => fit.summedWatts - fit.watts);
  const center = mean(differences);
  if (n < 2) return Math.abs(center);
  const squares = differences.reduce((sum, value) => sum + (value - center) ** 2, 0);
  return Math.sqrt(Math.max(0, center ** 2 - squares / (n - 1) / n));
}

function uncertaintyOf(fits: readonly { fit: Fit }[], values: readonly number[]): Uncertainty {
  const center = Math.abs(mean(fits.map(({ fit }) => fit.watts)));
  const resolution = Math.hypot(...fits.map(({ fit }) => fit.resolutionWatts)) / fits.length;
  // A bias that stays in the estimate, taken as a standard uncertainty like the resolution.
  const drift = leftByDrift(fits);
  return {
    statistical: spreadOf(values),
    resolution: (1.96 * resolution) / center,
    drift: (1.96 * drift) / center,
    sensor: 'undocumented',
  };
}

/** Half width of the 95 % interval as a share of the value: terms add in squares. Null with a single window. */
export function combine({ statistical, resolution, drift }: Uncertainty): number | null {
  return statistical === null ? null : Math.hypot(statistical, resolution, drift);
}

function estimated(values: readonly number[], unit: string, basis: string, uncertainty: Uncertainty): Quantity {
  const center = mean(values);
  const half = combine({ ...uncertainty, statistical: spreadOf(values) });
  return known(center, unit, basis, half === null ? null : [center * (1 - half), center * (1 + half)]);
}

function idlePower(ticks: Ticks, stretch: Stretch | undefined, when: string): Quantity {
  if (!stretch) return missing('W', `no idle stretch ${when} the load was marked`);
  const fit = fitWindow(ticks, stretch.begin, stretch.end);
  if (typeof fit === 'string') return missing('W', `idle ${when} the load: ${fit}`);
  // One stretch: the scatter of its steps is all there is to judge it by.
  const half = 1.96 * Math.hypot(fit.resolutionWatts, fit.scatterWatts) + Math.abs(fit.summedWatts - fit.watts);
  return known(fit.watts, 'W', `${tickBasis}, idle ${when} the load`, [fit.watts - half, fit.watts + half]);
}

/** Less idle power over the time of a call; idle before and after must agree within 10 %, else neither can be "the" idle. */
function net(gross: Quantity, idle: readonly Quantity[], seconds: number): Quantity {
  if (gross.value === null) return gross;
  const found = idle.filter((one) => one.value !== null);
  if (found.length === 0)
    return missing('J', `idle power is not known: ${idle.map((q) => 'reason' in q && q.reason).join('; ')}`);
  const watts = found.map(({ value }) => value!);
  const center = mean(watts);
  if (Math.max(...watts) - Math.min(...watts) > 0.1 * center)
    return missing(
      'J',
      `idle power was ${watts.map((w) => w.toPrecision(3)).join(' W before and ')} W after, more than 10 % apart`,
    );
  const half = (q: Quantity) => (q.value !== null && q.ci95 ? (q.ci95[1] - q.ci95[0]) / 2 : null);
  const value = gross.value - center * seconds;
  const basis = `joules per call less ${center.toPrecision(3)} W of idle power`;
  const grossHalf = half(gross);
  if (grossHalf === null) return known(value, 'J', basis);
  // Before and after differ by more than either's own error when the device cools down; the spread between them counts too.
  const spread = (Math.max(...watts) - Math.min(...watts)) / 2;
  const idleHalf = Math.hypot(...found.map((q) => (half(q) ?? 0) / found.length)) + spread;
  const total = Math.hypot(grossHalf, idleHalf * seconds);
  return known(value, 'J', basis, [value - total, value + total]);
}

function endMinusBegin({ seconds, values }: Series, ticks: Ticks, windows: readonly LoadWindow[]): Quantity {
  const perCall: number[] = [];
  for (const { begin, end, iterations } of windows) {
    const [from, to] = [lastUntil(seconds, begin), lastUntil(seconds, end)];
    const joules = values[to]! - values[from]!;
    if (from >= 0 && iterations > 0 && joules > 0 && !broken(ticks, begin, end)) perCall.push(joules / iterations);
  }
  if (perCall.length === 0) return missing('J', 'the counter did not grow within any window');
  return known(mean(perCall), 'J', naiveBasis);
}

function integral({ power }: MeterData, windows: readonly LoadWindow[]): Quantity {
  if (!power) return missing('J', 'power was not read');
  const { averagedSeconds } = power;
  const perCall: number[] = [];
  for (const { begin, end, iterations } of windows) {
    // An averaged reading describes the window only once all it averages over lies inside.
    const from = begin + averagedSeconds;
    const watts = from < end ? meanOver(power, from, end) : null;
    if (watts !== null) perCall.push((watts * (end - begin)) / iterations);
  }
  if (perCall.length === 0) {
    const what = averagedSeconds > 0 ? ` of readings that average over ${averagedSeconds} s` : '';
    return missing('J', `no window holds two power readings${what}`);
  }
  const kind = averagedSeconds > 0 ? `power averaged over ${averagedSeconds} s` : 'instant power';
  return known(mean(perCall), 'J', `integral of ${kind}`);
}

const named = (value: number, unit: string, basis: string): Quantity =>
  Number.isFinite(value) ? known(value, unit, basis) : missing(unit, 'the energy counter did not tick often enough');

const describeCounter = ({ seconds, periodSeconds, jitterSeconds, gapSeconds, quantumJoules }: Ticks) => ({
  ticks: seconds.length,
  periodSeconds: named(periodSeconds, 's', 'median time between ticks'),
  jitterSeconds: named(jitterSeconds, 's', 'median absolute deviation of the time between ticks'),
  gapSeconds: named(gapSeconds, 's', 'median time between the two polls around a tick'),
  quantumJ: named(quantumJoules, 'J', 'largest unit of which every step is a multiple'),
});

/** Growth of each throttle counter over the windows: from the last reading before each to the first after it. */
function throttled({ throttleNs = {} }: MeterData, windows: readonly Stretch[]): Record<string, number | null> {
  const total: Record<string, number | null> = {};
  for (const [reason, { seconds, values }] of Object.entries(throttleNs)) {
    let sum: number | null = 0;
    for (const { begin, end } of windows) {
      const from = Math.max(0, lastUntil(seconds, begin));
      const to = Math.min(seconds.length - 1, lastUntil(seconds, end) + 1);
      const grown = values[to]! - values[from]!;
      sum = sum === null || !(grown >= 0) ? null : sum + grown;
    }
    total[reason] = sum;
  }
  return total;
}

function clockRange({ clockHz }: MeterData, windows: readonly Stretch[]): EnergyEstimate['clockHz'] {
  if (!clockHz) return null;
  const seen = readingsWithin(clockHz, windows);
  return seen.length === 0 ? null : rangeOf(seen);
}

function temperatures({ temperatureC }: MeterData, windows: readonly Stretch[]): EnergyEstimate['temperatureC'] {
  if (!temperatureC || windows.length === 0) return null;
  const begin = Math.min(...windows.map((window) => window.begin));
  const end = Math.max(...windows.map((window) => window.end));
  const [from, to] = [lastUntil(temperatureC.seconds, begin), lastUntil(temperatureC.seconds, end)];
  return to < 0 ? null : { begin: temperatureC.values[Math.max(0, from)]!, end: temperatureC.values[to]! };
}
