// The tables of `kernwatt bench`: what was measured, then the six metrics in the paper's form and in the honest one. What is not
// known is `n/a`, and why is said once below.
import type { Quantity } from '../measure/quantity.js';
import type { MeasureRecord } from '../measure/record.js';
import { digits, percent, plusMinus, quantity, si } from './format.js';
import { table } from './table.js';

const types = ({ case: { dtype } }: MeasureRecord): string => {
  const { x = Object.values(dtype)[0] ?? '', y = x } = dtype;
  return x === y ? x : `${x} to ${y}`;
};

/** Sizes by name; a batch of 1 says nothing. */
const sizes = ({ case: { shape } }: MeasureRecord): string =>
  Object.entries(shape)
    .filter(([name, size]) => name !== 'batch' || size !== 1)
    .map(([name, size]) => `${name}=${size}`)
    .join(' ');

const kernel = ({ kernel: of }: MeasureRecord): string =>
  of === null ? 'function' : [of.device, of.explain.variant ?? of.backend].join(' ');

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

function metrics(record: MeasureRecord): string[] | null {
  const { metrics: m, time } = record;
  if (m === null || time === null) return null;
  const pair = (paper: Quantity, honest: Quantity) => `${quantity(paper)} | ${quantity(honest)}`;
  return [
    record.case.name,
    kernel(record),
    time.cache,
    pair(m.AMU.paper.AMU, m.AMU.honest.shareOfCapacity),
    pair(m.PCU.paper.PCU, m.PCU.honest.ofPeakFlops),
    pair(m.AL.paper.AL, m.AL.honest.deviceSeconds),
    `${quantity(m.AT.paper.TT).replace(' tokens/param/s', '')} | ${quantity(m.AT.honest.tokensPerSecond).replace(' tokens/s', '')}`,
    pair(m.AEC.paper.AEC, m.AEC.honest.joulesPerCall),
    pair(m.MCR.paper.MCR, m.MCR.honest.MCR),
  ];
}

const metricColumns = [
  left('case'),
  left('kernel'),
  left('cache'),
  right('AMU GB | of capacity'),
  right('PCU busy | of peak FLOP/s'),
  right('AL mean host | median device'),
  right('AT TT /param/s | tokens/s'),
  right('AEC W | J/call'),
  right('MCR nominal | bytes'),
];

/** Every reason for an `n/a`, once, with the metrics it concerns. */
export function reasons(records: readonly MeasureRecord[]): string[] {
  const found = new Map<string, Set<string>>();
  for (const { metrics: all } of records) {
    for (const [metric, { paper, honest }] of Object.entries(all ?? {})) {
      for (const [name, q] of Object.entries({ ...paper, ...honest }) as [string, Quantity][]) {
        if (q.value !== null) continue;
        // Reasons that differ only in the figures they quote are one reason.
        const key = q.reason;
        const who = name === metric || name.length <= 3 ? name : `${metric} ${name}`;
        found.set(key, (found.get(key) ?? new Set()).add(who));
      }
    }
  }
  return [...found].map(([reason, who]) => `n/a ${[...who].join(', ')}: ${reason}`);
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
  const six = records.map(metrics).filter((row) => row !== null);
  const wrong = records
    .filter(({ verdict }) => verdict === 'invalid')
    .map(({ case: { name }, correctness }) => `INVALID ${name}: ${correctness.reason}`);
  const parts = [table(columns, rows)];
  if (six.length > 0)
    parts.push(
      `The six metrics of EfficientLLM (arXiv 2505.13840), the paper's form | the honest form:\n${table(metricColumns, six)}`,
    );
  const notes = [...wrong, ...ceilings(records), ...reasons(records)];
  if (notes.length > 0) parts.push(`${notes.join('\n')}\n`);
  return parts.join('\n');
}
