// Whether an energy estimate may be believed: three judgements, each true, false or (null) not known, each with its reasons.
import type { Quantity } from '../measure/quantity.js';
import { mean } from '../measure/stats.js';
import { studentUpper } from '../measure/student.js';
import type { Fit } from './fit.js';
import type { LoadWindow, MeterScope } from './recording.js';

export interface Judgement {
  /** null: what was recorded cannot tell. */
  value: boolean | null;
  /** What speaks for false (for `disputed`: for true), or why it is not known. */
  reasons: string[];
}

export interface Evidence {
  fits: readonly { window: LoadWindow; fit: Fit }[];
  windows: readonly LoadWindow[];
  throttledNs: Readonly<Record<string, number | null>>;
  clockHz: { min: number; mean: number; max: number } | null;
  perCallJ: Quantity;
  integralJ: Quantity;
  powerW: Quantity;
  idleW: readonly Quantity[];
  /** The power limit in force; null where that is not known. */
  powerLimitW: number | null;
}

/** Counter and power readings this far apart cannot both be right. */
const disputeShare = 0.1;
/** A board keeps its limit within a few percent over seconds; more than this over it is an error of the counter. */
const limitShare = 1.1;
/** Change of power over a window that still counts as steady. */
const steadyDrift = 0.01;
/** Least share of a window in which the device had work. */
const leastBusy = 0.99;
/** Largest spread of the SM clock over all windows, as a share of its mean; a power cap alone moves it by a few steps of 15 MHz. */
const clockSpread = 0.05;
/** A GEMM at its power limit is capped all the time and steady; the processor slowing down for other reasons is not. */
const harmless: ReadonlySet<string> = new Set(['swPowerCap', 'lowUtil']);

export function judgeDisputed({ perCallJ, integralJ, powerW, idleW, powerLimitW }: Evidence): Judgement {
  if (perCallJ.value === null || powerW.value === null)
    return { value: null, reasons: ['the counter gave no energy to compare'] };
  const against: string[] = [];
  const watts = (value: number) => `${Number(value.toPrecision(4))} W`;
  const share = integralJ.value === null ? 0 : integralJ.value / perCallJ.value - 1;
  if (Math.abs(share) > disputeShare) {
    const by = `${(100 * Math.abs(share)).toFixed(0)} % ${share > 0 ? 'more' : 'less'}`;
    against.push(`the power readings add up to ${by} than the energy counter`);
  }
  if (powerLimitW !== null && powerW.value > limitShare * powerLimitW)
    against.push(`${watts(powerW.value)} is more than ${limitShare} times the power limit of ${watts(powerLimitW)}`);
  // Both with their intervals: light work draws hardly more than nothing does.
  const most = powerW.ci95?.[1] ?? powerW.value;
  const idle = idleW.find((one) => one.value !== null && most < (one.ci95?.[0] ?? one.value));
  if (idle?.value != null) against.push(`${watts(powerW.value)} under load is less than ${watts(idle.value)} at idle`);
  if (against.length > 0) return { value: true, reasons: against };
  return integralJ.value === null ? { value: null, reasons: [integralJ.reason] } : { value: false, reasons: [] };
}

export function judgeSteady(evidence: Evidence): Judgement {
  const { fits, windows, throttledNs, clockHz } = evidence;
  if (fits.length === 0) return { value: null, reasons: ['no window could be used'] };
  const against: string[] = [];
  const unknown: string[] = [];
  const drift = pooledDrift(fits.map(({ fit }) => fit));
  const text = `power changed by ${(100 * drift.share).toPrecision(2)} % ± ${(100 * drift.half).toPrecision(2)} % over a window`;
  if (Math.abs(drift.share) - drift.half > steadyDrift) against.push(`${text}, expected within 1 %`);
  else if (Math.abs(drift.share) + drift.half > steadyDrift)
    unknown.push(`${text}, too uncertain to say that it stayed within 1 %; longer or more windows tell`);
  for (const [reason, ns] of Object.entries(throttledNs)) {
    if (ns === null) unknown.push(`the throttle counter ${reason} went back`);
    else if (ns > 0 && !harmless.has(reason)) against.push(`${(ns / 1e6).toPrecision(3)} ms of throttling, ${reason}`);
  }
  if (clockHz && clockHz.max - clockHz.min > clockSpread * clockHz.mean)
    against.push(`the clock ranged from ${clockHz.min / 1e6} to ${clockHz.max / 1e6} MHz`);
  const busy = windows.map(({ begin, end, busySeconds }) =>
    busySeconds === null ? null : busySeconds / (end - begin),
  );
  const least = Math.min(...busy.map((share) => share ?? 1));
  if (least < leastBusy)
    against.push(`the device had work for ${(100 * least).toFixed(1)} % of a window, expected 99 %`);
  if (busy.includes(null)) unknown.push('how long the device had work was not measured');
  if (against.length > 0) return { value: false, reasons: against };
  return { value: unknown.length > 0 ? null : true, reasons: unknown };
}

/**
 * Mean change over a window, all windows together, and the half width of its 90 % interval: a change that lies within 1 % with
 * all of it is shown at the 5 % level to be no larger (equivalence by two one-sided tests).
 */
function pooledDrift(fits: readonly Fit[]): { share: number; half: number } {
  const degrees = fits.reduce((sum, fit) => sum + fit.degrees, 0);
  const error = Math.hypot(...fits.map((fit) => fit.driftError)) / fits.length;
  return { share: mean(fits.map((fit) => fit.drift)), half: studentUpper(0.05, degrees) * error };
}

export function judgeAttributable({ scope, mig, otherProcesses }: MeterScope): Judgement {
  const against: string[] = [];
  if (scope === 'package')
    against.push('the counter covers the whole processor package, with everything that runs on it');
  if (scope === 'module') against.push('the counter covers the whole module, processor included');
  if (mig) against.push('the counter covers the whole GPU, of which this is one instance (MIG)');
  if (otherProcesses !== null && otherProcesses > 0)
    against.push(`${otherProcesses} other process${otherProcesses === 1 ? '' : 'es'} used the device`);
  if (against.length > 0) return { value: false, reasons: against };
  if (otherProcesses === null)
    return { value: null, reasons: ['whether other processes used the device is not known'] };
  return { value: true, reasons: [] };
}
