// What the gate can judge, and what a record says about it. Less is better for all of them.
import type { Quantity } from '../measure/quantity.js';
import type { MeasureRecord } from '../measure/record.js';
import { fromInterval, type LogRatio, quotient } from './ratio.js';

export interface Metric {
  name: string;
  /** Counted, not measured: the same on every run, so numbers of different runs may be divided. */
  exact: boolean;
  /** The number of one record. */
  of(record: MeasureRecord): Quantity | null | undefined;
}

export const metrics: readonly Metric[] = [
  { name: 'time', exact: false, of: headline },
  { name: 'energy.perCallJ', exact: false, of: ({ energy }) => energy.perCallJ },
  { name: 'energy.powerW', exact: false, of: ({ energy }) => energy.powerW },
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

/** Intervals of energy rest on windows, of which a quick measurement takes three. */
const windowDegrees = 2;

/**
 * The metric of a record over that of its reference, which compare() interleaved it with; or why there is none. Time has this
 * ratio taken block by block; energies have their own intervals, taken as independent.
 */
export function toReference(metric: Metric, record: MeasureRecord, reference: MeasureRecord): LogRatio | string {
  const { comparison } = record;
  if (comparison === null) return 'compare() did not take it';
  if (metric.name === 'time') {
    if (comparison.ci95 === null) return `${comparison.blocks} blocks are too few for an interval; measure longer`;
    return fromInterval(comparison.ratio, comparison.ci95, Math.max(1, comparison.blocks - 1));
  }
  const [over, under] = [metric.of(record), metric.of(reference)];
  if (over?.value == null || under?.value == null) return `${metric.name} of the reference is not known`;
  if (!(over.value > 0) || !(under.value > 0))
    return `${metric.name} is ${over.value} and ${under.value}, expected more than 0`;
  if (!over.ci95 || !under.ci95) return `${metric.name} has no interval; meter more windows`;
  return quotient(
    fromInterval(over.value, over.ci95, windowDegrees),
    fromInterval(under.value, under.ci95, windowDegrees),
  );
}
