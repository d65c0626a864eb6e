// The energy part of a record: what the estimates of single counters come to together, per call, token, operation and byte, and
// ratios of two cases whose windows took turns. Arithmetic only; taking the windows is metering.ts.
import { combine } from '../energy/estimate.js';
import type { Judgement } from '../energy/judge.js';
import type { LoadWindow, MeterScope } from '../energy/recording.js';
import type { GpuLoad } from './gpu_load.js';
import { derived, known, type Missing, type MissingState, missing, type Quantity } from './quantity.js';
import type { EnergyDomain, EnergyRecord, WorkRecord } from './record.js';
import { type Interval, mean, studentT95 } from './stats.js';

/** What was metered of one case. */
export interface Metered {
  /** In the order of their rounds. */
  windows: readonly LoadWindow[];
  domains: readonly EnergyDomain[];
  /** What each domain covers, in words. */
  covers: readonly string[];
  unread: EnergyRecord['unread'];
  /** What NVML said of the GPU meanwhile; null where no counter, or more than one, is NVML's. */
  gpu: GpuLoad | null;
}

/** Why nothing was. */
export interface Unmetered {
  absent: { state: MissingState; reason: string };
  unread: EnergyRecord['unread'];
}

export type EnergyObservation = Metered | Unmetered;

export const unmetered = (
  reason: string,
  state: MissingState = 'unavailable',
  unread: EnergyRecord['unread'] = [],
): Unmetered => ({ absent: { state, reason }, unread });

/** What no counter of a scope sees. */
const machineRest = ['disks and network', 'cooling and the losses of the power supply'];
const outside: Record<MeterScope['scope'], readonly string[]> = {
  gpu: ['the processor and its memory', 'other GPUs', ...machineRest],
  'physical-gpu': ['the processor and its memory', 'other GPUs', ...machineRest],
  module: ['other modules', ...machineRest],
  package: ['GPUs', ...machineRest],
};

export function energyRecord(seen: EnergyObservation, { tokens, flops, minBytes }: WorkRecord): EnergyRecord {
  if ('absent' in seen) return nothing(seen);
  const { domains, windows, covers, unread } = seen;
  const total = (of: (domain: EnergyDomain) => Quantity): Quantity => sum(domains, of);
  const perCallJ = total((domain) => domain.perCallJ);
  const per = (count: number | null, what: string, unit: string): Quantity =>
    count
      ? derived(perCallJ, unit, `joules per call over ${count} ${what}`, (joules) => joules / count)
      : missing(unit, `this work does not say how many ${what} a call covers`);
  const lengths = windows.map(({ begin, end, iterations }) => (end - begin) / iterations);
  const memory = domains.some(({ scope, name }) => scope === 'package' && !name.includes('dram')) ? ['memory'] : [];
  const readMemory = domains.some(({ name }) => name.includes('dram'));
  return {
    perCallJ,
    powerW: total((domain) => domain.powerW),
    netPerCallJ: total((domain) => domain.netPerCallJ),
    perTokenJ: per(tokens, 'tokens', 'J'),
    perFlopJ: per(flops, 'operations', 'J/FLOP'),
    perByteJ: per(minBytes, 'bytes that must move', 'J/B'),
    secondsPerCall: known(mean(lengths), 's', `mean over ${windows.length} energy windows`),
    disputed: together(domains, ({ disputed }) => disputed, true),
    steady: together(domains, ({ steady }) => steady, false),
    attributable: together(domains, ({ attributable }) => attributable, false),
    includes: [...covers],
    excludes: [
      ...new Set([
        ...unread.map(({ name, reason }) => `${name}: ${reason}`),
        ...(readMemory ? [] : memory),
        ...domains.flatMap(({ scope }) => outside[scope]),
      ]),
    ],
    domains: [...domains],
    unread: [...unread],
  };
}

function nothing({ absent: { state, reason }, unread }: Unmetered): EnergyRecord {
  const none = (unit: string): Missing => missing(unit, reason, state);
  const unknown: Judgement = { value: null, reasons: [reason] };
  return {
    perCallJ: none('J'),
    powerW: none('W'),
    netPerCallJ: none('J'),
    perTokenJ: none('J'),
    perFlopJ: none('J/FLOP'),
    perByteJ: none('J/B'),
    secondsPerCall: none('s'),
    disputed: unknown,
    steady: unknown,
    attributable: unknown,
    includes: [],
    excludes: [],
    domains: [],
    unread: [...unread],
  };
}

/** Sum over domains, whose errors are independent: half widths add in squares, each side by itself. */
function sum(domains: readonly EnergyDomain[], of: (domain: EnergyDomain) => Quantity): Quantity {
  const parts = domains.map((domain) => ({ name: domain.name, q: of(domain) }));
  const [first] = parts;
  if (parts.length === 1) return first!.q;
  const unknown = parts.find(({ q }) => q.value === null);
  if (unknown) return { ...(unknown.q as Missing), reason: `${unknown.name}: ${(unknown.q as Missing).reason}` };
  const value = parts.reduce((total, { q }) => total + q.value!, 0);
  const sides = parts.map(({ q }) => ('ci95' in q && q.ci95 ? [q.value! - q.ci95[0], q.ci95[1] - q.value!] : null));
  const whole = sides.every((side) => side !== null);
  const half = (side: 0 | 1): number => Math.hypot(...sides.map((one) => one![side]!));
  const basis = `sum of ${parts.map(({ name }) => name).join(' and ')}, each: ${(first!.q as { basis: string }).basis}`;
  return known(value, first!.q.unit, basis, whole ? [value - half(0), value + half(1)] : null);
}

/** One domain with `bad` is enough; one that cannot tell leaves the rest untold. */
function together(domains: readonly EnergyDomain[], of: (domain: EnergyDomain) => Judgement, bad: boolean): Judgement {
  const all = domains.map((domain) => ({ name: domain.name, judgement: of(domain) }));
  const decisive = [bad, null].find((value) => all.some(({ judgement }) => judgement.value === value));
  const value = decisive === undefined ? !bad : decisive;
  const reasons = all
    .filter(({ judgement }) => judgement.value === value)
    .flatMap(({ name, judgement }) => judgement.reasons.map((one) => (all.length > 1 ? `${name}: ${one}` : one)));
  return { value, reasons };
}

/** Joules per call of each round, all domains together; null where a window of one of them was refused. */
function rounds({ windows, domains }: Metered): (number | null)[] {
  return windows.map(({ begin }) => {
    let joules = 0;
    for (const domain of domains) {
      const window = domain.windows.find((one) => one.begin === begin);
      if (!window) return null;
      joules += window.perCallJ;
    }
    return joules;
  });
}

const fewestRounds = 2;

/** What no repetition shows: the unit of the counters and power that changed within windows, as a share of the joules. */
const systematic = ({ domains }: Metered): number =>
  Math.max(
    0,
    ...domains.map(({ uncertainty }) => (uncertainty ? (combine({ ...uncertainty, statistical: 0 }) ?? 0) : 0)),
  );

/**
 * Energy per call over that of the baseline: geometric mean of the ratios of windows of one round, which stand minutes apart at
 * most, with Student's interval over rounds. A gain error of the meter is in both and cancels.
 */
export function energyRatio(
  here: EnergyObservation,
  base: EnergyObservation,
): { energyRatio: Quantity; energyRounds: number } {
  for (const one of [here, base])
    if ('absent' in one) return { energyRatio: missing('1', one.absent.reason, one.absent.state), energyRounds: 0 };
  const [a, b] = [here as Metered, base as Metered];
  if (a.domains.map(({ name }) => name).join() !== b.domains.map(({ name }) => name).join())
    return { energyRatio: missing('1', 'the two were metered by different counters'), energyRounds: 0 };
  const [over, under] = [rounds(a), rounds(b)];
  const logs = over.flatMap((joules, i) => {
    const other = under[i] ?? null;
    return joules !== null && other !== null && joules > 0 && other > 0 ? [Math.log(joules / other)] : [];
  });
  const n = logs.length;
  if (n < fewestRounds)
    return {
      energyRatio: missing(
        '1',
        `${n} of ${over.length} rounds of windows can be used, expected at least ${fewestRounds}`,
      ),
      energyRounds: n,
    };
  const center = mean(logs);
  const variance = logs.reduce((total, log) => total + (log - center) ** 2, 0) / (n - 1);
  const half = Math.hypot(studentT95(n - 1) * Math.sqrt(variance / n), systematic(a), systematic(b));
  const ends: Interval = [Math.exp(center - half), Math.exp(center + half)];
  const basis = `geometric mean of the ratios of joules per call over ${n} rounds of windows in random order`;
  return { energyRatio: known(Math.exp(center), '1', basis, ends), energyRounds: n };
}
