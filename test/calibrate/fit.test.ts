// Costs by least squares, on simulated windows whose truth is known: values, coverage of the intervals, and what must be missing.
import { describe, expect, test } from 'vitest';
import { type CostWindow, fitCosts } from '../../src/calibrate/fit.js';
import { normal } from '../gate/records.js';

const units = { fma_f32: 'FLOP', dot_bf16: 'FLOP', bytes: 'B' };
/** About an H200. */
const truth = { constantW: 130, fma_f32: 3e-12, dot_bf16: 0.45e-12, bytes: 35e-12 };

const loads: Record<string, CostWindow['rates']> = {
  spin: { fma_f32: 1e9 },
  read: { fma_f32: 1e12, bytes: 4.3e12 },
  'read, half': { fma_f32: 0.6e12, bytes: 2.6e12 },
  copy: { bytes: 4e12 },
  fma: { fma_f32: 60e12 },
  'fma, half': { fma_f32: 31e12 },
  dot: { dot_bf16: 700e12, bytes: 1e9 },
  'dot, half': { dot_bf16: 380e12 },
};

const power = (rates: CostWindow['rates'], costs: Record<string, number> = truth): number =>
  Object.entries(rates).reduce((sum, [name, rate]) => sum + costs[name]! * rate, costs.constantW!);

/** `noise`: of each window, as a share; `off`: by how much a load stands off the line, as a share. */
function simulate(seed: number, noise: number, each = 5, off: Record<string, number> = {}): CostWindow[] {
  const next = normal(seed);
  return Object.entries(loads).flatMap(([load, rates]) =>
    Array.from({ length: each }, () => ({
      load,
      rates,
      watts: power(rates) * (1 + (off[load] ?? 0)) * (1 + noise * next()),
    })),
  );
}

const values = ({ costs, constantW }: ReturnType<typeof fitCosts>) => ({
  constantW: constantW.value,
  ...Object.fromEntries(Object.entries(costs).map(([name, { value }]) => [name, value])),
});

test('without noise the costs are exact, and nothing is left over', () => {
  const fit = fitCosts(simulate(1, 0), units);
  for (const [name, value] of Object.entries(values(fit)))
    expect(value, name).toBeCloseTo(truth[name as keyof typeof truth], name === 'constantW' ? 6 : 17);
  expect(fit).toMatchObject({ windows: 40, loads: 8 });
  expect(fit.residual).toBeLessThan(1e-9);
});

test('intervals cover the truth in 92 to 98 % of runs, at any noise', () => {
  for (const noise of [0.001, 0.01, 0.05]) {
    const covered: Record<string, number> = {};
    const runs = 400;
    for (let seed = 1; seed <= runs; seed++) {
      const { costs, constantW } = fitCosts(simulate(seed, noise), units);
      for (const [name, quantity] of Object.entries({ ...costs, constantW })) {
        const { ci95 } = quantity as { ci95: [number, number] };
        const right = truth[name as keyof typeof truth];
        covered[name] = (covered[name] ?? 0) + (ci95[0] <= right && right <= ci95[1] ? 1 : 0);
      }
    }
    for (const [name, count] of Object.entries(covered)) {
      expect(count / runs, `${name} at ${noise}`).toBeGreaterThanOrEqual(0.92);
      expect(count / runs, `${name} at ${noise}`).toBeLessThanOrEqual(0.98);
    }
  }
});

test('loads off the line are seen, and widen the intervals where more windows would not help', () => {
  const straight = fitCosts(simulate(3, 0.002), units);
  expect(straight).toMatchObject({ misfit: false, degrees: 36 });
  const off = { read: 0.04, copy: -0.04, 'fma, half': 0.03, 'dot, half': -0.03 };
  const bent = fitCosts(simulate(3, 0.002, 5, off), units);
  expect(bent).toMatchObject({ misfit: true, degrees: 4 });
  const width = ({ costs }: typeof bent) => {
    const { ci95 } = costs.bytes as { ci95: [number, number] };
    return ci95[1] - ci95[0];
  };
  expect(width(bent)).toBeGreaterThan(5 * width(straight));
  expect(width(fitCosts(simulate(3, 0.002, 50, off), units))).toBeGreaterThan(0.8 * width(bent));
});

describe('missing with the reason:', () => {
  test('a cost below zero', () => {
    const windows = simulate(1, 0).map((w) => ({ ...w, watts: power(w.rates, { ...truth, fma_f32: -1e-12 }) }));
    const { costs, constantW } = fitCosts(windows, units);
    expect(costs.fma_f32).toMatchObject({
      value: null,
      unit: 'J/FLOP',
      reason: expect.stringContaining('least squares gives -1.00e-12 J/FLOP for fma_f32'),
    });
    expect(costs.bytes!.value).toBeCloseTo(truth.bytes, 17);
    expect(constantW.value).toBeCloseTo(truth.constantW, 6);
  });

  test('what always came together, while the rest is known', () => {
    const together = simulate(1, 0.001).map((w) => ({
      ...w,
      rates: { ...w.rates, dot_bf16: 12 * (w.rates.fma_f32 ?? 0) },
    }));
    const { costs } = fitCosts(together, units);
    for (const name of ['fma_f32', 'dot_bf16'])
      expect(costs[name]).toMatchObject({ value: null, reason: expect.stringContaining('cannot be told apart') });
    expect(costs.bytes!.value).not.toBeNull();
  });

  test('what no load did, and everything where loads are too few or the meter is wrong', () => {
    const without = simulate(1, 0.001).filter(({ load }) => !load.startsWith('dot'));
    const { costs } = fitCosts(without, units);
    expect(costs.dot_bf16).toMatchObject({ value: null, reason: 'no load of dot_bf16 was metered' });
    expect(costs.fma_f32!.value).not.toBeNull();
    const few = fitCosts(
      simulate(1, 0.001).filter(({ load }) => ['read', 'fma'].includes(load)),
      units,
    );
    expect(few.constantW).toMatchObject({
      value: null,
      reason: '2 loads were metered, expected at least 3 for as many costs',
    });
    const dead = fitCosts(
      simulate(1, 0).map((w) => ({ ...w, watts: 0 })),
      units,
    );
    expect(dead.costs.bytes).toMatchObject({ value: null, reason: expect.stringContaining('drew no power') });
    expect(fitCosts([], units).constantW.value).toBeNull();
  });
});

test('as many windows as costs give values without intervals', () => {
  const windows = simulate(1, 0.01, 1).filter(({ load }) => ['spin', 'copy', 'fma', 'dot'].includes(load));
  const { costs, degrees, misfit } = fitCosts(windows, units);
  expect({ degrees, misfit }).toEqual({ degrees: 0, misfit: null });
  expect(costs.bytes).toMatchObject({ state: 'ok' });
  expect(costs.bytes).not.toHaveProperty('ci95');
});
