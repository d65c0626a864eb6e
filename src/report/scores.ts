// Normalised values, ranks and the efficiency score of EfficientLLM (arXiv 2505.13840, Eqs. 10 to 12) for a set of alternatives.
// Pure functions. docs/measuring.md says where the definitions of the paper do not hold what their names promise.
import { type Estimate, flipped, order } from './pareto.js';

export type Better = 'lower' | 'higher';

/** The floor of the paper's figures: the worst alternative is drawn at 0.1, not 0, and its harmonic mean needs that. */
export const floor = 0.1;

/** Min-max over the set: 1 is the best and 0.1 the worst. Where all are equal, which Eq. 10 leaves at 0/0, all are 1. */
export function normalise(values: readonly number[], better: Better): number[] {
  const low = Math.min(...values);
  const high = Math.max(...values);
  if (low === high) return values.map(() => 1);
  return values.map((value) => {
    const share = (value - low) / (high - low);
    return floor + (1 - floor) * (better === 'higher' ? share : 1 - share);
  });
}

/** `ordinal` is the paper's rank; `best` to `worst` are the ranks that the intervals allow. 1 is the best. */
export interface Rank {
  ordinal: number;
  best: number;
  worst: number;
}

/** Equal values share a rank. */
export function ranks(estimates: readonly Estimate[], better: Better): Rank[] {
  const lower = better === 'lower' ? estimates : estimates.map(flipped);
  return lower.map((mine) => {
    let ahead = 0;
    let surelyAhead = 0;
    let maybeAhead = 0;
    for (const other of lower) {
      if (other === mine) continue;
      const way = order(other, mine);
      if (other.value < mine.value) ahead++;
      if (way === -1) surelyAhead++;
      if (way === null) maybeAhead++;
    }
    return { ordinal: ahead + 1, best: surelyAhead + 1, worst: surelyAhead + maybeAhead + 1 };
  });
}

/** Weighted harmonic mean of normalised values; null when all weights are 0. */
export function harmonic(normalised: readonly number[], weights: readonly number[]): number | null {
  let total = 0;
  let sum = 0;
  for (const [i, value] of normalised.entries()) {
    total += weights[i]!;
    sum += weights[i]! / value;
  }
  return total === 0 ? null : total / sum;
}

export interface ScoreAxis {
  name: string;
  better: Better;
  weight: number;
}

export interface Scores {
  /** Positions of the axes that every member has a number on; the others are left out of everything below. */
  used: number[];
  /** One for each member, one value for each used axis. */
  members: { normalised: number[]; ranks: Rank[]; score: number | null }[];
}

/** Scores a set. `table[member][axis]` is null where a number is missing; one missing number takes the axis out for all. */
export function scores(table: readonly (readonly (Estimate | null)[])[], axes: readonly ScoreAxis[]): Scores {
  const used = axes.map((_, axis) => axis).filter((axis) => table.length > 0 && table.every((row) => row[axis]));
  const columns = used.map((axis) => {
    const estimates = table.map((row) => row[axis]!);
    const { better } = axes[axis]!;
    return {
      normalised: normalise(
        estimates.map(({ value }) => value),
        better,
      ),
      ranks: ranks(estimates, better),
    };
  });
  const weights = used.map((axis) => axes[axis]!.weight);
  const members = table.map((_, i) => {
    const normalised = columns.map((column) => column.normalised[i]!);
    return { normalised, ranks: columns.map((column) => column.ranks[i]!), score: harmonic(normalised, weights) };
  });
  return { used, members };
}
