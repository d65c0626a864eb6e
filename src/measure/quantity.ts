// One measured number with its unit and provenance, or the reason why there is none. Never 0 for unknown.
import type { Interval } from './stats.js';

/** Why a number is missing; `doctor` uses the same words for energy sources. */
export type MissingState = 'unavailable' | 'unsupported' | 'denied' | 'missing' | 'zero-stuck';

export interface Known {
  value: number;
  unit: string;
  state: 'ok';
  /** Where the number comes from or what it is relative to. */
  basis: string;
  ci95?: Interval;
}

export interface Missing {
  value: null;
  unit: string;
  state: MissingState;
  reason: string;
}

export type Quantity = Known | Missing;

export function known(value: number, unit: string, basis: string, ci95?: Interval | null): Quantity {
  if (!Number.isFinite(value)) return missing(unit, `${basis}: the result is ${value}, not a number`);
  return ci95 ? { value, unit, state: 'ok', basis, ci95 } : { value, unit, state: 'ok', basis };
}

export const missing = (unit: string, reason: string, state: MissingState = 'unavailable'): Missing => ({
  value: null,
  unit,
  state,
  reason,
});

/** Applies f to a known value and its interval (f increasing or decreasing); passes a missing one on with its reason. */
export function derived(from: Quantity, unit: string, basis: string, f: (value: number) => number): Quantity {
  if (from.value === null) return { ...from, unit };
  const ends = from.ci95?.map(f).sort((a, b) => a - b) as Interval | undefined;
  return known(f(from.value), unit, basis, ends);
}
