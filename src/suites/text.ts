// What a suite says of a group of alternatives: the six metrics in both forms, ranks, normalised values and scores by the code of
// reports, and the paper's numbers as context. Pure functions of records.
import type { MeasureRecord, Metrics } from '../measure/record.js';
import type { FileRecord } from '../records/read.js';
import { paperSlips, rankText, type Scoring, scoring, shown } from '../report/analysis.js';
import { metricTable, reasons } from '../report/bench.js';
import { ceilings, conventions, kernel, ofPeak, places } from '../report/describe.js';
import { digits, plusMinus, quantity, si } from '../report/format.js';
import { type Row, report } from '../report/model.js';
import { equalWeights, type Form } from '../report/quantities.js';
import { table } from '../report/table.js';
import type { LayerFidelity } from './fidelity.js';
import { type PaperTable, paperTables, slipsOf } from './paper.js';
import type { PaperSuite, SuiteGroup } from './suites.js';

/** The two interleaved runs of a group, each in the order of its members: the honest form reads the device's clock, the paper's the host's. */
export interface GroupRuns {
  group: SuiteGroup;
  device: readonly FileRecord[];
  host: readonly FileRecord[];
  /** Of linear layers in several types. */
  fidelity: readonly LayerFidelity[];
}

const runOf = ({ device, host }: GroupRuns, form: Form): readonly FileRecord[] => (form === 'honest' ? device : host);

/** Positions of the members whose results were right in both runs; a wrong result has no performance and no rank. */
const rightMembers = ({ group, device, host }: GroupRuns): number[] =>
  [...group.members.keys()].filter((i) => device[i]!.record.metrics !== null && host[i]!.record.metrics !== null);

const rowsOf = (records: readonly FileRecord[]): readonly Row[] => report([], records, []).groups[0]?.rows ?? [];

export interface FormScores extends Scoring {
  form: Form;
  labels: readonly string[];
}

/** Ranks, normalised values and scores of the right members, all weights 1. */
export function groupScores(runs: GroupRuns): FormScores[] {
  const right = rightMembers(runs);
  const labels = right.map((i) => runs.group.members[i]!.label);
  if (right.length < 2) return [];
  return (['honest', 'paper'] as const).map((form) => {
    const rows = rowsOf(right.map((i) => withEnergy(runOf(runs, form)[i]!, runs.device[i]!)));
    return { form, labels, ...scoring(rows, form, equalWeights) };
  });
}

/** The record with the energy of the same member's run by the device's clock. */
function withEnergy(one: FileRecord, { record: { metrics } }: FileRecord): FileRecord {
  return { ...one, record: { ...one.record, metrics: { ...one.record.metrics!, AEC: metrics!.AEC } } };
}

/** One record for the table of metrics: the honest numbers of the one run and the paper's of the other. */
function bothForms(device: MeasureRecord, host: MeasureRecord): MeasureRecord {
  const [d, h] = [device.metrics!, host.metrics!];
  const metrics: Metrics = {
    AMU: { paper: h.AMU.paper, honest: d.AMU.honest },
    PCU: { paper: h.PCU.paper, honest: d.PCU.honest },
    AL: { paper: h.AL.paper, honest: d.AL.honest },
    AT: { paper: h.AT.paper, honest: d.AT.honest },
    // Metered in the device's run alone; its windows are the same loop whichever clock is read.
    AEC: d.AEC,
    MCR: { paper: h.MCR.paper, honest: d.MCR.honest },
  };
  return { ...device, metrics };
}

const left = (head: string) => ({ head });
const right = (head: string) => ({ head, align: 'right' }) as const;

function timeTable({ group, device }: GroupRuns): string {
  const rows = device.map((one, i) => {
    const { record } = one;
    const { time, memory, comparison } = record;
    const head = [group.members[i]!.label, kernel(record)];
    if (time === null || memory === null) return [...head, 'INVALID', '', '', '', '', '', '', ''];
    const clock = time[time.headline]!;
    const ratio = comparison
      ? `${digits(comparison.ratio)} ${plusMinus(comparison.ci95, comparison.ratio)}`
      : i === 0
        ? '1'
        : 'n/a';
    const error = shown(rowsOf([one])[0]!, 'deviation');
    const [median, interval] = [si(clock.median, 's'), plusMinus(clock.ci95Median, clock.median)];
    const bytes = [quantity(memory.operandBytes), quantity(memory.workspaceBytes)];
    return [
      ...head,
      time.cache,
      median,
      interval,
      ratio.trim(),
      ofPeak(record),
      ...bytes,
      error,
      record.flags.join(' '),
    ];
  });
  const base = group.members[0]!.label;
  const heads = [left(''), left('kernel'), left('cache'), right('median'), right('95 % CI'), right(`time / ${base}`)];
  return table(
    [...heads, right('of peak'), right('operands'), right('workspace'), right('error'), left('flags')],
    rows,
  );
}

/** What the ratios say in words: which alternatives differ, by how much at least and at most, and by which kernels. */
export function ratioText({ group, device }: GroupRuns): string {
  const [base, ...others] = device.map(({ record }) => record);
  const lines = others.flatMap((record, i) => {
    const interval = record.comparison?.ci95;
    if (!interval || record.time === null || base!.time === null) return [];
    const [low, high] = interval;
    const [label, first] = [group.members[i + 1]!.label, group.members[0]!.label];
    const percent = (ratio: number) => Math.abs(100 * (ratio - 1)).toFixed(1);
    const [least, most] = low > 1 ? [low, high] : [high, low];
    const time =
      low <= 1 && high >= 1
        ? `${label} and ${first} are not told apart: the interval of their ratio, ${digits(low)} to ${digits(high)}, holds 1`
        : `${label} takes ${percent(least)} to ${percent(most)} % ${low > 1 ? 'longer' : 'less'} than ${first}`;
    const same = kernel(record) === kernel(base!);
    return [`${time}; ${same ? `both by ${kernel(record)}` : `by ${kernel(record)} and ${kernel(base!)}`}.\n`];
  });
  return lines.join('');
}

const titles: Record<Form, string> = {
  honest: 'the honest form, device clock',
  paper: "the paper's form, host clock",
};

function scoreTable({ form, labels, metrics, members, leftOut }: FormScores): string {
  const heads = [left(''), right('score'), ...metrics.flatMap((metric) => [right(`${metric} norm.`), right('rank')])];
  const rows = members.map(({ score, normalised, ranks }, i) => [
    labels[i]!,
    score === null ? 'n/a' : score.toFixed(3),
    ...normalised.flatMap((value, axis) => [value.toFixed(2), rankText(ranks[axis]!)]),
  ]);
  const noise = members.every(({ ranks }) => ranks.every(({ best }) => best === 1))
    ? 'No metric tells these apart by more than its intervals: normalised values and score show noise.\n'
    : '';
  const out = leftOut.map(({ label, reason }) => `left out ${label}: ${reason}\n`).join('');
  return `Ranks (as far as the intervals allow), normalised values and efficiency score, ${titles[form]}:\n${table(heads, rows)}${noise}${out}`;
}

function fidelityTable(found: readonly LayerFidelity[]): string {
  const rows = found.map(({ label, relativeError, snr, cosine, bits }) => [
    label,
    relativeError.toExponential(2),
    snr.toFixed(1),
    (1 - cosine).toExponential(2),
    String(bits.nominal),
    bits.stored.toFixed(3),
  ]);
  const heads = [
    left(''),
    right('relative error'),
    right('SNR dB'),
    right('1 - cosine'),
    right('bits'),
    right('stored'),
  ];
  return `Fidelity of y against f32, 256 rows of the layer, normal weights and activations, int4 to the nearest:\n${table(heads, rows)}`;
}

export function groupText(runs: GroupRuns): string {
  const { group } = runs;
  const parts = [
    `${group.name}, ${group.members.map(({ label }) => label).join(', ')} in turns\n\n${timeTable(runs)}${ratioText(runs)}`,
  ];
  const caches = group.members.flatMap(({ label, cacheBytes }) => (cacheBytes ? [`${label} ${cacheBytes}`] : []));
  if (caches.length > 0)
    parts.push(`Bytes that the keys and values of a token take in the cache of a layer: ${caches.join(', ')}.\n`);
  const kept = rightMembers(runs);
  if (runs.fidelity.length > 0) parts.push(fidelityTable(runs.fidelity));
  if (kept.length > 0)
    parts.push(metricTable(kept.map((i) => bothForms(runs.device[i]!.record, runs.host[i]!.record))));
  const found = groupScores(runs);
  parts.push(...found.map(scoreTable));
  if (found.length === 0) parts.push('Fewer than two results are right, so nothing is ranked.\n');
  for (const { record } of [...runs.device, ...runs.host])
    if (record.verdict === 'invalid') parts.push(`INVALID ${record.case.name}: ${record.correctness.reason}\n`);
  return parts.join('\n');
}

/** The paper's numbers for one body, with the slips that its marks refer to. */
function paperText(found: PaperTable): string {
  const heads = found.heads.map((head, i) => (i === 0 ? left(head) : right(head)));
  const notes = slipsOf(found).map((line) => `${line}\n`);
  return `For context, ${found.source}; ~ read from a figure, - not printed:\n${table(heads, found.rows)}${notes.join('')}`;
}

/** Everything a run of one suite on one device has to say. */
export function suiteText(suite: PaperSuite, groups: readonly GroupRuns[]): string {
  const records = groups.flatMap(({ device }) => device.map(({ record }) => record));
  if (records.length === 0) return '';
  const parts = [`${suite.name}: ${suite.title}\n${places(records).join('\n')}\n`];
  for (const [i, runs] of groups.entries()) {
    parts.push(groupText(runs));
    const { body } = runs.group;
    const context = paperTables[body];
    if (context && groups[i + 1]?.group.body !== body) parts.push(paperText(context));
  }
  const both = groups.flatMap((runs) =>
    rightMembers(runs).map((at) => bothForms(runs.device[at]!.record, runs.host[at]!.record)),
  );
  const list = (items: readonly string[]): string => items.map((item) => `- ${item}\n`).join('');
  parts.push(`${[...conventions(records), ...ceilings(records), ...reasons(both)].join('\n')}\n`);
  if (suite.differences.length > 0) parts.push(`Why the types can differ:\n${list(suite.differences)}`);
  parts.push(`Not measured:\n${list(suite.absent)}`);
  parts.push(
    `Not known from operators alone: ${suite.unknowable.join('; ')}. "error" is what stands in: how far outputs are from their definition.\n`,
  );
  parts.push(
    `About the paper's definitions, normalisation and score (weights 1; kernwatt report takes others):\n${list(paperSlips)}`,
  );
  return parts.join('\n');
}
