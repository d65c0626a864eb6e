// The tables of `kernwatt bench`: what was measured, then the six metrics in the paper's form and in the honest one. What is not
// known is `n/a`, and why is said once below.
import type { Quantity } from '../measure/quantity.js';
import type { MeasureRecord, Metrics } from '../measure/record.js';
import * as ops from '../ops/index.js';
import { digits, percent, plusMinus, quantity, si } from './format.js';
import { table } from './table.js';

const types = ({ case: { dtype } }: MeasureRecord): string => {
  const { x = Object.values(dtype)[0] ?? '', y = x } = dtype;
  return x === y ? x : `${x} to ${y}`;
};

const specOf = (name: string | null) => Object.values(ops).find(({ spec }) => spec.name === name)?.spec;

/** Sizes by name without those that follow from others or belong to absent inputs (0); a batch of 1 says nothing. */
function sizes({ case: { op, shape } }: MeasureRecord): string {
  const derived = specOf(op)?.derive ?? {};
  return Object.entries(shape)
    .filter(([name, size]) => !(name in derived) && size !== 0 && (name !== 'batch' || size !== 1))
    .map(([name, size]) => `${name}=${size}`)
    .join(' ');
}

/** The variant, without the operator it belongs to, and where it ran unless that is the CPU. */
function kernel({ kernel: of, case: { op } }: MeasureRecord): string {
  if (of === null) return 'function';
  const variant = String(of.explain.variant ?? of.backend).replace(`${op}_`, '');
  return of.device === 'cpu' ? variant : `${of.device} ${variant}`;
}

/** The share that matters: of the peak that bounds this work, or of the arithmetic peak where no roof applies. */
function ofPeak({ utilisation, roofline }: MeasureRecord): string {
  if (utilisation === null) return 'n/a';
  const bandwidth = roofline?.boundBy === 'bandwidth';
  const share = bandwidth ? utilisation.ofPeakBandwidth : utilisation.ofPeakFlops;
  const peak = utilisation.peaks.find(({ kind }) => kind === (bandwidth ? 'bandwidth' : 'flops'));
  return share.value === null ? 'n/a' : `${percent(share.value)} ${peak?.name ?? ''}`.trim();
}

function measured(record: MeasureRecord): string[] {
  const { case: what, time, rate } = record;
  const head = [what.name, sizes(record), types(record), kernel(record)];
  if (time === null || rate === null) return [...head, 'INVALID', '', '', '', '', '', ''];
  const clock = time[time.headline]!;
  const giga = ({ value }: Quantity) => (value === null ? 'n/a' : digits(Number((value / 1e9).toPrecision(3))));
  return [
    ...head,
    time.cache,
    si(clock.median, 's'),
    plusMinus(clock.ci95Median, clock.median),
    giga(rate.flopsPerSecond),
    giga(rate.bytesPerSecond),
    ofPeak(record),
    record.flags.join(' '),
  ];
}

const left = (head: string) => ({ head });
const right = (head: string) => ({ head, align: 'right' }) as const;

/** A column of the second table: the paper's number and the honest one beside it, or one of them alone. */
interface MetricColumn {
  head: string;
  of: (metrics: Metrics) => Quantity[];
}

const metricColumns: readonly MetricColumn[] = [
  { head: 'AMU GB | of capacity', of: ({ AMU }) => [AMU.paper.AMU, AMU.honest.shareOfCapacity] },
  { head: 'PCU busy | of peak FLOP/s', of: ({ PCU }) => [PCU.paper.PCU, PCU.honest.ofPeakFlops] },
  { head: 'AL mean host | median device', of: ({ AL }) => [AL.paper.AL, AL.honest.deviceSeconds] },
  { head: 'AT TT /param/s', of: ({ AT }) => [AT.paper.TT] },
  { head: 'AT IT | tokens/s', of: ({ AT }) => [AT.paper.IT, AT.honest.tokensPerSecond] },
  { head: 'AEC W | J/call', of: ({ AEC }) => [AEC.paper.AEC, AEC.honest.joulesPerCall] },
  { head: 'MCR nominal | bytes', of: ({ MCR }) => [MCR.paper.MCR, MCR.honest.MCR] },
];

/** The number; its unit stands in the head where it does not change. */
const cell = (q: Quantity): string => quantity(q).replace(/ ?(GB|tokens\/param\/s|tokens\/s)$/, '');

function metricRow(record: MeasureRecord): string[] {
  const { metrics, time } = record;
  const columns = metricColumns.map(({ of }) => of(metrics!).map(cell).join(' | '));
  return [record.case.name, kernel(record), time!.cache, ...columns];
}

/** Why numbers of the second table are missing: each reason once, with the columns it concerns. */
function reasons(records: readonly MeasureRecord[]): string[] {
  const found = new Map<string, Set<string>>();
  const note = (who: string, q: Quantity) => {
    if (q.value === null) found.set(q.reason, (found.get(q.reason) ?? new Set()).add(who));
  };
  for (const { metrics } of records) {
    if (metrics === null) continue;
    for (const { head, of } of metricColumns) for (const q of of(metrics)) note(head.split(' ', 1)[0]!, q);
    note('ST', metrics.AT.paper.ST);
  }
  return [...found].map(([reason, who]) => `n/a ${[...who].join(', ')}: ${reason}`);
}

/** Where the records were taken, one line for each device. */
function places(records: readonly MeasureRecord[]): string[] {
  const lines = records.map(({ env: { cpu, device, node }, tool }) => {
    const commit = tool.gitSha ? ` ${tool.gitSha.slice(0, 10)}${tool.dirty ? ' with local changes' : ''}` : '';
    const by = `kernwatt ${tool.version}${commit}, Node ${node.version}`;
    if (device === null || device.threads !== null) {
      const used = device ? `, ${device.threads} threads, ${device.isa}` : '';
      return `${cpu.model}, ${cpu.cores} cores${cpu.virtualised ? ' (virtual)' : ''}${used}; ${by}`;
    }
    return `${device.name}: ${device.product}, driver ${device.driver ?? 'unknown'}; ${by}`;
  });
  return [...new Set(lines)];
}

/** The ceilings that shares refer to, once each. */
function ceilings(records: readonly MeasureRecord[]): string[] {
  const peaks = records.flatMap(({ utilisation, kernel: of }) =>
    (utilisation?.peaks ?? []).map(
      (peak) =>
        `peak ${peak.name} on ${of?.device ?? '?'}: ${si(peak.value, peak.unit)}, ${peak.source}: ${peak.provenance}`,
    ),
  );
  return [...new Set(peaks)];
}

/** What counts as a floating-point operation, once for each operator. */
function conventions(records: readonly MeasureRecord[]): string[] {
  const specs = new Set(records.map(({ case: { op } }) => specOf(op)));
  return [...specs].flatMap((spec) => (spec ? [`FLOP of ${spec.name}: ${spec.flops}`] : []));
}

export function benchReport(records: readonly MeasureRecord[]): string {
  const columns = [
    left('case'),
    left('shape'),
    left('type'),
    left('kernel'),
    left('cache'),
    right('median'),
    right('95 % CI'),
    right('GFLOP/s'),
    right('GB/s'),
    right('of peak'),
    left('flags'),
  ];
  const rows = records.map(measured);
  const six = records.filter(({ metrics }) => metrics !== null).map(metricRow);
  const heads = [left('case'), left('kernel'), left('cache'), ...metricColumns.map(({ head }) => right(head))];
  const wrong = records
    .filter(({ verdict }) => verdict === 'invalid')
    .map(({ case: { name }, correctness }) => `INVALID ${name}: ${correctness.reason}`);
  const parts = [`${places(records).join('\n')}\n`, table(columns, rows)];
  if (six.length > 0)
    parts.push(
      `The six metrics of EfficientLLM (arXiv 2505.13840), the paper's form | the honest form:\n${table(heads, six)}`,
    );
  const notes = [...wrong, ...conventions(records), ...ceilings(records), ...reasons(records)];
  if (notes.length > 0) parts.push(`${notes.join('\n')}\n`);
  return parts.join('\n');
}
