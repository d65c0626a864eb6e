// Measuring and checking as the package exports them: their code, half of the package, is loaded when it is first called, so
// that a server that does neither starts faster.
import type { CalibrateOptions, CalibrationResult } from './calibrate/calibrate.js';
import type { Case } from './case.js';
import type { CheckOpOptions, CheckOptions, CheckOutcome } from './check.js';
import type { Device } from './device.js';
import type { ComparisonResult } from './measure/compare.js';
import type { CompareOptions, MeasureOptions } from './measure/options.js';
import type { MeasureRecord } from './measure/record.js';
import type { Measurable } from './measure/subject.js';
import type { Meter, MeterOptions } from './meter/meter.js';
import type { Operator } from './op.js';

const checking = () => import('./check.js');

/**
 * Measures a plan: time by each clock, memory, work against measured peaks, and the six metrics, in one record of schema
 * `kernwatt.measure/1`. Outputs are compared with the operator's definition before, and must be the same bit for bit after;
 * otherwise the verdict is `invalid` and the record carries no performance number. Of a function, whose promise if any is
 * awaited, it measures host time and, with `device`, memory.
 *
 * Times are seconds per call. Nothing is discarded: see `flags`, `stop` and `stolenSamples` for how far to trust them.
 *
 * @throws {KernwattError} `ARGUMENT` for an option that makes no sense; `UNSUPPORTED` on an emulated device or for a clock that
 *   a function does not have; `DISPOSED`; `OUT_OF_MEMORY`; the error of the work itself; the signal's reason when aborted.
 */
export async function measure(what: Measurable, options: MeasureOptions = {}): Promise<MeasureRecord> {
  return (await import('./measure/measure.js')).measure(what, options);
}

/**
 * Measures several plans or functions in one interleaved run and gives the ratios of their times with 95 % intervals.
 * Numbers of separate runs must not be divided by each other; these may.
 *
 * @param cases at least two, by name. Plans of one stream are timed by the device's clock, anything else by the host's.
 * @throws {KernwattError} as measure().
 */
export async function compare(
  cases: Readonly<Record<string, Measurable>>,
  options: CompareOptions = {},
): Promise<ComparisonResult> {
  return (await import('./measure/compare.js')).compare(cases, options);
}

/**
 * Opens a meter of a GPU or of the CPU packages, for as long as this process wants: `meter.begin()` and `meter.end(mark)` around any
 * stretch of work. Never rejects because something cannot be read: `meter.domains` names each counter, or why there is none.
 *
 * @throws {KernwattError} `ARGUMENT` for an option that makes no sense.
 */
export async function openMeter(options: MeterOptions = {}): Promise<Meter> {
  return (await import('./meter/meter.js')).openMeter(options);
}

/**
 * Measures the ceilings of a device (FLOP/s by what multiplies, bytes/s) and, where its energy can be metered, what an operation,
 * a byte and a second cost: loads of known rates, and least squares. A minute or two; kept in the user's cache folder for the
 * same device, power limit and version, where `measure()` finds it for `roofline.energyFloorJ`.
 *
 * @param device default: opened for the purpose, the GPU if there is one.
 * @throws {KernwattError} `ARGUMENT` for an option that makes no sense; `UNSUPPORTED` on an emulated device; `OUT_OF_MEMORY`; the
 *   signal's reason when aborted. A cache that cannot be read or written is a note, never an error.
 */
export async function calibrate(device?: Device, options: CalibrateOptions = {}): Promise<CalibrationResult> {
  return (await import('./calibrate/calibrate.js')).calibrate(device, options);
}

/**
 * Runs every case of an operator (or `fuzz` random ones), one after the other, and yields each outcome as it is known.
 * @example for await (const outcome of checkOp(gemm, { device })) if (outcome.state === 'failed') console.log(outcome.repro);
 */
export async function* checkOp(op: Operator, options: CheckOpOptions): AsyncGenerator<CheckOutcome, void, undefined> {
  yield* (await checking()).checkOp(op, options);
}

/** Runs the random case that belongs to `seed`. */
export async function checkFuzz(op: Operator, options: CheckOptions): Promise<CheckOutcome> {
  return (await checking()).checkFuzz(op, options);
}

/** Runs one case. A wrong result is an outcome, not an exception. */
export async function checkCase(op: Operator, c: Case, options: CheckOptions): Promise<CheckOutcome> {
  return (await checking()).checkCase(op, c, options);
}
