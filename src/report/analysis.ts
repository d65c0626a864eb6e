// Fronts, scores and labels of a set of rows, the same for Markdown, JSON and the page. Imports nothing that needs Node.
import type { Interval } from '../measure/stats.js';
import { digits, plusMinus, quantity } from './format.js';
import type { PageRow } from './model.js';
import { type Estimate, flipped, front, type Point } from './pareto.js';
import {
  at,
  type Form,
  quantities,
  type ReportQuantity,
  type SixMetric,
  scoreKeys,
  sixMetrics,
  type Weights,
} from './quantities.js';
import { type Rank, type Scores, scores } from './scores.js';

export const estimate = (row: PageRow, key: string): Estimate | null => {
  const cell = row.cells[at(key)]!;
  return typeof cell === 'string' ? null : cell;
};

export const definition = (key: string): ReportQuantity => quantities[at(key)]!;

/** A number as people read it, with its unit. Deviations are powers of ten rather than percentages. */
export function formatted({ key, unit }: ReportQuantity, value: number): string {
  if (unit === 'FLOP/B') return `${digits(value)} ${unit}`;
  return key === 'deviation' ? value.toExponential(2) : quantity({ value, unit, state: 'ok', basis: '' });
}

/** The same with its half width: `12.3 µs ±1.2 %`; `n/a` where there is none. */
export function shown(row: PageRow, key: string): string {
  const found = estimate(row, key);
  if (!found) return 'n/a';
  const { value, low, high } = found;
  const ends: Interval | null = low === null || high === null || low === high ? null : [low, high];
  return `${formatted(definition(key), value)} ${plusMinus(ends, value)}`.trim();
}

export const rankText = ({ best, worst }: Rank): string => (best === worst ? `${best}` : `${best}–${worst}`);

export interface LeftOut {
  label: string;
  reason: string;
}

export interface Front {
  /** Keys of the axes that decided, and those that no row has a number on. */
  axes: string[];
  leftOut: LeftOut[];
  /** For each row the one on the front that beats it, or null where it is on the front: positions in the given rows. */
  beatenBy: (number | null)[];
  /** How many rows lack a number or an interval on one of the axes, so that they can neither beat nor be beaten. */
  undecided: number;
}

/** What a front could not decide, as a sentence; nothing where it decided everything. */
export const undecidedText = ({ undecided }: Front): string =>
  undecided === 0 ? '' : ` ${undecided} of them cannot be judged: a number or an interval is missing.`;

/** Why these rows have no number, in the words of the first. */
function reasonOf(rows: readonly PageRow[], key: string): string {
  const cell = rows.map((row) => row.cells[at(key)]!).find((one) => typeof one === 'string');
  return typeof cell === 'string' ? cell : '';
}

/** The Pareto front over the axes that at least one row has a number on. */
export function frontOf(rows: readonly PageRow[], keys: readonly string[]): Front {
  const axes = keys.filter((key) => rows.some((row) => estimate(row, key)));
  const leftOut = keys
    .filter((key) => !axes.includes(key))
    .map((key) => ({ label: definition(key).label, reason: reasonOf(rows, key) }));
  const points = rows.map(
    (row): Point =>
      axes.map((key) => {
        const found = estimate(row, key);
        return found && definition(key).better === 'higher' ? flipped(found) : found;
      }),
  );
  const undecided = points.filter((point) => point.some((one) => one === null || one.low === null)).length;
  return { axes, leftOut, beatenBy: axes.length === 0 ? rows.map(() => null) : front(points), undecided };
}

export interface Scoring extends Scores {
  /** The metrics that count, in the order of `members[].normalised`. */
  metrics: SixMetric[];
  leftOut: LeftOut[];
}

/** Ranks, normalised values and scores of rows in one form of the six metrics. */
export function scoring(rows: readonly PageRow[], form: Form, weights: Weights): Scoring {
  const keys = sixMetrics.map((metric) => scoreKeys[form][metric]);
  const axes = sixMetrics.map((name, i) => ({ name, better: definition(keys[i]!).better!, weight: weights[name] }));
  const found = scores(
    rows.map((row) => keys.map((key) => estimate(row, key))),
    axes,
  );
  const left = sixMetrics.filter((_, i) => !found.used.includes(i));
  return {
    ...found,
    metrics: found.used.map((i) => sixMetrics[i]!),
    leftOut: left.map((metric) => ({ label: metric, reason: reasonOf(rows, scoreKeys[form][metric]) })),
  };
}

const details: readonly ((row: PageRow) => string)[] = [
  ({ types }) => types,
  ({ cache }) => cache,
  ({ kernel }) => kernel,
  ({ sizes }) => sizes,
  ({ line }) => `line ${line}`,
  ({ file }) => file,
];

/** Names that tell the rows apart: the case, and of the rest only as much as it takes. */
export function labels(rows: readonly PageRow[]): string[] {
  let names = rows.map(({ name }) => name);
  for (const detail of details) {
    const count = new Map<string, number>();
    for (const name of names) count.set(name, (count.get(name) ?? 0) + 1);
    if (count.size === rows.length) break;
    const told = rows.map(detail);
    // A detail helps only where rows of one name differ in it.
    const differs = new Map<string, Set<string>>();
    for (const [i, name] of names.entries()) differs.set(name, (differs.get(name) ?? new Set()).add(told[i]!));
    names = names.map((name, i) => (differs.get(name)!.size > 1 ? `${name}, ${told[i]}` : name));
  }
  return names;
}

/** Where the definitions of the paper do not hold what their names promise, for whoever reads its numbers. */
export const paperSlips: readonly string[] = [
  'Min-max normalisation depends on the company: another alternative in the set changes the score, and may change the order, of all.',
  'A normalised worst is 0, of which no harmonic mean exists; the figures of the paper draw it at 0.1, so the score here uses 0.1 too. The weights of the paper were not published; these are yours.',
  'The ordinal ranks of the paper know no error bars: two alternatives within noise get different ranks. The range beside each rank is what the intervals allow.',
  'For equal work AL and AT are reciprocals, and PCU follows them: speed counts three times unless the weights say otherwise.',
  'AEC is named energy and is mean power: a slow alternative that idles scores well. The honest form is joules per token.',
  'PCU is named peak and is a mean of "a kernel was resident"; the honest form is achieved over measured peak FLOP/s.',
  'MCR takes nominal bits (16 / 4 = 4) and ignores scales and padding; the honest form counts the bytes stored.',
  'AMU is named utilisation and is given in GB, where a ratio would be meant; its code divides by 2^30.',
];
