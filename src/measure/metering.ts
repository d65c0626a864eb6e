// Takes the energy windows of measure() and compare(): idle, then windows of load with the cases in random order, then idle, all
// on one meter, and hands the readings to the estimator. A meter that fails costs the joules; the run goes on.
import { setTimeout } from 'node:timers/promises';
import type { Device } from '../device.js';
import { estimateEnergy } from '../energy/estimate.js';
import { windowOrder } from '../energy/order.js';
import type { LoadWindow, MeterData, Stretch } from '../energy/recording.js';
import { findTicks, type Series } from '../energy/ticks.js';
import { type DomainRecording, type MeterDomain, openMeter } from '../meter/meter.js';
import { type EnergyObservation, type Unmetered, unmetered } from './energy.js';
import type { GpuFacts } from './environment.js';
import { gpuLoad } from './gpu_load.js';
import { calibrate } from './loop.js';
import type { EnergyMeter, EnergySettings, Settings } from './options.js';
import type { EnergyDomain, EnergyRecord } from './record.js';
import { monotonic, type Subject } from './subject.js';

/** Power needs this long to settle after the load changed, seconds, or so many ticks of the counter. */
const settleSeconds = 0.5;
const settleTicks = 5;
/** A window holds at least so many ticks and calls; for the calls it grows to so many times its length at most. */
const windowTicks = 20;
const windowCalls = 32;
const longestGrowth = 5;
/** Idle power is fitted like that of a window, so it takes some ticks too. */
const idleTicks = 8;
/** A counter that has not told its period by then is given this much longer, seconds. */
const patienceSeconds = 1;

interface Metering {
  meter: EnergyMeter;
  /** Indices of the subjects it meters. */
  subjects: number[];
  /** Counters that can be read, as they were at the beginning. */
  names: Set<string>;
  /** Counters that do not move. */
  stuck: EnergyRecord['unread'];
  /** What was read while nothing ran. */
  before: DomainRecording[];
  after: DomainRecording[];
  failed: Unmetered | null;
}

/**
 * Meters every subject. `gpu`: the driver's view of it, for the power limit.
 * @throws what the work itself throws, and the signal's reason.
 */
export async function meterEnergy(
  subjects: readonly Subject[],
  { energy: asked, seed, signal }: Pick<Settings, 'energy' | 'seed' | 'signal'>,
  gpu: GpuFacts | null,
  onProgress: (done: number) => void = () => {},
): Promise<EnergyObservation[]> {
  if (asked === null) return subjects.map(() => unmetered('metering was switched off for this run'));
  const opened: AsyncDisposable[] = [];
  try {
    const meterings = await meters(subjects, asked, opened);
    const seen = subjects.map((one, i): EnergyObservation | null => refusal(one) ?? meteringOf(meterings, i).failed);
    const wanted = [...subjects.keys()].filter((i) => seen[i] === null);
    if (wanted.length === 0) return seen as EnergyObservation[];
    const used = meterings.filter((one) => one.subjects.some((i) => wanted.includes(i)));
    const { before, periodSeconds } = await idleBefore(used, asked, signal);
    const metered = wanted.filter((i) => meteringOf(used, i).failed === null);
    const windows: LoadWindow[][] = subjects.map(() => []);
    // Meters thin what is old, so each window is read as soon as it is over.
    const read: DomainRecording[][] = subjects.map(() => []);
    if (metered.length > 0) {
      const settle = Math.max(settleSeconds, settleTicks * periodSeconds);
      const calls: number[] = [];
      for (const i of metered)
        calls.push((await calibrate(subjects[i]!.runner(subjects[i]!.clocks[0]!), 1e-3)).perCall);
      const order = windowOrder(metered.length, asked.windows, seed);
      for (const [done, at] of order.entries()) {
        signal?.throwIfAborted();
        const secondsPerCall = calls[at]!;
        const forCalls = Math.min(windowCalls * secondsPerCall, longestGrowth * asked.windowSeconds);
        const seconds = Math.max(asked.windowSeconds, windowTicks * periodSeconds, forCalls);
        const i = metered[at]!;
        const meter = meteringOf(used, i);
        if (meter.failed !== null) continue;
        const window = await subjects[i]!.load({ settleSeconds: settle, seconds, secondsPerCall });
        windows[i]!.push(window);
        read[i]!.push(...(await recordings(meter, window)));
        onProgress((done + 1) / (order.length + 1));
      }
      await pause(settle, signal);
      const after = await stretch(Math.max(asked.idleSeconds, idleTicks * periodSeconds), signal);
      for (const one of used) {
        one.after = await recordings(one, after);
        for (const i of one.subjects)
          if (metered.includes(i))
            seen[i] = one.failed ?? estimates(one, read[i]!, windows[i]!, { before, after }, gpu);
      }
    }
    return seen.map((one, i) => one ?? meteringOf(used, i).failed!);
  } finally {
    for (const meter of opened) await meter[Symbol.asyncDispose]();
  }
}

const meteringOf = (all: readonly Metering[], subject: number): Metering =>
  all.find(({ subjects }) => subjects.includes(subject))!;

const refusal = (one: Subject): Unmetered | null =>
  one.zeroInputs
    ? unmetered('all inputs are zeros, which draw less power than any data would; meter with random inputs')
    : null;

/** The meter that was given, or one for each device among the subjects. */
async function meters(
  subjects: readonly Subject[],
  { meter }: EnergySettings,
  opened: AsyncDisposable[],
): Promise<Metering[]> {
  if (meter) return [metering(meter, [...subjects.keys()])];
  const devices = new Map<Device | 'cpu', number[]>();
  for (const [i, { device }] of subjects.entries()) {
    const key = device?.kind === 'cuda' ? device : 'cpu';
    devices.set(key, [...(devices.get(key) ?? []), i]);
  }
  const found: Metering[] = [];
  for (const [device, members] of devices) {
    const own = await openMeter({ device });
    opened.push(own);
    found.push(metering(own, members));
  }
  return found;
}

function metering(meter: EnergyMeter, subjects: number[]): Metering {
  const names = new Set(meter.domains.filter(({ state }) => state === 'ok').map(({ name }) => name));
  return { meter, subjects, names, stuck: [], before: [], after: [], failed: unreadable(meter) };
}

/** Why a meter reads nothing; null where it has a counter. */
export function unreadable({ domains }: EnergyMeter): Unmetered | null {
  if (domains.some(({ state }) => state === 'ok')) return null;
  const [first] = domains;
  return unmetered(
    first
      ? `${first.name} energy cannot be read: ${first.reason ?? 'no reason is known'}; kernwatt doctor lists every meter`
      : 'the meter has no counter',
    first && first.state !== 'ok' ? first.state : 'unavailable',
    domains.flatMap(unread),
  );
}

function unread({ name, state, reason, fix }: MeterDomain): EnergyRecord['unread'] {
  return state === 'ok' ? [] : [{ name, state, reason: reason ?? 'no reason is known', fix }];
}

/** Idle stretches say both what idle draws and how often each counter ticks. A counter that does not move is no meter. */
async function idleBefore(
  all: readonly Metering[],
  { idleSeconds }: EnergySettings,
  signal: AbortSignal | undefined,
): Promise<{ before: Stretch; periodSeconds: number }> {
  await pause(settleSeconds, signal);
  const before = await stretch(idleSeconds, signal);
  let periodSeconds = await periodOf(all, before);
  if (Number.isNaN(periodSeconds)) {
    await pause(patienceSeconds, signal);
    before.end = monotonic();
    periodSeconds = await periodOf(all, before);
  }
  const missingTime = idleTicks * periodSeconds - (before.end - before.begin);
  if (missingTime > 0) {
    await pause(missingTime, signal);
    before.end = monotonic();
  }
  for (const one of all) await leaveOutStuck(one, before);
  return { before, periodSeconds: Number.isNaN(periodSeconds) ? 0 : periodSeconds };
}

async function leaveOutStuck(one: Metering, idle: Stretch): Promise<void> {
  const reason = `the energy counter did not move in ${(idle.end - idle.begin).toPrecision(2)} s`;
  one.before = await recordings(one, idle);
  for (const { domain, data } of one.before) {
    if (findTicks(data.counter).seconds.length > 0) continue;
    one.names.delete(domain.name);
    one.stuck.push({ name: domain.name, state: 'zero-stuck', reason, fix: domain.fix });
  }
  if (one.failed === null && one.names.size === 0) one.failed = unmetered(reason, 'zero-stuck', one.stuck);
}

/** The longest period of any counter, seconds; NaN while one has not ticked often enough to tell. */
async function periodOf(all: readonly Metering[], idle: Stretch): Promise<number> {
  let longest = 0;
  for (const one of all)
    for (const { data } of await recordings(one, idle))
      longest = Math.max(longest, findTicks(data.counter).periodSeconds);
  return longest;
}

/** What the readable counters of a meter showed; nothing, and the reason kept, once it has failed. */
async function recordings(one: Metering, { begin, end }: Stretch): Promise<DomainRecording[]> {
  if (one.failed !== null) return [];
  try {
    return (await one.meter.recording({ begin, end })).filter(({ domain }) => one.names.has(domain.name));
  } catch (error) {
    one.failed = unmetered(`the meter failed: ${(error as Error).message}`);
    return [];
  }
}

function estimates(
  { meter, names, stuck, before, after }: Metering,
  read: readonly DomainRecording[],
  windows: readonly LoadWindow[],
  idle: { before: Stretch; after: Stretch },
  gpu: GpuFacts | null,
): EnergyObservation {
  const all = [...names].map((name) =>
    joined([...before, ...read, ...after].filter((one) => one.domain.name === name)),
  );
  const domains = all.map(({ domain: { name, source, scope: covered }, data, scope }): EnergyDomain => {
    const powerLimitW = source === 'nvml' ? (gpu?.powerLimitW.enforced ?? null) : null;
    const estimate = estimateEnergy({ data, windows, idle, scope, powerLimitW });
    return { name, source: source!, scope: covered, ...estimate };
  });
  const others = [...stuck, ...meter.domains.flatMap(unread)].filter(
    ({ name }, i, all) => all.findIndex((one) => one.name === name) === i && !domains.some((one) => one.name === name),
  );
  const gpus = all.filter(({ domain }) => domain.source === 'nvml');
  return {
    windows,
    domains,
    covers: all.map(({ domain }) => domain.covers),
    unread: others,
    gpu: gpus.length === 1 ? gpuLoad(gpus[0]!, windows, settleSeconds) : null,
  };
}

/** Recordings of one domain one after the other as one; where two overlap, as they do around a moment, readings count once. */
function joined(parts: readonly DomainRecording[]): DomainRecording {
  const data: MeterData[] = parts.map((part) => part.data);
  const last = parts.at(-1)!;
  const power = data.flatMap((one) => (one.power ? [one.power] : []));
  const reasons = new Set(data.flatMap(({ throttleNs }) => Object.keys(throttleNs ?? {})));
  const others = parts.map(({ scope }) => scope.otherProcesses);
  const series = (of: (one: MeterData) => Series | undefined): Series | undefined => {
    const found = data.flatMap((one) => of(one) ?? []);
    return found.length > 0 ? chained(found) : undefined;
  };
  const clockHz = series((one) => one.clockHz);
  const temperatureC = series((one) => one.temperatureC);
  const busyShare = series((one) => one.busyShare);
  const { refused } = last.data;
  const throttleNs = Object.fromEntries(
    [...reasons].map((reason) => [reason, series((one) => one.throttleNs?.[reason])!] as const),
  );
  return {
    domain: last.domain,
    thinnedBefore: Math.max(...parts.map(({ thinnedBefore }) => thinnedBefore)),
    scope: { ...last.scope, otherProcesses: others.includes(null) ? null : Math.max(...(others as number[])) },
    data: {
      counter: chained(data.map(({ counter }) => counter)),
      ...(power.length > 0 && { power: { ...chained(power), averagedSeconds: power[0]!.averagedSeconds } }),
      ...(reasons.size > 0 && { throttleNs }),
      ...(clockHz && { clockHz }),
      ...(temperatureC && { temperatureC }),
      ...(busyShare && { busyShare }),
      ...(refused && { refused }),
    },
  };
}

function chained(parts: readonly Series[]): Series {
  const seconds: number[] = [];
  const values: number[] = [];
  let until = Number.NEGATIVE_INFINITY;
  for (const part of parts) {
    for (let i = 0; i < part.seconds.length; i++) {
      if (part.seconds[i]! <= until) continue;
      seconds.push(part.seconds[i]!);
      values.push(part.values[i]!);
    }
    until = Math.max(until, ...seconds.slice(-1));
  }
  const breaks = parts.flatMap((part) => part.breaks ?? []);
  return breaks.length > 0 ? { seconds, values, breaks } : { seconds, values };
}

async function pause(seconds: number, signal: AbortSignal | undefined): Promise<void> {
  try {
    await setTimeout(1000 * seconds, undefined, signal ? { signal } : {});
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

async function stretch(seconds: number, signal: AbortSignal | undefined): Promise<Stretch> {
  const begin = monotonic();
  await pause(seconds, signal);
  return { begin, end: monotonic() };
}
