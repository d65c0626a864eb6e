// The tables of `kernwatt bench`: what was measured, then the six metrics in the paper's form and in the honest one. What is not
// known is `n/a`, and why is said once below.
import type { Quantity } from '../measure/quantity.js';
import type { MeasureRecord, Metrics } from '../measure/record.js';
import { ceilings, conventions, kernel, ofPeak, places, sizes, types } from './describe.js';
import { digits, plusMinus, quantity, si } from './format.js';
import { table } from './table.js';

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

/** The second table: the six metrics of records that have them. */
export function metricTable(records: readonly MeasureRecord[]): string {
  const heads = [left('case'), left('kernel'), left('cache'), ...metricColumns.map(({ head }) => right(head))];
  return `The six metrics of EfficientLLM (arXiv 2505.13840), the paper's form | the honest form:\n${table(heads, records.map(metricRow))}`;
}

/** Least energy by the calibration of the device, and the share of it in what calls took: of records that know both. */
function energyTable(records: readonly MeasureRecord[]): string[] {
  const rows = records.flatMap((record) => {
    const { roofline, energy, time } = record;
    if (!roofline || roofline.energyEfficiency.value === null) return [];
    const { energyFloorJ, energyEfficiency } = roofline;
    return [
      [
        record.case.name,
        kernel(record),
        time!.cache,
        ...[energyFloorJ, energy.perCallJ, energyEfficiency].map(quantity),
      ],
    ];
  });
  if (rows.length === 0) return [];
  const heads = [left('case'), left('kernel'), left('cache'), right('least energy'), right('per call'), right('share')];
  const floors = records.flatMap(({ roofline }) =>
    roofline?.energyFloorJ.value == null ? [] : [roofline.energyFloorJ],
  );
  const bases = [...new Set(floors.map((floor) => ('basis' in floor ? floor.basis : '')))];
  return [`Energy against the least that work can take: ${bases.join('; ')}\n${table(heads, rows)}`];
}

/** Why numbers of the second table are missing: each reason once, with the columns it concerns. */
export function reasons(records: readonly MeasureRecord[]): string[] {
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
  const six = records.filter(({ metrics }) => metrics !== null);
  const wrong = records
    .filter(({ verdict }) => verdict === 'invalid')
    .map(({ case: { name }, correctness }) => `INVALID ${name}: ${correctness.reason}`);
  const parts = [`${places(records).join('\n')}\n`, table(columns, rows)];
  if (six.length > 0) parts.push(metricTable(six));
  parts.push(...energyTable(six));
  const notes = [...wrong, ...conventions(records), ...ceilings(records), ...reasons(records)];
  if (notes.length > 0) parts.push(`${notes.join('\n')}\n`);
  return parts.join('\n');
}
