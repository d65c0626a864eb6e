// The order in which windows of several cases are metered.
import { randomSource, shuffle } from '../random.js';

/**
 * Indices of cases, each `windows` times: rounds that hold every case once, each round shuffled by the seed, so that drift of
 * temperature and clocks falls on all cases alike.
 */
export function windowOrder(cases: number, windows: number, seed: number): number[] {
  const next = randomSource(seed);
  const order: number[] = [];
  for (let round = 0; round < windows; round++)
    order.push(
      ...shuffle(
        Array.from({ length: cases }, (_, i) => i),
        next,
      ),
    );
  return order;
}
