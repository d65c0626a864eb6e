// Which pages of a cache hold which tokens of which sequence: counts of owners, a list of free pages, and what has to be copied before
// something is written to a page that others read. No device, no memory but its own.
import { KernwattError } from '../errors.js';

/** Tokens of one sequence, in the order of its pages. */
export interface Holding {
  /** Pages, of which the last may be partly filled. */
  readonly pages: number[];
  length: number;
}

/** Before a sequence goes on in a page that others hold, too: `slots` tokens from one page to another. */
export interface PageCopy {
  from: number;
  to: number;
  slots: number;
}

/** What a growth takes; nothing has happened yet. */
export interface Growth {
  readonly copies: readonly PageCopy[];
  commit(): void;
}

export class Pages {
  readonly count: number;
  readonly size: number;
  /** Owners of each page. */
  readonly #owners: Int32Array;
  /** The one freed last is taken first: it may still be in a cache of the processor. */
  readonly #free: number[];

  constructor(count: number, size: number) {
    this.count = count;
    this.size = size;
    this.#owners = new Int32Array(count);
    this.#free = Array.from({ length: count }, (_, i) => count - 1 - i);
  }

  get free(): number {
    return this.#free.length;
  }

  /** Pages that hold so many tokens. */
  pagesFor(tokens: number): number {
    return Math.ceil(tokens / this.size);
  }

  /**
   * Room for more tokens of several sequences, all or nothing.
   * @throws {KernwattError} `OUT_OF_MEMORY` where too few pages are free.
   */
  grow(where: string, growths: readonly (readonly [holding: Holding, tokens: number])[]): Growth {
    // Owners that pages have once the copies are made: the last of them needs none.
    const left = new Map<number, number>();
    const taken: { holding: Holding; copied: boolean; pages: number; tokens: number }[] = [];
    let wanted = 0;
    for (const [holding, tokens] of growths) {
      const last = holding.pages.at(-1);
      const partial = tokens > 0 && last !== undefined && holding.length % this.size !== 0;
      const owners = partial ? (left.get(last) ?? this.#owners[last]!) : 1;
      if (owners > 1) left.set(last!, owners - 1);
      const pages = this.pagesFor(holding.length + tokens) - holding.pages.length + Number(owners > 1);
      taken.push({ holding, copied: owners > 1, pages, tokens });
      wanted += pages;
    }
    if (wanted > this.free)
      throw new KernwattError(
        'OUT_OF_MEMORY',
        `${where}: free pages are ${this.free} of ${this.count}, expected ${wanted} for the tokens to append; free sequences, or try again later`,
      );
    // The pages that commit will take, in that order.
    let next = this.#free.length;
    const copies: PageCopy[] = [];
    for (const { holding, copied, pages } of taken) {
      if (copied)
        copies.push({ from: holding.pages.at(-1)!, to: this.#free[next - 1]!, slots: holding.length % this.size });
      next -= pages;
    }
    const commit = () => {
      for (const { holding, copied, pages, tokens } of taken) {
        // Others still hold it, so the list of free pages is what it was when the copies were planned.
        if (copied) this.release([holding.pages.pop()!]);
        for (let i = 0; i < pages; ++i) {
          const page = this.#free.pop()!;
          this.#owners[page] = 1;
          holding.pages.push(page);
        }
        holding.length += tokens;
      }
    };
    return { copies, commit };
  }

  /** One owner more of the first `tokens` of a sequence. */
  share({ pages }: Holding, tokens: number): Holding {
    const shared = pages.slice(0, this.pagesFor(tokens));
    for (const page of shared) ++this.#owners[page]!;
    return { pages: shared, length: tokens };
  }

  /** Keeps the first `tokens`. */
  truncate(holding: Holding, tokens: number): void {
    this.release(holding.pages.splice(this.pagesFor(tokens)));
    holding.length = tokens;
  }

  /** One owner less; pages without any are free. */
  release(pages: readonly number[]): void {
    for (const page of pages) if (--this.#owners[page]! === 0) this.#free.push(page);
  }
}
