// A simulated meter of known truth: an H200 that draws 600 W over 100 W idle, a counter that ticks, a sensor with noise, polls with
// jitter, instant and averaged power, throttling. Everything follows from the seed.
import type { LoadWindow, MeterData, Stretch } from '../../src/energy/recording.js';
import { randomSource } from '../../src/random.js';

export interface Simulation {
  seed: number;
  /** Time between ticks of the counter, seconds. */
  period: number;
  /** Length of a load window, and how many. */
  window: number;
  windows: number;
  loadWatts?: number;
  idleWatts?: number;
  /** Standard deviation of each step of the counter as a share of it. */
  tickNoise?: number;
  /** Standard deviation of the moment of a tick, as a share of the period. */
  tickJitter?: number;
  quantum?: number;
  poll?: number;
  /** Power above loadWatts when a window begins, as a share of it, which dies away with `settle` seconds. */
  excess?: number;
  settle?: number;
  /** Each window is interrupted at a random moment by so many seconds at 60 % of its power, thermal throttling. */
  throttle?: number;
  /** Length of the average of the second power series, seconds. */
  averaged?: number;
}

export interface Simulated {
  data: MeterData;
  averagedPower: () => MeterData['power'] & object;
  windows: LoadWindow[];
  idle: { before: Stretch; after: Stretch };
  /** True joules of each window, and of a call over all of them. */
  joules: number[];
  perCall: number;
}

const callsPerSecond = 1000;

function normal(next: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

export function simulate(simulation: Simulation): Simulated {
  const { seed, period, window, windows: count, loadWatts = 600, idleWatts = 100 } = simulation;
  const { tickNoise = 0.01, tickJitter = 0.01, quantum = 0.001, poll = 0.001 } = simulation;
  const { excess = 0, settle = 0.3, throttle = 0, averaged = 1 } = simulation;
  const next = randomSource(seed);
  const idleSeconds = 2;
  const pause = 0.2 + 0.3 * next();
  const windows: LoadWindow[] = [];
  const episodes: Stretch[] = [];
  let time = idleSeconds;
  for (let i = 0; i < count; i++) {
    // Windows begin at any phase of the counter.
    const begin = time + period * next();
    const end = begin + window;
    windows.push({ begin, end, iterations: Math.round(window * callsPerSecond), busySeconds: window });
    if (throttle > 0) {
      const from = begin + (window - throttle) * next();
      episodes.push({ begin: from, end: from + throttle });
    }
    time = end + pause;
  }
  const idle = { before: { begin: 0, end: idleSeconds }, after: { begin: time, end: time + idleSeconds } };
  const total = time + idleSeconds + 0.2;

  // True power on a grid much finer than anything that looks at it.
  const step = 0.0005;
  const size = Math.ceil(total / step) + 1;
  const energy = new Float64Array(size + 1);
  const power = new Float64Array(size + 1).fill(idleWatts);
  for (const [i, { begin, end }] of windows.entries()) {
    for (let k = Math.ceil(begin / step); k * step < end; k++) {
      const at = k * step;
      const { begin: from, end: to } = episodes[i] ?? { begin: 0, end: 0 };
      const slowed = at >= from && at < to ? 0.6 : 1;
      power[k] = loadWatts * slowed * (1 + excess * Math.exp(-(at - begin) / settle));
    }
  }
  for (let k = 0; k < size; k++) energy[k + 1] = energy[k]! + power[k]! * step;
  const energyAt = (at: number): number => {
    const k = Math.min(size - 1, Math.floor(at / step));
    return energy[k]! + power[k]! * (at - k * step);
  };

  const ticks: { at: number; joules: number }[] = [];
  let sensed = 1234.5;
  let before = 0;
  for (let at = period * next(); at < total; ) {
    sensed += (energyAt(at) - before) * (1 + tickNoise * normal(next));
    before = energyAt(at);
    ticks.push({ at, joules: Math.floor(sensed / quantum) * quantum });
    at = Math.max(at + period / 4, at + period * (1 + tickJitter * normal(next)));
  }

  const most = Math.ceil(total / (0.7 * poll));
  const columns = Array.from({ length: 3 }, () => new Float64Array(most));
  const [times, counted, instant] = columns as [Float64Array, Float64Array, Float64Array];
  let tick = 0;
  let polls = 0;
  for (let at = 0; at < total - 0.1; at += poll * (0.7 + 0.6 * next())) {
    while (tick < ticks.length && ticks[tick]!.at <= at) tick++;
    times[polls] = at;
    counted[polls] = tick === 0 ? 1234.5 : ticks[tick - 1]!.joules;
    instant[polls] = power[Math.floor(at / step)]! * (0.98 + 0.04 * next());
    polls++;
  }
  const seconds = times.subarray(0, polls);
  const averagedWatts = (at: number) => (energyAt(at) - energyAt(Math.max(0, at - averaged))) / Math.min(averaged, at);
  const throttledNs = (at: number) =>
    episodes.reduce((ns, { begin, end }) => ns + Math.round(1e9 * Math.max(0, Math.min(at, end) - begin)), 0);
  const joules = windows.map(({ begin, end }) => energyAt(end) - energyAt(begin));
  const calls = windows.reduce((sum, { iterations }) => sum + iterations, 0);
  return {
    data: {
      counter: { seconds, values: counted.subarray(0, polls) },
      power: { seconds, values: instant.subarray(0, polls), averagedSeconds: 0 },
      ...(throttle > 0 && { throttleNs: { hwThermal: { seconds, values: seconds.map(throttledNs) } } }),
    },
    averagedPower: () => ({ seconds, values: seconds.map(averagedWatts), averagedSeconds: averaged }),
    windows,
    idle,
    joules,
    perCall: joules.reduce((a, b) => a + b, 0) / calls,
  };
}
