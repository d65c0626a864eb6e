// The energy part of records: sums over counters, joules per token, operation and byte, ratios of windows that took turns, the energy
// roofline, what is flagged, and that all of it fits the published schema.
import { describe, expect, test } from 'vitest';
import { energyRatio, energyRecord, type Metered, unmetered } from '../../src/measure/energy.js';
import { energyEfficiency, energyFloor } from '../../src/measure/energy_floor.js';
import { known, missing } from '../../src/measure/quantity.js';
import { randomSource } from '../../src/random.js';
import { complaints, metered, record, subject } from './record.js';

const { work } = subject;
const half = ([low, high]: readonly number[]) => (high! - low!) / 2;

describe('one counter', () => {
  const energy = energyRecord(metered([0.2, 0.21, 0.19]), work);

  test('its numbers, and what follows from them', () => {
    expect(energy.perCallJ.value).toBeCloseTo(0.2, 9);
    expect(energy.powerW.value).toBeCloseTo(200, 6);
    expect(energy.perTokenJ).toMatchObject({ value: expect.closeTo(0.02, 9), unit: 'J' });
    expect(energy.perFlopJ).toMatchObject({ value: expect.closeTo(2e-10, 15), unit: 'J/FLOP' });
    expect(energy.perByteJ).toMatchObject({ value: expect.closeTo(2e-8, 13), unit: 'J/B' });
    expect(energy.secondsPerCall.value).toBeCloseTo(1e-3, 9);
    expect(energy.domains).toHaveLength(1);
    expect(energy.includes).toEqual(['a made-up board']);
    expect(energy.excludes).toContain('the processor and its memory');
    // A call without a number of tokens has none.
    expect(energyRecord(metered([1, 1]), { ...work, tokens: null }).perTokenJ).toMatchObject({
      value: null,
      reason: 'this work does not say how many tokens a call covers',
    });
  });

  test('stands in the record, in AEC, and fits the schema', () => {
    const one = record({ energy: metered([0.2, 0.21, 0.19]) });
    expect(complaints(JSON.parse(JSON.stringify(one)))).toEqual([]);
    expect(one.metrics!.AEC.paper.AEC.value).toBeCloseTo(200, 6);
    expect(one.metrics!.AEC.honest.joulesPerToken.value).toBeCloseTo(0.02, 9);
    expect(one.flags).toEqual([]);
  });
});

test('several counters add, and their errors in squares; one without a number leaves the sum without', () => {
  const [a, b] = [metered([3, 3.3, 2.7], { name: 'package-0' }), metered([4, 4.4, 3.6], { name: 'package-1' })];
  const both: Metered = { ...a, domains: [...a.domains, ...b.domains], covers: ['one', 'two'] };
  const energy = energyRecord(both, work);
  expect(energy.perCallJ).toMatchObject({ value: expect.closeTo(7, 6) });
  const ends = [a, b].map(({ domains }) => (domains[0]!.perCallJ as { ci95: number[] }).ci95);
  expect(half((energy.perCallJ as { ci95: number[] }).ci95)).toBeCloseTo(Math.hypot(half(ends[0]!), half(ends[1]!)), 6);
  expect(energy.includes).toEqual(['one', 'two']);
  const broken = { ...b.domains[0]!, perCallJ: missing('J', 'it stopped') };
  expect(energyRecord({ ...both, domains: [a.domains[0]!, broken] }, work).perCallJ).toMatchObject({
    value: null,
    reason: 'package-1: it stopped',
  });
});

test('nothing metered: every number has the reason, and what could not be read is listed', () => {
  const unread = [{ name: 'package-0', state: 'denied' as const, reason: 'only root may read it', fix: 'chmod' }];
  const energy = energyRecord(unmetered('only root may read it', 'denied', unread), work);
  for (const name of ['perCallJ', 'powerW', 'netPerCallJ', 'perTokenJ', 'perFlopJ', 'perByteJ'] as const)
    expect(energy[name], name).toMatchObject({ value: null, state: 'denied', reason: 'only root may read it' });
  expect(energy).toMatchObject({ domains: [], unread, attributable: { value: null } });
});

describe('flags', () => {
  test('disputed, unsteady and not attributable, each with its reasons', () => {
    const disputed = record({ energy: metered([1, 1, 1], { powerShare: 1.2 }) });
    expect(disputed.flags).toEqual(['disputed']);
    expect(disputed.energy.disputed.reasons).toEqual([
      'the power readings add up to 20 % more than the energy counter',
    ]);
    expect(record({ energy: metered([1, 1], { scope: 'package' }) }).flags).toEqual(['not-attributable']);
    const steps = metered([1, 1, 1]);
    const idle = { ...steps, windows: steps.windows.map((one) => ({ ...one, busySeconds: 0.5 })) };
    expect(record({ energy: idle }).flags).toEqual([]);
    const unsteady = { value: false, reasons: ['the clock ranged'] };
    const moved = { ...steps, domains: steps.domains.map((one) => ({ ...one, steady: unsteady })) };
    expect(record({ energy: moved }).flags).toEqual(['unsteady']);
  });

  test('of several counters one is enough, and a judgement that one cannot give is open', () => {
    const [good, bad] = [metered([1, 1]).domains[0]!, metered([1, 1], { powerShare: 1.2, name: 'gpu:1' }).domains[0]!];
    const both = (...domains: (typeof good)[]) => energyRecord({ ...metered([1, 1]), domains }, work);
    expect(both(good, bad).disputed).toEqual({
      value: true,
      reasons: ['gpu:1: the power readings add up to 20 % more than the energy counter'],
    });
    const open = { ...good, disputed: { value: null, reasons: ['power was not read'] } };
    expect(both(good, open).disputed.value).toBe(null);
    expect(both(good, good).disputed).toEqual({ value: false, reasons: [] });
  });
});

describe('ratios of windows in turns', () => {
  test('drift that both share cancels, though it is far wider than the difference', () => {
    const drift = [1, 1.2, 1.4, 1.6, 1.8];
    const { energyRatio: q, energyRounds } = energyRatio(metered(drift.map((level) => 0.9 * level)), metered(drift));
    expect(energyRounds).toBe(5);
    expect(q).toMatchObject({ value: expect.closeTo(0.9, 6) });
    expect((q as { ci95: number[] }).ci95[1]).toBeLessThan(0.92);
  });

  test('the interval covers the truth in 92 to 98 of 100 runs', () => {
    const next = randomSource(7);
    const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
    const noisy = (joules: number) => metered(Array.from({ length: 5 }, () => joules * Math.exp(0.02 * normal())));
    let covered = 0;
    for (let run = 0; run < 400; run++) {
      const [low, high] = (energyRatio(noisy(1.1), noisy(1)).energyRatio as { ci95: number[] }).ci95;
      if (low! <= 1.1 && high! >= 1.1) covered++;
    }
    expect(covered / 400).toBeGreaterThanOrEqual(0.92);
    expect(covered / 400).toBeLessThanOrEqual(0.98);
  });

  test('a refused window costs its round; fewer than two rounds, other counters or no meter give no ratio', () => {
    const one = metered([1, 1, 1]);
    const less = (kept: number): Metered => ({
      ...one,
      domains: one.domains.map((domain) => ({ ...domain, windows: domain.windows.slice(0, kept) })),
    });
    expect(energyRatio(less(2), one)).toMatchObject({ energyRounds: 2, energyRatio: { value: expect.closeTo(1, 6) } });
    expect(energyRatio(less(1), one)).toMatchObject({ energyRounds: 1, energyRatio: { value: null } });
    expect(energyRatio(metered([1, 1], { name: 'gpu:1' }), one).energyRatio).toMatchObject({ value: null });
    expect(energyRatio(one, unmetered('no meter', 'missing'))).toEqual({
      energyRatio: missing('1', 'no meter', 'missing'),
      energyRounds: 0,
    });
  });
});

describe('the energy roofline', () => {
  const calibration = {
    joulesPerFlop: known(1e-12, 'J/FLOP', 'a test', [0.9e-12, 1.1e-12]),
    joulesPerByte: known(4e-11, 'J/B', 'a test', [3e-11, 5e-11]),
    constantW: known(60, 'W', 'a test', [50, 70]),
    source: 'calibration 1a2b3c4d of a test',
  };

  test('the least energy of operations, bytes and the shortest time, and the share of it', () => {
    const floor = energyFloor({ ...work, flops: 1e9, minBytes: 1e7 }, 0.01, calibration);
    expect(floor).toMatchObject({ value: expect.closeTo(1e-3 + 4e-4 + 0.6, 9), unit: 'J' });
    expect((floor as { ci95: number[] }).ci95[0]).toBeCloseTo(0.9e-3 + 3e-4 + 0.5, 9);
    expect(energyEfficiency(floor, known(1.2028, 'J', 'a test'))).toMatchObject({
      value: expect.closeTo(0.5, 3),
      unit: '1',
    });
    const one = record({ energy: metered([1.2028, 1.2028]), calibration });
    expect(one.roofline!.energyEfficiency.value).toBeCloseTo(0.5, 3);
    expect(complaints(JSON.parse(JSON.stringify(one)))).toEqual([]);
  });

  test('without a calibration, or with one that failed, there is none', () => {
    expect(energyFloor(work, 0.01, null)).toMatchObject({ value: null, reason: expect.stringContaining('calibrated') });
    const failed = { ...calibration, constantW: missing('W', 'the fit is singular') };
    expect(energyEfficiency(energyFloor(work, 0.01, failed), known(1, 'J', 'a test'))).toMatchObject({
      value: null,
      unit: '1',
      reason: 'the fit is singular',
    });
  });
});
