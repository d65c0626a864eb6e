// Every number a report can show, rank or draw: its name, unit, which way is better and where a record keeps it. The page runs
// this file in a browser too, so it imports nothing that needs Node.
import { known, missing, type Quantity } from '../measure/quantity.js';
import type { MeasureRecord, Metrics } from '../measure/record.js';
import type { Interval } from '../measure/stats.js';
import type { Better } from './scores.js';

export interface ReportQuantity {
  /** Column name in CSV and JSON, with the unit: `latency_s`. */
  key: string;
  label: string;
  unit: string;
  /** Null where neither way is better. */
  better: Better | null;
  /** A count or a ratio of counts, the same however often it is taken: its interval is the number itself. */
  exact: boolean;
  of(record: MeasureRecord): Quantity;
}

const q = (
  key: string,
  label: string,
  unit: string,
  better: Better | null,
  of: (record: MeasureRecord) => Quantity,
  exact = false,
): ReportQuantity => ({ key, label, unit, better, exact, of });

/** A number of the six metrics; an invalid record has none. */
const metric =
  (unit: string, of: (metrics: Metrics) => Quantity) =>
  (record: MeasureRecord): Quantity =>
    record.metrics ? of(record.metrics) : missing(unit, 'the result is wrong, and a wrong result has no performance');

const part =
  <T>(unit: string, of: (record: MeasureRecord) => T | null, get: (part: T) => Quantity) =>
  (record: MeasureRecord): Quantity => {
    const found = of(record);
    return found === null ? missing(unit, 'the result is wrong, and a wrong result has no performance') : get(found);
  };

function latency({ time }: MeasureRecord): Quantity {
  if (time === null) return missing('s', 'the result is wrong, and a wrong result has no performance');
  const clock = time[time.headline]!;
  return known(clock.median, 's', `median, ${time.headline} clock`, clock.ci95Median);
}

/** What cosine similarity can tell from 1 in double precision. */
const resolution = Math.sqrt(2 * Number.EPSILON);

/**
 * The angle between outputs and definition, sqrt(2 (1 - cosine)): for small deviations their root mean square relative to the
 * root mean square of the outputs. Of the rows compared, so the interval allows for the choice of rows: 3 / sqrt(elements) is
 * four standard errors of a root mean square of independent deviations.
 */
function deviation({ correctness: { cosine, elements, state, reason } }: MeasureRecord): Quantity {
  if (state === 'unchecked' || cosine === null)
    return missing('1', reason ?? 'the outputs were not compared with their definition');
  const value = Math.max(resolution, Math.sqrt(2 * Math.max(0, 1 - cosine)));
  const margin = 3 / Math.sqrt(Math.max(1, elements));
  const ends: Interval = [value * Math.max(0, 1 - margin), value * (1 + margin)];
  return known(value, '1', `from the cosine similarity of ${elements} elements with the definition`, ends);
}

const intensity = ({ work: { flops, minBytes } }: MeasureRecord): Quantity =>
  flops && minBytes
    ? known(flops / minBytes, 'FLOP/B', 'operations over the bytes that must move')
    : missing('FLOP/B', 'the work of this case is not known');

const roof = ({ roofline, time }: MeasureRecord): Quantity =>
  roofline
    ? known(roofline.fraction, '1', `of the ${roofline.boundBy} roof`)
    : missing(
        '1',
        time && time.cache !== 'cold'
          ? `operands are ${time.cache}: the memory side of the roof does not hold for them`
          : 'work or peaks are not known',
      );

const energyFloor = ({ roofline, energy }: MeasureRecord): Quantity =>
  roofline?.energyEfficiency ??
  missing('1', energy.perCallJ.value === null ? energy.perCallJ.reason : 'work or peaks are not known');

export const quantities = [
  q('latency_s', 'latency', 's', 'lower', latency),
  q(
    'flops_per_s',
    'arithmetic rate',
    'FLOP/s',
    'higher',
    part(
      'FLOP/s',
      ({ rate }) => rate,
      (r) => r.flopsPerSecond,
    ),
  ),
  q(
    'bytes_per_s',
    'memory rate',
    'B/s',
    'higher',
    part(
      'B/s',
      ({ rate }) => rate,
      (r) => r.bytesPerSecond,
    ),
  ),
  q('of_roof', 'share of the roof', '1', 'higher', roof),
  q('intensity_flop_per_b', 'arithmetic intensity', 'FLOP/B', null, intensity, true),
  q(
    'tokens_per_s',
    'throughput',
    'tokens/s',
    'higher',
    metric('tokens/s', ({ AT }) => AT.honest.tokensPerSecond),
  ),
  q(
    'joules_per_token',
    'energy per token',
    'J',
    'lower',
    metric('J', ({ AEC }) => AEC.honest.joulesPerToken),
  ),
  q(
    'joules_per_call',
    'energy per call',
    'J',
    'lower',
    metric('J', ({ AEC }) => AEC.honest.joulesPerCall),
  ),
  q('net_joules_per_call', 'energy per call, net of idle', 'J', 'lower', ({ energy }) => energy.netPerCallJ),
  q('joules_per_flop', 'energy per operation', 'J/FLOP', 'lower', ({ energy }) => energy.perFlopJ),
  q('joules_per_byte', 'energy per byte', 'J/B', 'lower', ({ energy }) => energy.perByteJ),
  q('of_energy_floor', 'share of the energy floor', '1', 'higher', energyFloor),
  q(
    'average_b',
    'memory, average',
    'B',
    'lower',
    metric('B', ({ AMU }) => AMU.honest.averageBytes),
    true,
  ),
  q(
    'peak_b',
    'memory, peak',
    'B',
    'lower',
    metric('B', ({ AMU }) => AMU.honest.peakBytes),
    true,
  ),
  q('deviation', 'error', '1', 'lower', deviation),
  q(
    'of_peak_flops',
    'share of peak FLOP/s',
    '1',
    'higher',
    metric('1', ({ PCU }) => PCU.honest.ofPeakFlops),
  ),
  q(
    'of_peak_bandwidth',
    'share of peak bandwidth',
    '1',
    'higher',
    metric('1', ({ PCU }) => PCU.honest.ofPeakBandwidth),
  ),
  q(
    'compression_bytes',
    'compression, by bytes',
    '1',
    'higher',
    metric('1', ({ MCR }) => MCR.honest.MCR),
    true,
  ),
  q(
    'paper_amu_gb',
    "AMU, the paper's",
    'GB',
    'lower',
    metric('GB', ({ AMU }) => AMU.paper.AMU),
    true,
  ),
  q(
    'paper_pcu',
    "PCU, the paper's",
    '1',
    'higher',
    metric('1', ({ PCU }) => PCU.paper.PCU),
  ),
  q(
    'paper_al_s',
    "AL, the paper's",
    's',
    'lower',
    metric('s', ({ AL }) => AL.paper.AL),
  ),
  q(
    'paper_tt',
    "TT, the paper's",
    'tokens/param/s',
    'higher',
    metric('tokens/param/s', ({ AT }) => AT.paper.TT),
  ),
  q(
    'paper_it',
    "IT, the paper's",
    'tokens/s',
    'higher',
    metric('tokens/s', ({ AT }) => AT.paper.IT),
  ),
  q(
    'paper_aec_w',
    "AEC, the paper's",
    'W',
    'lower',
    metric('W', ({ AEC }) => AEC.paper.AEC),
  ),
  q(
    'paper_mcr',
    "MCR, the paper's",
    '1',
    'higher',
    metric('1', ({ MCR }) => MCR.paper.MCR),
    true,
  ),
] as const;

const position = new Map(quantities.map(({ key }, i) => [key, i]));

/** Where a quantity stands in `quantities`, and so in every row. */
export function at(key: string): number {
  const i = position.get(key);
  if (i === undefined) throw new Error(`report: quantity is ${key}, expected ${[...position.keys()].join(', ')}`);
  return i;
}

/** The axes of Pareto fronts. */
export const paretoAxes = ['latency_s', 'joules_per_token', 'average_b', 'deviation'] as const;

export const sixMetrics = ['AMU', 'PCU', 'AL', 'AT', 'AEC', 'MCR'] as const;
export type SixMetric = (typeof sixMetrics)[number];
export type Form = 'honest' | 'paper';

/** What the radar, the ranks and the score go by, in either form. */
export const scoreKeys: Record<Form, Record<SixMetric, string>> = {
  honest: {
    AMU: 'average_b',
    PCU: 'of_peak_flops',
    AL: 'latency_s',
    AT: 'tokens_per_s',
    AEC: 'joules_per_token',
    MCR: 'compression_bytes',
  },
  paper: {
    AMU: 'paper_amu_gb',
    PCU: 'paper_pcu',
    AL: 'paper_al_s',
    AT: 'paper_it',
    AEC: 'paper_aec_w',
    MCR: 'paper_mcr',
  },
};

export type Weights = Record<SixMetric, number>;
export const equalWeights: Weights = { AMU: 1, PCU: 1, AL: 1, AT: 1, AEC: 1, MCR: 1 };
