// The bookkeeping of a paged cache against a model that keeps every sequence's tokens apart: whatever is allocated, grown, forked,
// cut and freed in whatever order, each sequence reads its own tokens, no page is lost and none is counted twice.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Holding, Pages } from '../../src/cache/pages.js';
import { KernwattError } from '../../src/index.js';

/** A cache of numbers, written and copied as kernels would, and the sequences beside what they should hold. */
class Model {
  readonly pages: Pages;
  readonly memory: Int32Array;
  readonly sequences: { holding: Holding; tokens: number[] }[] = [];
  refused = 0;
  copied = 0;
  #next = 1;

  constructor(
    count: number,
    readonly size: number,
  ) {
    this.pages = new Pages(count, size);
    this.memory = new Int32Array(count * size);
  }

  place(holding: Holding, t: number): number {
    return holding.pages[Math.floor(t / this.size)]! * this.size + (t % this.size);
  }

  /** One step: room for all of them, or nothing has changed. */
  append(steps: readonly (readonly [at: number, tokens: number])[]): void {
    const distinct = new Map(steps.map(([at, tokens]) => [this.sequences[at % this.sequences.length]!, tokens]));
    const chosen = [...distinct];
    const before = [this.pages.free, ...chosen.map(([{ holding }]) => [...holding.pages, holding.length].join())];
    let growth: ReturnType<Pages['grow']>;
    try {
      growth = this.pages.grow(
        'append',
        chosen.map(([{ holding }, tokens]) => [holding, tokens] as const),
      );
    } catch (error) {
      expect((error as KernwattError).code).toBe('ERR_KERNWATT_OUT_OF_MEMORY');
      const after = [this.pages.free, ...chosen.map(([{ holding }]) => [...holding.pages, holding.length].join())];
      expect(after).toEqual(before);
      ++this.refused;
      return;
    }
    for (const { from, to, slots } of growth.copies) {
      ++this.copied;
      this.memory.copyWithin(to * this.size, from * this.size, from * this.size + slots);
    }
    growth.commit();
    for (const [{ holding, tokens }, count] of chosen)
      for (let i = 0; i < count; ++i) {
        this.memory[this.place(holding, tokens.length)] = this.#next;
        tokens.push(this.#next++);
      }
  }

  act(kind: number, at: number, amount: number): void {
    const one = this.sequences[at % Math.max(1, this.sequences.length)];
    if (!one || kind === 0) this.sequences.push({ holding: { pages: [], length: 0 }, tokens: [] });
    else if (kind <= 4)
      this.append([
        [at, amount],
        [at + 1, amount % 5],
        [at + 2, 1],
      ]);
    else if (kind === 5) {
      const kept = amount % (one.tokens.length + 1);
      this.sequences.push({ holding: this.pages.share(one.holding, kept), tokens: one.tokens.slice(0, kept) });
    } else if (kind === 6) {
      const kept = Math.max(0, one.tokens.length - amount);
      this.pages.truncate(one.holding, kept);
      one.tokens.length = kept;
    } else {
      this.pages.truncate(one.holding, 0);
      this.sequences.splice(this.sequences.indexOf(one), 1);
    }
  }

  check(): void {
    const held = new Set<number>();
    for (const { holding, tokens } of this.sequences) {
      expect(holding.length).toBe(tokens.length);
      expect(holding.pages.length).toBe(Math.ceil(tokens.length / this.size));
      for (const page of holding.pages) held.add(page);
      for (let t = 0; t < tokens.length; ++t)
        if (this.memory[this.place(holding, t)] !== tokens[t]) throw new Error(`token ${t} of a sequence is another's`);
    }
    expect(this.pages.free).toBe(this.pages.count - held.size);
  }
}

// A million operations in the long form.
const full = process.env.KERNWATT_FULL !== undefined;
const [runs, actions] = full ? [1000, 1000] : [40, 250];

test('every sequence reads its own tokens and no page is lost', () => {
  let [refused, copied, acted] = [0, 0, 0];
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 9 }),
      fc.array(fc.tuple(fc.nat(7), fc.nat(1000), fc.nat(20)), { minLength: actions, maxLength: actions }),
      (count, size, list) => {
        const model = new Model(count, size);
        for (const [i, [kind, at, amount]] of list.entries()) {
          model.act(kind, at, amount);
          ++acted;
          if (i % 64 === 0) model.check();
        }
        model.check();
        for (const { holding } of model.sequences) model.pages.truncate(holding, 0);
        expect(model.pages.free).toBe(count);
        refused += model.refused;
        copied += model.copied;
      },
    ),
    { numRuns: runs },
  );
  // Whatever was drawn, each of these happened, or the property says little.
  expect(acted).toBeGreaterThanOrEqual(runs * actions);
  expect(Math.min(refused, copied)).toBeGreaterThan(runs);
}, 600_000);

test('what is asked for is exactly what is taken', () => {
  const pages = new Pages(4, 4);
  const grow = (...growths: (readonly [Holding, number])[]) => {
    const growth = pages.grow('append', growths);
    growth.commit();
    return growth.copies;
  };
  const one: Holding = { pages: [], length: 0 };
  expect(grow([one, 6])).toEqual([]);
  expect([one.pages, pages.free]).toEqual([[0, 1], 2]);
  const two = pages.share(one, 6);
  const three = pages.share(one, 4);
  expect([two.pages, three.pages, pages.free]).toEqual([[0, 1], [0], 2]);
  // A full page is never written to: no copy. A part of one is copied for the first, and is then the last owner's.
  expect(grow([three, 1], [two, 1], [one, 1])).toEqual([{ from: 1, to: 3, slots: 2 }]);
  expect([one.pages, two.pages, three.pages, pages.free]).toEqual([[0, 1], [0, 3], [0, 2], 0]);
  // Room in pages of their own is left; one page more is not.
  expect(grow([one, 1], [two, 1], [three, 3])).toEqual([]);
  expect(() => grow([one, 0], [two, 1])).toThrow(
    new KernwattError(
      'OUT_OF_MEMORY',
      'append: free pages are 0 of 4, expected 1 for the tokens to append; free sequences, or try again later',
    ),
  );
});
