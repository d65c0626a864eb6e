// The order in which compare() takes its samples, and what it concludes from them. Pure functions.
import { shuffle } from '../random.js';
import { mean } from './stats.js';

/**
 * Order of samples for `blocks` blocks over `cases` cases: each block is a random permutation and its mirror image (A B B A),
 * so that within a block every case has the same mean position and a linear drift cancels.
 */
export function mirroredBlocks(cases: number, blocks: number, next: () => number): Uint32Array {
  const order = new Uint32Array(2 * cases * blocks);
  for (let block = 0; block < blocks; block++) {
    const forward = shuffle(
      Array.from({ length: cases }, (_, i) => i),
      next,
    );
    order.set(forward, 2 * cases * block);
    order.set(forward.reverse(), 2 * cases * block + cases);
  }
  return order;
}

/** Samples by case, and for each block the mean of a case's two samples. */
export class Interleaved {
  readonly samples: number[][];
  readonly #blocks: number[][];

  constructor(readonly cases: number) {
    this.samples = Array.from({ length: cases }, () => []);
    this.#blocks = Array.from({ length: cases }, () => []);
  }

  /** Adds whole blocks: `seconds[i]` belongs to case `order[i]`. */
  add(order: Uint32Array, seconds: Float64Array): void {
    const size = 2 * this.cases;
    for (let start = 0; start < order.length; start += size) {
      const block: number[][] = Array.from({ length: this.cases }, () => []);
      for (let i = start; i < start + size; i++) {
        block[order[i]!]!.push(seconds[i]!);
        this.samples[order[i]!]!.push(seconds[i]!);
      }
      for (const [i, pair] of block.entries()) this.#blocks[i]!.push(mean(pair));
    }
  }

  get blocks(): number {
    return this.#blocks[0]!.length;
  }

  /** For each block, the time of `one` over the time of `baseline`. */
  ratios(one: number, baseline: number): Float64Array {
    return Float64Array.from(this.#blocks[one]!, (seconds, block) => seconds / this.#blocks[baseline]![block]!);
  }
}
