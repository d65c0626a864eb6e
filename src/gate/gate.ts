// Has a metric of a case grown by more than a ratio? Pass, fail or inconclusive, case by case and over all of them. Ratios come from
// interleaved runs alone: either both sides were interleaved with each other, or each with the same reference case in its own run.
import type { Interval } from '../measure/stats.js';
import type { LineProblem, RecordLines } from '../records/read.js';
import type { Metric } from './metrics.js';
import { Pairing } from './pair.js';
import { holm, pAbove, pBelow } from './ratio.js';

export type GateVerdict = 'pass' | 'fail' | 'inconclusive';

/**
 * - `interleaved`: both sides took turns in one run.
 * - `normalised`: each side took turns with the same reference in its own run; the ratio of the two ratios.
 * - `exact`: counted bytes, the same on every run.
 */
export type GateMethod = 'interleaved' | 'normalised' | 'exact';

export interface GateCase {
  name: string;
  op: string | null;
  cache: string | null;
  verdict: GateVerdict;
  method: GateMethod | null;
  /** NEW over BASE, and its 95 % interval; null where there is no ratio. */
  ratio: number | null;
  ci95: Interval | null;
  /** Probability of such a ratio if the true one were just at the limit, adjusted for the number of cases (Holm). */
  pFail: number | null;
  /** Runs of each side. */
  runs: { base: number; new: number };
  /** Where the records stand. */
  places: string[];
  /** Why it is not a pass, in one sentence; null for a pass. */
  reason: string | null;
}

export interface GateReport {
  schema: 'kernwatt.gate/0';
  metric: string;
  maxRatio: number;
  verdict: GateVerdict | 'bad-input';
  cases: GateCase[];
  /** Lines that could not be used; with any of them the verdict is `bad-input`. */
  problems: LineProblem[];
  /** What a reader should know and no rule decides. */
  notes: string[];
}

/** Chance of any false failure among all cases, one-sided: that of a 95 % interval above the limit. */
const failLevel = 0.025;
/** Chance of passing a case that is beyond the limit. All must pass, so more cases do not raise it. */
const passLevel = 0.01;

export function gate(base: RecordLines, news: RecordLines, metric: Metric, maxRatio: number): GateReport {
  const { drafts, problems, notes } = new Pairing(base.records, news.records, metric, maxRatio);
  problems.unshift(...base.problems, ...news.problems);
  const tested = drafts.flatMap(({ estimate }) => (estimate === null ? [] : [estimate]));
  const adjusted = holm(tested.map((estimate) => pAbove(estimate, maxRatio)));
  const pOf = new Map(tested.map((estimate, i) => [estimate, adjusted[i]!]));
  const cases = drafts.map(({ estimate, settled, ...draft }): GateCase => {
    if (estimate === null) return { ...draft, verdict: settled, pFail: null };
    const pFail = pOf.get(estimate)!;
    const passes = pBelow(estimate, maxRatio) <= passLevel;
    const verdict = pFail <= failLevel ? 'fail' : passes ? 'pass' : 'inconclusive';
    return { ...draft, verdict, pFail, reason: reasons[verdict] };
  });
  if (cases.length === 0) notes.push('BASE and NEW hold no case to judge, expected records of the same cases in both');
  const single = cases.some(({ method, runs }) => method === 'normalised' && runs.base === 1 && runs.new === 1);
  if (single)
    notes.push(
      'one run on each side: what runs differ by (memory layout, clocks) is not in these intervals; three on each side show it',
    );
  const bad = problems.length > 0 || cases.length === 0;
  const verdict = bad ? 'bad-input' : together(cases);
  return { schema: 'kernwatt.gate/0', metric: metric.name, maxRatio, verdict, cases, problems, notes };
}

const reasons = {
  pass: null,
  fail: 'the ratio is above the limit',
  inconclusive: 'the ratio may be on either side of the limit; measure longer, or more runs',
};

function together(cases: readonly GateCase[]): GateVerdict {
  if (cases.some(({ verdict }) => verdict === 'fail')) return 'fail';
  return cases.every(({ verdict }) => verdict === 'pass') ? 'pass' : 'inconclusive';
}
