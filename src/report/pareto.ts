// Which alternatives nothing else beats, when every number is uncertain. Pure functions; all axes count as lower is better
// (turn a higher-is-better number round with `flipped`).

/** A number and the ends of its 95 % interval; null where no interval is known, and equal to the value where it is exact. */
export interface Estimate {
  value: number;
  low: number | null;
  high: number | null;
}

export const exactly = (value: number): Estimate => ({ value, low: value, high: value });

/** The same number with more and less exchanged. */
export const flipped = ({ value, low, high }: Estimate): Estimate => ({
  value: -value,
  low: high === null ? null : -high,
  high: low === null ? null : -low,
});

/** -1: `a` is surely below `b`; 1: surely above; 0: the very same number and interval; null: their intervals overlap. */
export function order(a: Estimate, b: Estimate): -1 | 0 | 1 | null {
  if (a.low === null || a.high === null || b.low === null || b.high === null) return null;
  if (a.value === b.value && a.low === b.low && a.high === b.high) return 0;
  if (a.high < b.low) return -1;
  if (a.low > b.high) return 1;
  return null;
}

/** One alternative: its number on each axis, or null where it is not known. */
export type Point = readonly (Estimate | null)[];

/**
 * Whether `a` beats `b`: on no axis could it be worse (it is separated, or the very same number), and on one at least it is
 * surely better. Overlapping intervals and unknown numbers never decide against anyone.
 */
export function dominates(a: Point, b: Point): boolean {
  let better = false;
  for (let axis = 0; axis < a.length; axis++) {
    const x = a[axis];
    const y = b[axis];
    if (!x || !y) return false;
    const way = order(x, y);
    if (way === null || way === 1) return false;
    better ||= way === -1;
  }
  return better;
}

/**
 * For every point the index of one on the front that beats it, or null where it is on the front itself. Domination is
 * transitive, so comparing with the front alone is enough.
 */
export function front(points: readonly Point[]): (number | null)[] {
  const beatenBy = new Array<number | null>(points.length).fill(null);
  let best: number[] = [];
  for (const [i, point] of points.entries()) {
    const winner = best.find((j) => dominates(points[j]!, point));
    if (winner !== undefined) {
      beatenBy[i] = winner;
      continue;
    }
    best = best.filter((j) => {
      if (!dominates(point, points[j]!)) return true;
      beatenBy[j] = i;
      return false;
    });
    best.push(i);
  }
  // Whoever beat a point may have been beaten later.
  const last = (i: number): number => {
    const by = beatenBy[i];
    return by == null ? i : last(by);
  };
  return beatenBy.map((by) => (by === null ? null : last(by)));
}
