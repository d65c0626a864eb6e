// What every form of a report is made from: records as rows of numbers, one group for each device (numbers of different machines
// never meet in one ranking), sets of alternatives within a group, and what a reader has to know about them.
import type { GpuFacts } from '../measure/environment.js';
import type { Known } from '../measure/quantity.js';
import type { Flag, MeasureRecord } from '../measure/record.js';
import type { FileRecord, LineProblem } from '../records/read.js';
import { ceilings, conventions, kernel, places, sizes, types } from './describe.js';
import type { Estimate } from './pareto.js';
import { quantities, type ReportQuantity } from './quantities.js';

/** A number, or the reason why there is none. */
export type Cell = Estimate | string;

/** What a page shows of a record. */
export interface PageRow {
  file: string;
  line: number;
  createdAt: string;
  name: string;
  /** Operator, or null for a function. */
  op: string | null;
  sizes: string;
  types: string;
  kernel: string;
  cache: string;
  verdict: string;
  flags: readonly string[];
  /** One for each of `quantities`. */
  cells: readonly Cell[];
}

export interface Row extends PageRow {
  id: string;
  runId: string;
}

/** Rows that do the same work in different ways: positions in the group's rows. */
export interface AlternativeSet {
  label: string;
  rows: readonly number[];
}

export interface Roof {
  kind: 'flops' | 'bandwidth';
  name: string;
  value: number;
  unit: string;
  source: string;
}

export interface Group {
  device: string;
  environment: readonly (readonly [name: string, value: string])[];
  /** The highest of each name that the records state. */
  roofs: readonly Roof[];
  rows: readonly Row[];
  sets: readonly AlternativeSet[];
  caveats: readonly string[];
}

export interface Report {
  sources: readonly string[];
  problems: readonly LineProblem[];
  groups: readonly Group[];
}

export interface ReportOptions {
  /** Rank all records of a device against each other, whatever work they do. */
  together?: boolean;
}

export function report(
  sources: readonly string[],
  records: readonly FileRecord[],
  problems: readonly LineProblem[],
  { together = false }: ReportOptions = {},
): Report {
  const machines = grouped(records, ({ record }) => machine(record));
  return { sources, problems, groups: [...machines.values()].map((members) => group(members, together)) };
}

function grouped<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const found = new Map<string, T[]>();
  for (const item of items) {
    const key = keyOf(item);
    const members = found.get(key);
    if (members) members.push(item);
    else found.set(key, [item]);
  }
  return found;
}

/** Equal for records that were taken on the same kind of device with the same means. */
export const machine = ({ env: { cpu, device, os } }: Pick<MeasureRecord, 'env'>): string =>
  JSON.stringify([cpu.model, cpu.cores, cpu.memoryBytes, cpu.virtualised, os.arch, device]);

function group(members: readonly FileRecord[], together: boolean): Group {
  const records = members.map(({ record }) => record);
  return {
    device: places(records)[0]!.split('; ', 1)[0]!,
    environment: environment(records),
    roofs: roofs(records),
    rows: members.map(row),
    sets: alternatives(records, together),
    caveats: caveats(records),
  };
}

function row({ record, file, line }: FileRecord): Row {
  return {
    file,
    line,
    id: record.id,
    runId: record.runId,
    createdAt: record.createdAt,
    name: record.case.name,
    op: record.case.op,
    sizes: sizes(record),
    types: types(record),
    kernel: kernel(record),
    cache: record.time?.cache ?? '',
    verdict: record.verdict,
    flags: record.flags,
    cells: quantities.map((quantity) => cell(quantity, record)),
  };
}

function cell(quantity: ReportQuantity, record: MeasureRecord): Cell {
  const q = quantity.of(record);
  if (q.value === null) return q.reason;
  const { value, ci95 } = q as Known;
  const [low, high] = ci95 ?? (quantity.exact ? [value, value] : [null, null]);
  return { value, low, high };
}

function roofs(records: readonly MeasureRecord[]): Roof[] {
  const highest = new Map<string, Roof>();
  for (const { kind, name, value, unit, source } of records.flatMap(({ utilisation }) => utilisation?.peaks ?? []))
    if (value > (highest.get(name)?.value ?? 0)) highest.set(name, { kind, name, value, unit, source });
  return [...highest.values()];
}

/**
 * What may be ranked: the cases of one compare(), which its caller declared alternatives, and cases of one operator with the
 * same sizes, arguments and state of the cache. Nothing that stands alone.
 */
function alternatives(records: readonly MeasureRecord[], together: boolean): AlternativeSet[] {
  const all = records.map((record, i) => ({ record, i })).filter(({ record }) => record.verdict !== 'invalid');
  if (together) return all.length > 1 ? [{ label: 'all records of this device', rows: all.map(({ i }) => i) }] : [];
  const runs = [...grouped(all, ({ record }) => record.runId).values()].filter(
    (members) => members.length > 1 && members.some(({ record }) => record.comparison !== null),
  );
  const work = grouped(
    all.filter(({ record }) => record.case.op !== null),
    ({ record: { case: of, time } }) =>
      JSON.stringify([of.op, Object.entries(of.shape).sort(), Object.entries(of.args).sort(), time?.cache]),
  );
  const declared = runs.map((members) => {
    const base = members.find(({ record }) => record.comparison)!.record.comparison!.baseline;
    return { label: `compared with ${base}, ${members[0]!.record.createdAt}`, rows: members.map(({ i }) => i) };
  });
  const taken = new Set(declared.map(({ rows }) => rows.join()));
  const same = [...work.values()].flatMap((members) => {
    const { record } = members[0]!;
    const rows = members.map(({ i }) => i);
    if (rows.length < 2 || taken.has(rows.join())) return [];
    return [{ label: `${record.case.op} ${sizes(record)}, ${record.time?.cache}`, rows }];
  });
  return [...declared, ...same];
}

const distinct = (values: readonly (string | null | undefined)[]): string =>
  [...new Set(values.map((value) => value ?? 'unknown'))].join(', ');

function environment(records: readonly MeasureRecord[]): [string, string][] {
  const { cpu, device } = records[0]!.env;
  const gib = (bytes: number | null): string => (bytes === null ? 'unknown' : `${(bytes / 2 ** 30).toFixed(1)} GiB`);
  const each = (of: (record: MeasureRecord) => string | null): string => distinct(records.map(of));
  const virtual = cpu.virtualised === null ? 'unknown' : cpu.virtualised ? 'yes' : 'no';
  const facts: [string, string][] = [
    ['processor', `${cpu.model}, ${cpu.cores} cores, ${gib(cpu.memoryBytes)}`],
    ['virtual machine', virtual],
  ];
  if (device?.threads != null) facts.push(['threads', `${device.threads}, ${device.isa ?? 'unknown isa'}`]);
  else if (device)
    facts.push(['device', `${device.name}: ${device.product}, ${gib(device.memoryBytes)}, driver ${device.driver}`]);
  if (records.some(({ env }) => env.gpu)) facts.push(['GPU settings', each(({ env }) => settingsOf(env.gpu))]);
  facts.push(
    ['system', each(({ env: { os } }) => `${os.platform} ${os.arch} ${os.kernel}, libc ${os.libc ?? 'unknown'}`)],
    ['Node', each(({ env: { node } }) => node.version)],
    [
      'kernwatt',
      each(({ tool }) => `${tool.version}${tool.gitSha ? ` ${tool.gitSha.slice(0, 10)}` : ''}${tool.dirty ? '*' : ''}`),
    ],
    ['taken', span(records.map(({ createdAt }) => createdAt))],
  );
  const libraries = records.flatMap(({ env: { library } }) => (library ? [library.build] : []));
  if (libraries.length > 0) facts.push(['CUDA kernels', distinct(libraries)]);
  return facts;
}

/** What of a GPU's settings changes time and energy; a part that is not known says so. */
function settingsOf(gpu: GpuFacts | null): string {
  if (gpu === null) return 'unknown';
  const { powerLimitW: limit, ecc, mig, persistence, otherProcesses } = gpu;
  const onOff = (value: boolean | null): string => (value === null ? 'unknown' : value ? 'on' : 'off');
  const watts = (value: number | null): string => (value === null ? 'unknown' : `${value} W`);
  return [
    `power limit ${watts(limit.enforced)} (default ${watts(limit.default)})`,
    `ECC ${onOff(ecc)}`,
    `MIG ${onOff(mig)}`,
    `persistence ${onOff(persistence)}`,
    `other processes ${otherProcesses ?? 'unknown'}`,
  ].join(', ');
}

function span(times: readonly string[]): string {
  const sorted = [...times].sort();
  const [first, last] = [sorted[0]!, sorted.at(-1)!];
  return first === last ? first : `${first} to ${last}`;
}

const flagWords: Record<Flag, string> = {
  'not-converged': 'stopped before the interval was as narrow as asked',
  stolen: 'the hypervisor took the processor away during some samples, which stay in',
  'cold-not-reached': 'operands do not exceed the cache twofold, so they are not cold',
  'above-peak': 'more than 1.05 times a measured peak: the peak or the time is wrong',
  'in-place': 'an output overwrites an input, so values change from call to call',
  disputed: 'the readings of the energy meter contradict each other or what is possible',
  unsteady: 'power, clock or load changed within the energy windows',
  'not-attributable': 'the joules are not those of this work alone',
};

/** What a reader has to know: what is wrong, flagged or missing, each said once. */
function caveats(records: readonly MeasureRecord[]): string[] {
  const said: string[] = [];
  const count = (n: number): string => `${n} of ${records.length} records`;
  for (const { case: of, correctness, verdict } of records)
    if (verdict === 'invalid') said.push(`INVALID ${of.name}: ${correctness.reason}`);
  const open = records.filter(({ verdict }) => verdict === 'unchecked').length;
  if (open > 0) said.push(`${count(open)} were not compared with a definition`);
  for (const [flag, words] of Object.entries(flagWords)) {
    const flagged = records.filter(({ flags }) => flags.includes(flag as Flag)).length;
    if (flagged > 0) said.push(`${flag}, ${count(flagged)}: ${words}`);
  }
  const runs = new Set(records.map(({ runId }) => runId)).size;
  if (runs > 1)
    said.push(
      `${runs} separate runs: between them the machine may have changed; a ratio to act on comes from compare() or gate`,
    );
  if (new Set(records.map(({ tool }) => `${tool.version} ${tool.gitSha}`)).size > 1)
    said.push('the records are of several versions of kernwatt');
  if (records.some(({ tool }) => tool.dirty)) said.push('some files differed from the commit (marked *)');
  const steal = Math.max(...records.map(({ env }) => env.cpu.stealShare ?? 0));
  if (steal > 0.01)
    said.push(`the hypervisor withheld up to ${(100 * steal).toFixed(1)} % of the processor during a measurement`);
  return [...said, ...energies(records), ...missing(records), ...conventions(records), ...ceilings(records)];
}

/** What each kind of joules covers, and why some of them are doubted: each once. */
function energies(records: readonly MeasureRecord[]): string[] {
  const said = records.flatMap(({ energy: { domains, includes, excludes, disputed, steady, attributable } }) => {
    if (domains.length === 0) return [];
    const where = domains.map(({ name, source }) => `${name} (${source})`).join(', ');
    const doubts = [
      ...(disputed.value === true ? disputed.reasons.map((one) => `disputed: ${one}`) : []),
      ...(steady.value === false ? steady.reasons.map((one) => `unsteady: ${one}`) : []),
      ...(attributable.value === false ? attributable.reasons.map((one) => `not attributable: ${one}`) : []),
    ];
    return [
      `energy of ${where} covers ${includes.join('; ')}; not ${excludes.join('; ')}`,
      ...doubts.map((one) => `energy is ${one}`),
    ];
  });
  return [...new Set(said)];
}

/** Each reason for missing numbers once, with what it concerns. */
function missing(records: readonly MeasureRecord[]): string[] {
  const found = new Map<string, { labels: Set<string>; rows: Set<MeasureRecord> }>();
  for (const record of records) {
    if (record.verdict === 'invalid') continue;
    for (const quantity of quantities) {
      const q = quantity.of(record);
      if (q.value !== null) continue;
      const entry = found.get(q.reason) ?? { labels: new Set(), rows: new Set() };
      found.set(q.reason, entry);
      entry.labels.add(quantity.label);
      entry.rows.add(record);
    }
  }
  return [...found].map(([reason, { labels, rows }]) => {
    const share = rows.size === records.length ? '' : ` (${rows.size} of ${records.length} records)`;
    return `n/a ${[...labels].join(', ')}${share}: ${reason}`;
  });
}
