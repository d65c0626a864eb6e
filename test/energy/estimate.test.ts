// The energy estimator against a simulated meter whose truth is known: coverage, error, bias of the naive way, and that these
// tests would notice a wrong quantile or a missing term.
import { describe, expect, test } from 'vitest';
import { combine, type EnergyEstimate, estimateEnergy } from '../../src/energy/estimate.js';
import { quantile, studentT95 } from '../../src/measure/stats.js';
import { type Simulated, type Simulation, simulate } from './simulate.js';

const scope = { scope: 'gpu', mig: false, otherProcesses: 0 } as const;
const runs = 400;

interface Runs {
  estimates: EnergyEstimate[];
  /** True joules per call of each run, the estimate's relative error, and that of each window alone. */
  truths: number[];
  errors: number[];
  windowErrors: number[];
  /** Mean of (end minus begin) / truth - 1. */
  naiveBias: number;
}

const known = new Map<string, Runs>();

/** `runs` seeds of one simulation; the same simulation is run once. */
function repeat(simulation: Omit<Simulation, 'seed'>): Runs {
  const key = JSON.stringify(simulation);
  const all: Runs = known.get(key) ?? { estimates: [], truths: [], errors: [], windowErrors: [], naiveBias: 0 };
  known.set(key, all);
  for (let seed = all.errors.length + 1; seed <= runs; seed++) {
    const simulated = simulate({ ...simulation, seed });
    const estimate = estimateEnergy({ ...simulated, scope });
    all.estimates.push(estimate);
    all.truths.push(simulated.perCall);
    all.errors.push(estimate.perCallJ.value! / simulated.perCall - 1);
    all.naiveBias += (estimate.endMinusBeginJ.value! / simulated.perCall - 1) / runs;
    for (const [k, { perCallJ, iterations }] of estimate.windows.entries())
      all.windowErrors.push((perCallJ * iterations) / simulated.joules[k]! - 1);
  }
  return all;
}

/** Share of runs whose error is within the half width that `half` makes of the uncertainty. */
const coverage = (
  { estimates, errors }: Runs,
  half: (u: NonNullable<EnergyEstimate['uncertainty']>) => number | null,
) => errors.filter((error, i) => Math.abs(error) <= half(estimates[i]!.uncertainty!)!).length / runs;

const p95 = (errors: readonly number[]) =>
  quantile(
    errors.map(Math.abs).sort((a, b) => a - b),
    0.95,
  );

describe(`${runs} simulated runs, 600 W over 100 W idle, 1 % noise of each tick, polls of 1 ms`, () => {
  // Window, period, windows; largest error of one window in 95 % of cases; bias of end minus begin.
  test.each([
    [1, 0.1, 5, 0.01, -0.042],
    [1, 0.02, 5, 0.0045, -0.008],
    [2, 0.1, 5, 0.007, -0.021],
    [1, 0.1, 3, 0.01, -0.042],
  ])('windows of %f s, ticks of %f s, %i windows', (window, period, windows, worst, bias) => {
    const all = repeat({ window, period, windows });
    const covered = coverage(all, combine);
    expect(covered).toBeGreaterThanOrEqual(0.92);
    expect(covered).toBeLessThanOrEqual(0.98);
    expect(p95(all.windowErrors)).toBeLessThan(worst);
    // Theory: -(P - Pidle) / P * period / 2 / window.
    expect(all.naiveBias).toBeGreaterThan(bias - 0.003);
    expect(all.naiveBias).toBeLessThan(bias + 0.003);
    expect(Math.abs(all.errors.reduce((a, b) => a + b) / runs)).toBeLessThan(0.0005);
  });

  test('the published interval is the one whose coverage was counted', () => {
    const all = repeat({ window: 1, period: 0.1, windows: 3 });
    const within = all.estimates.filter(({ perCallJ }, i) => {
      const [low, high] = perCallJ.value === null ? [1, 0] : perCallJ.ci95!;
      return low <= all.truths[i]! && all.truths[i]! <= high;
    });
    // A share of the value on the one hand, of the truth on the other.
    expect(Math.abs(within.length / runs - coverage(all, combine))).toBeLessThanOrEqual(2 / runs);
  });

  test('the count would notice a normal quantile in the place of Student’s', () => {
    const all = repeat({ window: 1, period: 0.1, windows: 3 });
    const normal = coverage(all, (u) => combine({ ...u, statistical: (u.statistical! / studentT95(2)) * 1.96 }));
    expect(normal).toBeLessThan(0.92);
  });

  test('power that settles within each window: the drift term keeps the interval honest, without it the count fails', () => {
    const all = repeat({ window: 2, period: 0.1, windows: 5, excess: 0.04, settle: 0.3 });
    expect(coverage(all, combine)).toBeGreaterThanOrEqual(0.92);
    expect(coverage(all, (u) => combine({ ...u, drift: 0 }))).toBeLessThan(0.8);
    expect(all.estimates.filter(({ steady }) => steady.value === true)).toHaveLength(0);
    expect(all.estimates.filter(({ steady }) => steady.value === false).length).toBeGreaterThan(0.8 * runs);
  });

  test('constant power is never called unsteady at the recommended length, and mostly proved steady', () => {
    const { estimates } = repeat({ window: 2, period: 0.05, windows: 5 });
    expect(estimates.filter(({ steady }) => steady.value === false)).toHaveLength(0);
    expect(estimates.filter(({ steady }) => steady.value === true).length).toBeGreaterThan(0.75 * runs);
  });

  test('throttling is seen in every run, and its interval still holds', () => {
    const all = repeat({ window: 2, period: 0.1, windows: 5, throttle: 0.4 });
    expect(coverage(all, combine)).toBeGreaterThanOrEqual(0.92);
    for (const { steady, throttledNs } of all.estimates) {
      expect(steady.value).toBe(false);
      expect(steady.reasons.join()).toMatch(/ms of throttling, hwThermal/);
      expect(throttledNs.hwThermal! / 2e9).toBeCloseTo(1, 2);
    }
  });
});

describe('one run', () => {
  const simulated = simulate({ seed: 7, window: 2, period: 0.05, windows: 5 });
  const estimate = (changes: Partial<Simulated> = {}, where: object = {}) =>
    estimateEnergy({ ...simulated, ...changes, scope: { ...scope, ...where } });
  const { counter } = simulated.data;
  const withCounter = (map: (value: number, i: number) => number) => ({
    data: { ...simulated.data, counter: { seconds: counter.seconds, values: Array.from(counter.values, map) } },
  });

  test('says what the counter is like, what idle is, and agrees with both kinds of power readings', () => {
    const { perCallJ, powerW, netPerCallJ, idleBeforeW, idleAfterW, counter, disputed, ...rest } = estimate();
    expect(perCallJ).toMatchObject({ unit: 'J', state: 'ok', basis: expect.stringMatching(/ticks.*5 windows/) });
    expect(powerW.value! / 600).toBeCloseTo(1, 1);
    for (const idle of [idleBeforeW, idleAfterW]) {
      expect(Math.abs(idle.value! - 100)).toBeLessThan(2);
      expect((idle as { ci95: number[] }).ci95[0]).toBeLessThan(100);
    }
    expect(netPerCallJ.value! / perCallJ.value!).toBeCloseTo(5 / 6, 1);
    expect(counter.periodSeconds.value).toBeCloseTo(0.05, 2);
    expect(counter.quantumJ.value).toBeCloseTo(0.001, 6);
    expect(counter.gapSeconds.value).toBeLessThan(0.002);
    expect(disputed).toEqual({ value: false, reasons: [] });
    expect(Math.abs(rest.integralDifference.value!)).toBeLessThan(0.01);
    expect(rest.uncertainty).toMatchObject({ sensor: 'undocumented' });
    const averaged = estimate({ data: { ...simulated.data, power: simulated.averagedPower() } });
    expect(averaged.integralJ).toMatchObject({ state: 'ok', basis: 'integral of power averaged over 1 s' });
    expect(averaged.disputed.value).toBe(false);
  });

  test('readings of averaged power in windows too short for them are no second opinion', () => {
    const short = simulate({ seed: 7, window: 0.9, period: 0.02, windows: 3 });
    const { integralJ, disputed } = estimateEnergy({
      ...short,
      data: { ...short.data, power: short.averagedPower() },
      scope,
    });
    expect(integralJ).toMatchObject({ value: null, reason: expect.stringMatching(/average over 1 s/) });
    expect(disputed).toEqual({ value: null, reasons: [expect.stringMatching(/average over 1 s/)] });
  });

  test('counter and power more than 10 % apart are disputed', () => {
    const { seconds, values } = simulated.data.power!;
    const scaled = (by: number) =>
      estimate({
        data: { ...simulated.data, power: { seconds, values: Array.from(values, (w) => w * by), averagedSeconds: 0 } },
      });
    expect(scaled(1.08).disputed.value).toBe(false);
    expect(scaled(1.75).disputed).toEqual({
      value: true,
      reasons: [expect.stringMatching(/7\d % more than the energy counter/)],
    });
    expect(scaled(0.5).disputed.reasons[0]).toMatch(/50 % less/);
  });

  test('more than 1.1 times the power limit, or less than idle, cannot be: disputed', () => {
    const { data, windows, idle } = simulate({ seed: 4, period: 0.02, window: 1, windows: 3 });
    const at = (powerLimitW: number | null) => estimateEnergy({ data, windows, idle, scope, powerLimitW }).disputed;
    expect(at(600).value).toBe(false);
    expect(at(null).value).toBe(false);
    expect(at(500)).toEqual({ value: true, reasons: [expect.stringMatching(/^60\d(\.\d)? W|^59\d(\.\d)? W/)] });
    expect(at(500).reasons[0]).toMatch(/is more than 1.1 times the power limit of 500 W$/);
    const light = simulate({ seed: 4, period: 0.02, window: 1, windows: 3, loadWatts: 60 });
    const { disputed } = estimateEnergy({ data: light.data, windows: light.windows, idle: light.idle, scope });
    expect(disputed).toEqual({
      value: true,
      reasons: [expect.stringMatching(/^6\S* W under load is less than \S+ W at idle$/)],
    });
  });

  test('a counter that is reset costs the window in which it happened, no other', () => {
    const at = simulated.windows[2]!.begin + 1;
    const offset = counter.values[counter.values.length - 1]!;
    const { windows, refused, perCallJ } = estimate(
      withCounter((value, i) => (counter.seconds[i]! < at ? value + offset : value)),
    );
    expect(windows).toHaveLength(4);
    expect(refused).toEqual([
      {
        begin: simulated.windows[2]!.begin,
        end: simulated.windows[2]!.end,
        reason: expect.stringMatching(/was reset/),
      },
    ]);
    expect(Math.abs(perCallJ.value! / simulated.perCall - 1)).toBeLessThan(0.01);
  });

  test('a clock that goes back costs the windows it touches', () => {
    const seconds = Array.from(counter.seconds);
    const k = seconds.findIndex((time) => time > simulated.windows[1]!.begin + 1);
    seconds[k] = seconds[k]! - 0.3;
    const { windows, refused } = estimate({
      data: { ...simulated.data, counter: { seconds, values: counter.values } },
    });
    expect(windows).toHaveLength(4);
    expect(refused[0]!.reason).toMatch(/^the clock went back from .* s to .* s$/);
    const [first] = simulated.windows;
    const backwards = estimate({ windows: [{ ...first!, begin: first!.end, end: first!.begin }] });
    expect(backwards.perCallJ).toMatchObject({ value: null, reason: expect.stringMatching(/the clock went back/) });
  });

  test('polls that fail for a while are a gap, and so is a meter that stops half-way', () => {
    const failing = estimate(withCounter((value, i) => (i % 50 < 5 ? Number.NaN : value)));
    expect(Math.abs(failing.perCallJ.value! / simulated.perCall - 1)).toBeLessThan(0.01);
    const until = simulated.windows[3]!.begin;
    const stopped = estimate(withCounter((value, i) => (counter.seconds[i]! > until ? Number.NaN : value)));
    expect(stopped.windows).toHaveLength(3);
    expect(stopped.refused[0]!.reason).toMatch(
      /^the counter ticked 0 times in a window of 2.00 s, expected at least 5$/,
    );
    expect(stopped.idleAfterW).toMatchObject({ value: null, reason: expect.stringMatching(/^idle after the load: /) });
  });

  test('a counter that never moves is no meter', () => {
    const zero = estimate(withCounter(() => 0));
    for (const q of [zero.perCallJ, zero.powerW, zero.netPerCallJ])
      expect(q).toMatchObject({ value: null, state: 'zero-stuck', reason: 'the energy counter never moved' });
    expect(zero.endMinusBeginJ.value).toBeNull();
    expect(zero.steady.value).toBeNull();
    expect(zero.uncertainty).toBeNull();
  });

  test('one window has a value and no interval; none has a reason', () => {
    const [only] = simulated.windows;
    const { perCallJ, uncertainty } = estimate({ windows: [only!] });
    expect(perCallJ).toMatchObject({ state: 'ok' });
    expect(perCallJ).not.toHaveProperty('ci95');
    expect(uncertainty!.statistical).toBeNull();
    expect(estimate({ windows: [] }).perCallJ).toMatchObject({ value: null, reason: 'no window of load was marked' });
    expect(estimate({ windows: [{ ...only!, iterations: 0 }] }).perCallJ).toMatchObject({ value: null });
  });

  test('idle that is not known, or not the same before and after, gives no net energy', () => {
    expect(estimate({ idle: {} as Simulated['idle'] }).netPerCallJ).toMatchObject({
      value: null,
      reason: expect.stringMatching(/^idle power is not known: no idle stretch before/),
    });
    const [load] = simulated.windows;
    const wrong = estimate({ idle: { before: simulated.idle.before, after: { begin: load!.begin, end: load!.end } } });
    expect(wrong.netPerCallJ).toMatchObject({ value: null, reason: expect.stringMatching(/more than 10 % apart$/) });
  });

  test('a busy share below 99 %, a clock that wanders, a throttle counter that went back: not steady', () => {
    const idleHalf = simulated.windows.map((window) => ({ ...window, busySeconds: 1 }));
    expect(estimate({ windows: idleHalf }).steady).toEqual({
      value: false,
      reasons: ['the device had work for 50.0 % of a window, expected 99 %'],
    });
    const unknown = simulated.windows.map((window) => ({ ...window, busySeconds: null }));
    expect(estimate({ windows: unknown }).steady.value).toBeNull();
    const seconds = simulated.windows.flatMap(({ begin }) => [begin + 0.1, begin + 0.2]);
    const clockHz = { seconds, values: seconds.map((_, i) => (i % 2 ? 1.98e9 : 1.2e9)) };
    const temperatureC = { seconds: [0, 100], values: [40, 60] };
    const wandering = estimate({ data: { ...simulated.data, clockHz, temperatureC } });
    expect(wandering.clockHz).toMatchObject({ min: 1.2e9, max: 1.98e9 });
    expect(wandering.temperatureC).toEqual({ begin: 40, end: 40 });
    expect(wandering.steady.reasons).toEqual(['the clock ranged from 1200 to 1980 MHz']);
    const back = { swPowerCap: { seconds: [0, 100], values: [5e9, 0] } };
    expect(estimate({ data: { ...simulated.data, throttleNs: back } })).toMatchObject({
      throttledNs: { swPowerCap: null },
      steady: { value: null, reasons: ['the throttle counter swPowerCap went back'] },
    });
    const capped = { swPowerCap: { seconds: [0, 100], values: [0, 5e9] } };
    expect(estimate({ data: { ...simulated.data, throttleNs: capped } }).steady.value).toBe(true);
  });

  test('attributable only where nothing else is covered', () => {
    expect(estimate().attributable).toEqual({ value: true, reasons: [] });
    expect(estimate({}, { otherProcesses: null }).attributable.value).toBeNull();
    expect(estimate({}, { otherProcesses: 2, mig: true, scope: 'package' }).attributable).toEqual({
      value: false,
      reasons: [expect.stringMatching(/package/), expect.stringMatching(/MIG/), '2 other processes used the device'],
    });
    expect(estimate({}, { scope: 'module' }).attributable.value).toBe(false);
  });
});
