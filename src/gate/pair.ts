// Pairs records of BASE with records of NEW that may be compared, and says of every other why it may not.
import { type FileRecord, type LineProblem, place } from '../records/read.js';
import type { GateCase, GateVerdict } from './gate.js';
import { cacheOf, type Group, groups, identity, strangers } from './match.js';
import { doubt, type Metric, toReference } from './metrics.js';
import { interval95, type LogRatio, pooled } from './ratio.js';

/** A case with a ratio to be judged among all others, or (estimate null) one whose verdict is settled. */
export interface Draft extends Omit<GateCase, 'verdict' | 'pFail'> {
  estimate: LogRatio | null;
  settled: GateVerdict;
}

const apart =
  'measured in different runs, whose numbers must not be divided; compare() both in one run, or each with the same reference case';

const isWrong = ({ record }: FileRecord): boolean => record.verdict === 'invalid';

export class Pairing {
  readonly drafts: Draft[];
  readonly problems: LineProblem[] = [];
  readonly notes: string[] = [];
  readonly #metric: Metric;
  readonly #maxRatio: number;
  readonly #baseIds: ReadonlyMap<string, FileRecord>;
  readonly #newIds: ReadonlyMap<string, FileRecord>;
  /** Identities of the cases that others were compared with. */
  readonly #references = new Set<string>();

  constructor(base: readonly FileRecord[], news: readonly FileRecord[], metric: Metric, maxRatio: number) {
    this.#metric = metric;
    this.#maxRatio = maxRatio;
    this.#baseIds = new Map(base.map((one) => [one.record.id, one]));
    this.#newIds = new Map(news.map((one) => [one.record.id, one]));
    // Where one run was split over both files, the reference may stand in the other.
    for (const one of [...base, ...news])
      for (const ids of [this.#baseIds, this.#newIds]) {
        const reference = referenceOf(one, ids);
        if (reference) this.#references.add(identity(reference.record));
      }
    const wrong = news.filter(isWrong);
    const wrongCases = new Set(wrong.map(({ record }) => identity(record)));
    const isRight = (one: FileRecord) => !isWrong(one) && !wrongCases.has(identity(one.record));
    this.drafts = [
      // A wrong output is a failure whatever it costs.
      ...wrong.map((one) => this.#settled(one, [one], 'fail', `wrong output: ${one.record.correctness.reason}`)),
      ...groups(base.filter(isRight), news.filter(isRight)).flatMap((group) => this.#group(group)),
    ];
  }

  #settled({ record }: FileRecord, records: readonly FileRecord[], settled: GateVerdict, reason: string | null): Draft {
    return {
      name: record.case.name,
      op: record.case.op,
      cache: cacheOf(record),
      method: null,
      ratio: null,
      ci95: null,
      runs: { base: 0, new: 0 },
      places: records.map(place),
      reason,
      estimate: null,
      settled,
    };
  }

  #group({ first, ...group }: Group): Draft[] {
    // Took turns with a record of BASE: then that is what it is compared with, whatever it is called.
    const interleaved = group.news.filter((one) => referenceOf(one, this.#baseIds));
    if (interleaved.length > 0) return this.#interleaved(first, interleaved);
    // A record that both files hold, because they are one file, is not compared with itself.
    const news = group.news.filter(({ record }) => !this.#baseIds.has(record.id));
    const base = group.base.filter(({ record }) => !this.#newIds.has(record.id));
    if (news.length === 0 && base.length === 0) return [];
    if (!this.#metric.exact && this.#isReference([...news, ...base])) return [];
    const all = [...news, ...base];
    if (news.length === 0)
      return [this.#settled(first, all, 'inconclusive', 'only in BASE: it was not measured again')];
    if (base.length === 0) {
      this.notes.push(
        `${place(first)}: ${first.record.case.name} is in NEW alone, so there is nothing to compare it with`,
      );
      return [];
    }
    if (this.#refused([...strangers({ first, base, news }), ...all.flatMap((one) => this.#unknown(one))])) return [];
    const draft = this.#settled(first, all, 'inconclusive', null);
    return [this.#metric.exact ? this.#exact(draft, base, news) : this.#normalised(draft, base, news)];
  }

  /** References are what others are divided by, no cases of their own. */
  #isReference(all: readonly FileRecord[]): boolean {
    return this.#references.has(identity(all[0]!.record)) && all.every(({ record }) => record.comparison === null);
  }

  #refused(problems: readonly LineProblem[]): boolean {
    this.problems.push(...problems);
    return problems.length > 0;
  }

  #unknown({ record, file, line }: FileRecord): LineProblem[] {
    const q = this.#metric.of(record);
    if (q && q.value !== null) return [];
    return [{ file, line, reason: `${this.#metric.name} is not known${q ? `: ${q.reason}` : ''}` }];
  }

  #interleaved(first: FileRecord, news: readonly FileRecord[]): Draft[] {
    const base = [...new Set(news.map((one) => referenceOf(one, this.#baseIds)!))];
    const all = [...news, ...base];
    if (this.#refused(all.flatMap((one) => this.#unknown(one)))) return [];
    const draft = this.#settled(first, all, 'inconclusive', null);
    if (this.#metric.exact) return [this.#exact(draft, base, news)];
    const runs = { base: base.length, new: news.length };
    return [this.#ratio({ ...draft, runs, method: 'interleaved' }, this.#toReference(news, this.#baseIds), [])];
  }

  #normalised(draft: Draft, base: readonly FileRecord[], news: readonly FileRecord[]): Draft {
    const references = {
      news: news.map((one) => referenceOf(one, this.#newIds)),
      base: base.map((one) => referenceOf(one, this.#baseIds)),
    };
    const found = [...references.news, ...references.base];
    if (found.includes(undefined)) return { ...draft, reason: apart };
    const clocks = new Set([...news, ...base].map(({ record }) => record.comparison!.clock));
    if (new Set(found.map((one) => identity(one!.record))).size > 1)
      return { ...draft, reason: 'compared with different references in BASE and NEW' };
    if (this.#metric.name === 'time' && clocks.size > 1)
      return { ...draft, reason: `timed by different clocks, ${[...clocks].join(' and ')}` };
    this.#watch(references.base as FileRecord[], references.news as FileRecord[]);
    const runs = { base: base.length, new: news.length };
    const [over, under] = [this.#toReference(news, this.#newIds), this.#toReference(base, this.#baseIds)];
    return this.#ratio({ ...draft, runs, method: 'normalised' }, over, under);
  }

  #toReference(records: readonly FileRecord[], ids: ReadonlyMap<string, FileRecord>): (LogRatio | string)[] {
    return records.map((one) => {
      const reference = referenceOf(one, ids)!;
      for (const each of [one, reference]) {
        const why = doubt(this.#metric, each.record);
        if (why !== null) return `${place(each)}: ${why}`;
      }
      return toReference(this.#metric, one.record, reference.record);
    });
  }

  /** A reference that became dearer hides as much in every case; numbers of two runs may at least raise the question. */
  #watch(base: readonly FileRecord[], news: readonly FileRecord[]): void {
    const logs = (records: readonly FileRecord[]) =>
      records.reduce((sum, { record }) => sum + Math.log(this.#metric.of(record)?.value ?? Number.NaN), 0) /
      records.length;
    const moved = Math.exp(logs(news) - logs(base));
    if (!(Math.abs(Math.log(moved)) > 0.1)) return;
    const note = `the reference "${news[0]!.record.case.name}" had ${moved.toPrecision(3)} times its ${this.#metric.name} of BASE in NEW: the machine was slower or faster, or the reference changed, which hides as much in every case`;
    if (!this.notes.includes(note)) this.notes.push(note);
  }

  #ratio(draft: Draft, over: readonly (LogRatio | string)[], under: readonly (LogRatio | string)[]): Draft {
    const reason = [...over, ...under].find((one) => typeof one === 'string');
    if (reason !== undefined) return { ...draft, reason };
    const estimate = pooled(over as LogRatio[], under as LogRatio[]);
    return { ...draft, estimate, ratio: Math.exp(estimate.log), ci95: interval95(estimate) };
  }

  #exact(draft: Draft, base: readonly FileRecord[], news: readonly FileRecord[]): Draft {
    const most = (records: readonly FileRecord[]) =>
      Math.max(...records.map(({ record }) => this.#metric.of(record)!.value!));
    const [before, after] = [most(base), most(news)];
    const runs = { base: base.length, new: news.length };
    const counted = { ...draft, runs, method: 'exact' as const, ratio: before > 0 ? after / before : null };
    if (after <= before * this.#maxRatio) return { ...counted, settled: 'pass' };
    return { ...counted, settled: 'fail', reason: `${before} bytes became ${after}` };
  }
}

/** The record that this one was interleaved with and divided by, if it is among those. */
const referenceOf = ({ record }: FileRecord, ids: ReadonlyMap<string, FileRecord>): FileRecord | undefined =>
  record.comparison === null ? undefined : ids.get(record.comparison.baselineId);
