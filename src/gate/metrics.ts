// What the gate can judge, and what a record says about it. Less is better for all of them.
import type { Quantity } from '../measure/quantity.js';
import type { MeasureRecord } from '../measure/record.js';
import { fromInterval, type LogRatio, quotient } from './ratio.js';

export interface Metric {
  name: string;
  /** Rests on a meter, whose readings may not be fit to judge by. */
  energy?: true;
  /** Counted, not measured: the same on every run, so numbers of different runs may be divided. */
  exact: boolean;
  /** The number of one record. */
  of(record: MeasureRecord): Quantity | null | undefined;
}

export const metrics: readonly Metric[] = [
  { name: 'time', exact: false, of: headline },
  { name: 'energy.perCallJ', exact: false, energy: true, of: ({ energy }) => energy.perCallJ },
  { name: 'energy.powerW', exact: false, energy: true, of: ({ energy }) => energy.powerW },
  { name: 'memory.workspaceBytes', exact: true, of: ({ memory }) => memory?.workspaceBytes },
  { name: 'memory.operandBytes', exact: true, of: ({ memory }) => memory?.operandBytes },
  { name: 'memory.averageBytes', exact: true, of: ({ memory }) => memory?.averageBytes },
  { name: 'memory.peakBytes', exact: true, of: ({ memory }) => memory?.peakBytes },
];

function headline({ time }: MeasureRecord): Quantity | null {
  const stat = time?.[time.headline];
  if (!time || !stat) return null;
  const ci95 = stat.ci95Median ? { ci95: stat.ci95Median } : {};
  return { value: stat.median, unit: 's', state: 'ok', basis: `median, ${time.headline} clock`, ...ci95 };
}

/** Flags with which joules can pass or fail nothing. */
const doubts = ['disputed', 'unsteady', 'not-attributable'] as const;

/** Why the metric of a record may not be judged, though it has a number; null where it may. */
export function doubt({ energy: isEnergy }: Metric, { flags, energy }: MeasureRecord): string | null {
  const found = isEnergy ? doubts.find((flag) => flags.includes(flag)) : undefined;
  if (found === undefined) return null;
  const { disputed, steady, attributable } = energy;
  const { reasons } = { disputed, unsteady: steady, 'not-attributable': attributable }[found];
  return `energy is ${found}: ${reasons.join('; ')}`;
}

/** Degrees of freedom of an interval of energy: the fewest windows that any counter of it gave, less one. */
const windowDegrees = ({ energy }: MeasureRecord): number =>
  Math.max(1, Math.min(...energy.domains.map(({ windows }) => windows.length)) - 1);

/**
 * The metric of a record over that of its reference, which compare() interleaved it with; or why there is none. Time and energy per
 * call have this ratio taken round by round; power has its own intervals, taken as independent.
 */
export function toReference(metric: Metric, record: MeasureRecord, reference: MeasureRecord): LogRatio | string {
  const { comparison } = record;
  if (comparison === null) return 'compare() did not take it';
  if (metric.name === 'time') {
    if (comparison.ci95 === null) return `${comparison.blocks} blocks are too few for an interval; measure longer`;
    return fromInterval(comparison.ratio, comparison.ci95, Math.max(1, comparison.blocks - 1));
  }
  if (metric.name === 'energy.perCallJ') {
    const { energyRatio: q, energyRounds } = comparison;
    if (q.value === null) return `the ratio of energies is not known: ${q.reason}`;
    if (!q.ci95) return 'the ratio of energies has no interval; meter more windows';
    return fromInterval(q.value, q.ci95, Math.max(1, energyRounds - 1));
  }
  const [over, under] = [metric.of(record), metric.of(reference)];
  if (over?.value == null || under?.value == null) return `${metric.name} of the reference is not known`;
  if (!(over.value > 0) || !(under.value > 0))
    return `${metric.name} is ${over.value} and ${under.value}, expected more than 0`;
  if (!over.ci95 || !under.ci95) return `${metric.name} has no interval; meter more windows`;
  return quotient(
    fromInterval(over.value, over.ci95, windowDegrees(record)),
    fromInterval(under.value, under.ci95, windowDegrees(reference)),
  );
}
