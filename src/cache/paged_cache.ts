// A paged cache of keys and values for many sequences: what a server keeps beside kvAppend and attentionGqaPaged.
import type { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import { formatShape } from '../shape.js';
import { kindOf } from '../solve.js';
import type { Stream } from '../stream.js';
import { Tensor } from '../tensor.js';
import { type Holding, Pages } from './pages.js';

export interface PagedCacheOptions {
  /**
   * What the pages are pages of: keys and values of every layer, each `[pages, pageSize, ...]`. They stay the caller's, and none is
   * written to but when a page is copied.
   */
  caches: readonly Tensor[];
}

/** Tokens to append: rows of `k` and `v` of one step. */
export interface Append {
  sequence: CachedSequence;
  tokens: number;
}

export interface TableOptions {
  /** Slots of the batch, those behind the sequences empty. Default: one for each sequence. */
  batch?: number | undefined;
  /** Entries of each sequence. Default: as many as the longest has pages, at least 1. */
  maxPages?: number | undefined;
}

/** What `kvAppend` and `attentionGqaPaged` take of a batch of sequences, by the names of their arguments. */
export class BatchTables implements Disposable {
  /** @internal Use `cache.tables()`. */
  constructor(
    /** `[batch, maxPages]`, i32. */
    readonly pageTable: Tensor,
    /** `[batch]`, i32; tokens of each sequence. */
    readonly lensKv: Tensor,
    /** `[batch]`, i32; those of them that the last `append` brought. */
    readonly lensQ: Tensor,
  ) {}

  dispose(): void {
    for (const tensor of [this.pageTable, this.lensKv, this.lensQ]) tensor.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** One sequence in a cache: pages, some of them perhaps shared, and how many tokens they hold. */
export class CachedSequence implements Disposable {
  /** @internal */
  readonly holding: Holding;
  readonly #cache: PagedCache;
  readonly #pages: Pages;
  #appended = 0;
  #freed = false;

  /** @internal Use `cache.sequence()` and `sequence.fork()`. */
  constructor(cache: PagedCache, pages: Pages, holding: Holding) {
    this.#cache = cache;
    this.#pages = pages;
    this.holding = holding;
  }

  /** Tokens. */
  get length(): number {
    return this.holding.length;
  }

  /** Pages in the order of the tokens. */
  get pages(): readonly number[] {
    return this.holding.pages;
  }

  /** Tokens that the last `append` brought. */
  get appended(): number {
    return this.#appended;
  }

  get freed(): boolean {
    return this.#freed;
  }

  /**
   * Another sequence that begins with the first `tokens` of this one, all by default: a shared prompt, or the branches of a search. Costs
   * no page; a page that only one of them goes on to fill is copied when that happens.
   * @throws {KernwattError} `ARGUMENT` beyond the length; `DISPOSED`.
   */
  fork(tokens: number = this.length): CachedSequence {
    this.check('fork');
    this.#count('fork', tokens);
    return new CachedSequence(this.#cache, this.#pages, this.#pages.share(this.holding, tokens));
  }

  /**
   * Keeps the first `tokens`, for guesses that were wrong; pages behind them are given back.
   * @throws {KernwattError} `ARGUMENT` beyond the length; `DISPOSED`.
   */
  truncate(tokens: number): this {
    this.check('truncate');
    this.#count('truncate', tokens);
    this.#pages.truncate(this.holding, tokens);
    this.#appended = 0;
    return this;
  }

  /** Gives its pages back, those that others share to them. Idempotent. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#pages.truncate(this.holding, 0);
  }

  [Symbol.dispose](): void {
    this.free();
  }

  /** @internal */
  grew(tokens: number): void {
    this.#appended = tokens;
  }

  /** @internal Throws unless it is a live sequence of `cache`. */
  check(where: string, cache: PagedCache = this.#cache): void {
    if (cache !== this.#cache)
      throw new KernwattError('ARGUMENT', `${where}: sequence is one of another cache, expected one of this`);
    if (this.#freed) throw new KernwattError('DISPOSED', `${where}: sequence is freed, expected a live one`);
  }

  #count(where: string, tokens: number): void {
    if (!Number.isSafeInteger(tokens) || tokens < 0 || tokens > this.length)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: tokens are ${kindOf(tokens)}, expected 0 to the length ${this.length}`,
      );
  }
}

/**
 * Gives the pages of cache tensors to sequences: bookkeeping alone, but for copies of pages that are shared and then written to. Pages
 * are taken and given back one at a time, in any order, so that nothing ever has to be moved together.
 * @example
 * const cache = new PagedCache({ caches: [kCache, vCache] });
 * const sequence = cache.sequence();
 * cache.append([{ sequence, tokens: 16 }]);
 * const tables = cache.tables([sequence]);
 * kvAppend({ k, v, kCache, vCache, ...tables });
 */
export class PagedCache {
  readonly device: Device;
  readonly pageSize: number;
  /** All pages. */
  readonly pages: number;
  readonly #pages: Pages;
  readonly #caches: readonly Tensor[];

  /** @throws {KernwattError} `ARGUMENT`, `SHAPE` where the caches differ in pages or their size; `DISPOSED`. */
  constructor({ caches }: PagedCacheOptions) {
    const where = 'PagedCache';
    if (!Array.isArray(caches) || caches.length === 0)
      throw new KernwattError('ARGUMENT', `${where}: caches are ${kindOf(caches)}, expected a list of tensors`);
    for (const [i, cache] of caches.entries()) {
      if (!(cache instanceof Tensor))
        throw new KernwattError('ARGUMENT', `${where}: caches[${i}] is ${kindOf(cache)}, expected a tensor`);
      cache.check(where, `caches[${i}]`);
      if (cache.shape.length < 2 || cache.shape[1]! < 1)
        throw new KernwattError(
          'SHAPE',
          `${where}: caches[${i}] is ${formatShape(cache.shape)}, expected [pages, pageSize, ...]`,
        );
      const [first] = caches as [Tensor];
      if (cache.shape[0] !== first.shape[0] || cache.shape[1] !== first.shape[1])
        throw new KernwattError(
          'SHAPE',
          `${where}: caches[${i}] has ${cache.shape[0]} pages of ${cache.shape[1]}, but caches[0] has ${first.shape[0]} of ${first.shape[1]}`,
        );
      if (cache.device !== first.device)
        throw new KernwattError(
          'ARGUMENT',
          `${where}: caches[${i}] is on ${cache.device.name}, expected ${first.device.name} as caches[0]`,
        );
    }
    this.#caches = [...caches];
    this.device = caches[0]!.device;
    this.pages = caches[0]!.shape[0]!;
    this.pageSize = caches[0]!.shape[1]!;
    this.#pages = new Pages(this.pages, this.pageSize);
  }

  /** Pages that nobody holds. */
  get freePages(): number {
    return this.#pages.free;
  }

  get usedPages(): number {
    return this.pages - this.#pages.free;
  }

  /** An empty sequence; it takes its first page with its first token. */
  sequence(): CachedSequence {
    return new CachedSequence(this, this.#pages, { pages: [], length: 0 });
  }

  /**
   * Makes room for the tokens of one step, for all sequences or for none. A last page that is partly filled and shared is copied first
   * in every cache, queued on `stream` before whatever is queued there later.
   * @throws {KernwattError} `OUT_OF_MEMORY` where too few pages are free: nothing has changed then, no page was copied, and
   *   the call can be repeated once others have given pages back; `ARGUMENT` for counts below 0 and sequences that come twice or
   *   belong to others; `DISPOSED`.
   */
  append(steps: readonly Append[], { stream }: { stream?: Stream | undefined } = {}): void {
    const where = 'PagedCache.append';
    const seen = new Set<CachedSequence>();
    for (const [i, { sequence, tokens }] of steps.entries()) {
      this.#check(where, `steps[${i}].sequence`, sequence);
      if (!Number.isSafeInteger(tokens) || tokens < 0)
        throw new KernwattError('ARGUMENT', `${where}: steps[${i}].tokens is ${kindOf(tokens)}, expected 0 or more`);
      if (seen.has(sequence))
        throw new KernwattError('ARGUMENT', `${where}: steps[${i}].sequence comes twice, expected it once`);
      seen.add(sequence);
    }
    const growth = this.#pages.grow(
      where,
      steps.map(({ sequence, tokens }) => [sequence.holding, tokens] as const),
    );
    for (const { from, to, slots } of growth.copies)
      for (const cache of this.#caches) {
        using source = cache.slice([from, [0, slots]]);
        using target = cache.slice([to, [0, slots]]);
        target.copyFrom(source, { stream });
      }
    growth.commit();
    for (const { sequence, tokens } of steps) sequence.grew(tokens);
  }

  /**
   * Tables of a batch, in the order of the sequences; the caller disposes of them. Entries past a length are 0.
   * @throws {KernwattError} `SHAPE` where `batch` or `maxPages` is too small; `ARGUMENT`, `DISPOSED`, `OUT_OF_MEMORY`.
   */
  tables(sequences: readonly CachedSequence[], { batch, maxPages }: TableOptions = {}): BatchTables {
    const where = 'PagedCache.tables';
    const rows = batch ?? sequences.length;
    const columns = maxPages ?? Math.max(1, ...sequences.map(({ pages }) => pages.length));
    const { table, lengths, counts } = this.#numbers(where, sequences, rows, columns);
    const made: Tensor[] = [];
    const make = (values: Int32Array, shape: number[]) => {
      const tensor = this.device.tensor(values, shape);
      made.push(tensor);
      return tensor;
    };
    try {
      return new BatchTables(make(table, [rows, columns]), make(lengths, [rows]), make(counts, [rows]));
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    }
  }

  /**
   * Writes another step into tables that plans are bound to, queued on `stream`.
   * @throws {KernwattError} as `tables`.
   */
  update(
    tables: BatchTables,
    sequences: readonly CachedSequence[],
    options: { stream?: Stream | undefined } = {},
  ): void {
    const [rows, columns] = tables.pageTable.shape as [number, number];
    const { table, lengths, counts } = this.#numbers('PagedCache.update', sequences, rows, columns);
    tables.pageTable.write(table, options);
    tables.lensKv.write(lengths, options);
    tables.lensQ.write(counts, options);
  }

  #numbers(
    where: string,
    sequences: readonly CachedSequence[],
    rows: number,
    columns: number,
  ): { table: Int32Array; lengths: Int32Array; counts: Int32Array } {
    for (const [i, sequence] of sequences.entries()) {
      this.#check(where, `sequences[${i}]`, sequence);
      if (sequence.pages.length > columns)
        throw new KernwattError(
          'SHAPE',
          `${where}: maxPages is ${columns}, expected at least ${sequence.pages.length} as sequences[${i}] has`,
        );
    }
    if (sequences.length > rows)
      throw new KernwattError(
        'SHAPE',
        `${where}: batch is ${rows}, expected at least the ${sequences.length} sequences`,
      );
    const table = new Int32Array(rows * columns);
    const lengths = new Int32Array(rows);
    const counts = new Int32Array(rows);
    for (const [i, { pages, length, appended }] of sequences.entries()) {
      table.set(pages, i * columns);
      lengths[i] = length;
      counts[i] = appended;
    }
    return { table, lengths, counts };
  }

  #check(where: string, name: string, sequence: unknown): void {
    if (!(sequence instanceof CachedSequence))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} is ${kindOf(sequence)}, expected one from cache.sequence()`,
      );
    sequence.check(where, this);
  }
}
