// Windows that the user chooses: the bounds hold always, the point estimate lies between them; and the order of windows.
import { describe, expect, test } from 'vitest';
import { boundEnergy, windowOrder } from '../../src/energy/index.js';
import { simulate } from './simulate.js';

describe('energy between two moments', () => {
  const simulated = (seed: number) => simulate({ seed, window: 0.7, period: 0.1, windows: 3, tickNoise: 0 });

  test('400 windows: the truth is always within the bounds, the point estimate close to it', () => {
    let error = 0;
    let blindError = 0;
    let width = 0;
    for (let seed = 1; seed <= 400; seed++) {
      const { data, windows, joules } = simulated(seed);
      const [{ begin, end }] = [windows[1]!];
      const { joules: point, bounds } = boundEnergy(data, begin, end);
      const [low, high] = bounds!;
      expect(low).toBeLessThanOrEqual(joules[1]!);
      expect(high).toBeGreaterThanOrEqual(joules[1]!);
      expect(point.value).toBeGreaterThanOrEqual(low);
      expect(point.value).toBeLessThanOrEqual(high);
      // A period at each end, and another where a tick cannot be told from the moment itself.
      expect(high - low).toBeLessThan(4 * 0.1 * 600);
      width += (high - low) / 400;
      error += (point.value! / joules[1]! - 1) / 400;
      blindError += (boundEnergy({ counter: data.counter }, begin, end).joules.value! / joules[1]! - 1) / 400;
    }
    expect(Math.abs(error)).toBeLessThan(0.005);
    // Theory for a burst without power readings: -(P - Pidle) / P * period / 3 / length.
    expect(blindError).toBeCloseTo(((-500 / 600) * 0.1) / 3 / 0.7, 2);
    expect(width).toBeLessThan(2.1 * 0.1 * 600);
  });

  test('below two periods there is no value but a reason, and the power readings beside it', () => {
    const { data, windows } = simulated(1);
    const { begin } = windows[0]!;
    const { joules, bounds, integral } = boundEnergy(data, begin, begin + 0.15);
    expect(joules).toMatchObject({
      value: null,
      state: 'unavailable',
      reason: expect.stringMatching(
        /^the window of 0.15 s is shorter than two periods of the energy counter \(0.2 s\)/,
      ),
    });
    expect(bounds).toBeNull();
    expect(integral.value! / (0.15 * 600)).toBeCloseTo(1, 1);
    expect(boundEnergy({ counter: data.counter }, begin, begin + 0.15).integral).toMatchObject({
      value: null,
      reason: 'power was not read',
    });
  });

  test('before the first tick and after the last one there is no bound', () => {
    const { data } = simulated(2);
    const { seconds } = data.counter;
    const last = seconds[seconds.length - 1]!;
    expect(boundEnergy(data, last - 1, last).joules).toMatchObject({
      value: null,
      reason: 'the counter has not ticked since the window',
    });
    expect(boundEnergy(data, last - 1, last).bounds).toBeNull();
    expect(boundEnergy(data, 0, 1).joules).toMatchObject({
      value: null,
      reason: expect.stringMatching(/before the window/),
    });
  });

  test('a clock that went back, a counter that was reset, a counter that never moved', () => {
    const { data, windows } = simulated(3);
    const { begin, end } = windows[1]!;
    expect(boundEnergy(data, end, begin).joules).toMatchObject({
      reason: expect.stringMatching(/the clock went back/),
    });
    const { seconds, values } = data.counter;
    const reset = Array.from(values, (value, i) => (seconds[i]! > begin + 0.3 ? value - 1000 : value));
    expect(boundEnergy({ counter: { seconds, values: reset } }, begin, end).joules).toMatchObject({
      reason: expect.stringMatching(/was reset/),
    });
    const still = { counter: { seconds, values: new Float64Array(seconds.length) } };
    expect(boundEnergy(still, begin, end).joules).toMatchObject({ reason: expect.stringMatching(/ticked 0 times/) });
  });
});

describe('the order of windows', () => {
  test('every round holds every case once, the seed decides, and rounds differ', () => {
    const order = windowOrder(4, 50, 3);
    expect(order).toEqual(windowOrder(4, 50, 3));
    expect(order).not.toEqual(windowOrder(4, 50, 4));
    const rounds = Array.from({ length: 50 }, (_, i) => order.slice(4 * i, 4 * i + 4));
    for (const round of rounds) expect([...round].sort()).toEqual([0, 1, 2, 3]);
    expect(new Set(rounds.map(String)).size).toBeGreaterThan(15);
    // No case always comes first.
    for (let one = 0; one < 4; one++) expect(rounds.filter(([head]) => head === one).length).toBeGreaterThan(4);
  });
});
