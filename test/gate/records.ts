// Records of made-up compare() runs whose truth is known: samples with noise that lasts, summarised as compare() does.
import type { FileRecord, RecordLines } from '../../src/records/read.js';
import { energyRatio, energyRecord, type Metered } from '../../src/measure/energy.js';
import type { Comparison, MeasureRecord } from '../../src/measure/record.js';
import { summarize } from '../../src/measure/stats.js';
import { randomSource } from '../../src/random.js';
import { clock, comparison, metered, record, subject } from '../measure/record.js';

export function normal(seed: number): () => number {
  const next = randomSource(seed);
  return () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
}

let count = 0;

/** One record of a case of this name; changes are laid over it. */
export function made(name: string, changes: Partial<MeasureRecord> = {}): MeasureRecord {
  count++;
  const plain = record({}, { case: { ...subject.case, name } });
  return { ...plain, id: `id-${count}`, runId: `run-${count}`, ...changes };
}

export const lines = (file: string, records: readonly MeasureRecord[]): RecordLines => ({
  records: records.map((one, i): FileRecord => ({ record: one, file, line: i + 1 })),
  problems: [],
});

/** A record of a case that took `ratio` of the time of `reference`, known to within the interval. */
export function compared(
  name: string,
  reference: MeasureRecord,
  ratio: number,
  ci95: Comparison['ci95'],
  changes: Partial<MeasureRecord> = {},
): MeasureRecord {
  const beside = comparison({
    baseline: reference.case.name,
    baselineId: reference.id,
    ratio,
    ci95,
    ratioOfMedians: ratio,
    blocks: 100,
  });
  return made(name, { runId: reference.runId, comparison: beside, ...changes });
}

/**
 * A run of compare(): a reference, and one record for each true ratio to it, from `blocks` blocks whose ratios scatter by `noise`,
 * three tenths of which carries over from block to block.
 */
export function simulatedRun(truths: readonly number[], seed: number, noise: number, blocks = 40): MeasureRecord[] {
  const next = normal(seed);
  const reference = made('reference');
  const others = truths.map((truth, i) => {
    let state = next();
    const ratios = Float64Array.from({ length: blocks }, () => {
      state = 0.3 * state + Math.sqrt(1 - 0.09) * next();
      return truth * Math.exp(noise * state);
    });
    const { median, ci95Median } = summarize(ratios);
    const one = compared(`case ${i}`, reference, median, ci95Median);
    return { ...one, comparison: { ...one.comparison!, blocks } };
  });
  return [reference, ...others];
}

/** Energy of `windows` windows whose joules per call scatter by `noise`, as metering hands it over. */
export const energy = (joules: number, noise: number, next: () => number, windows = 3): Metered =>
  metered(Array.from({ length: windows }, () => joules * (1 + noise * next())));

/** A run of compare() of a case and its reference, both metered in rounds. */
export function meteredRun(here: Metered, base: Metered): MeasureRecord[] {
  const laid = (energy: Metered) => ({ energy: energyRecord(energy, subject.work) });
  const reference = made('reference', laid(base));
  const one = compared('a', reference, 1, [0.99, 1.01], laid(here));
  return [reference, { ...one, comparison: { ...one.comparison!, ...energyRatio(here, base) } }];
}

export { clock };
