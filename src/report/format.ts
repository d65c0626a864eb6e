// Numbers for people: three significant digits with an SI prefix. Records keep full precision; only tables round.
import type { Quantity } from '../measure/quantity.js';
import type { Interval } from '../measure/stats.js';

const prefixes = [
  [1e12, 'T'],
  [1e9, 'G'],
  [1e6, 'M'],
  [1e3, 'k'],
  [1, ''],
  [1e-3, 'm'],
  [1e-6, 'µ'],
  [1e-9, 'n'],
  [1e-12, 'p'],
] as const;

/** Three significant digits without an exponent: 0.0123, 1.23, 123, 12300. */
export function digits(value: number): string {
  if (value === 0) return '0';
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  return Math.abs(value) >= 1e6 || Math.abs(value) < 1e-4
    ? value.toExponential(2)
    : value.toFixed(Math.min(8, Math.max(0, 2 - magnitude)));
}

/** 1.23e-5 s -> `12.3 µs`; 4.5e11 FLOP/s -> `450 GFLOP/s`. */
export function si(value: number, unit: string): string {
  if (!Number.isFinite(value)) return `${value} ${unit}`;
  // Rounding first, so that 999.6 ns becomes 1.00 µs and not 1000 ns.
  const rounded = Number(value.toPrecision(3));
  const [scale, prefix] =
    prefixes.find(([s]) => Math.abs(rounded) >= s) ?? (rounded === 0 ? [1, ''] : prefixes.at(-1)!);
  return `${digits(rounded / scale)} ${prefix}${unit}`;
}

export const percent = (share: number): string => `${digits(100 * share)} %`;

/** Binary units, as memory is sold: `480 MiB`. */
export function bytes(count: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  const step = count < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(count) / 10));
  return `${digits(Number((count / 1024 ** step).toPrecision(4)))} ${units[step]}`;
}

/** Half width of an interval relative to its centre: `±1.2 %`, or nothing where there is no interval. */
export const plusMinus = (interval: Interval | null, center: number): string =>
  interval === null || center === 0 ? '' : `±${((100 * (interval[1] - interval[0])) / 2 / center).toPrecision(2)} %`;

/** A quantity by its unit; `n/a` where it is missing (the reasons are printed once, below the table). */
export function quantity(q: Quantity): string {
  if (q.value === null) return 'n/a';
  if (q.unit === '1') return percent(q.value);
  if (q.unit === 'B') return bytes(q.value);
  if (q.unit === 'GB') return `${digits(q.value)} GB`;
  if (q.unit === 'tokens/param/s') return `${digits(Number(q.value.toPrecision(3)))} ${q.unit}`;
  return si(q.value, q.unit);
}

/** Minutes and seconds still to go, coarse on purpose: `40 s`, `3 min`. */
export const duration = (seconds: number): string =>
  seconds < 90 ? `${Math.max(1, Math.round(seconds))} s` : `${Math.round(seconds / 60)} min`;
