// tune(): every configuration that an operator's backend names for a problem, measured against the one it takes by itself. Many are
// screened in groups; those that could be faster meet the backend's own again in a run that decides. Having been picked for being
// fast in the first run says nothing in the second, so its interval is honest.

import type { DType } from '../dtype.js';
import { KernwattError } from '../errors.js';
import { type ComparisonResult, compare } from '../measure/compare.js';
import type { CommonOptions } from '../measure/options.js';
import type { Operator } from '../op.js';
import type { Plan } from '../plan.js';
import type { Stream } from '../stream.js';
import { openTuned, type Tuned } from './store.js';

export interface TuneOptions {
  /** As for the operator itself. */
  stream?: Stream | undefined;
  dtype?: DType | undefined;
  /** Shorter and with wider intervals, so that less is found. */
  quick?: boolean | undefined;
  /** Folder of the cache; null: the decision is kept nowhere. Default: `kernwatt` in the user's cache folder. */
  folder?: string | null | undefined;
  /** Most memory for the copies that keep operands cold, of all configurations measured together. Default 2 GiB, and half of what is free. */
  coldLimitBytes?: number | undefined;
  /** Chooses sampled rows and order. Default 1. */
  seed?: number | undefined;
  /** Stops between rounds of samples; the promise rejects with the signal's reason. */
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: TuneProgress) => void) | undefined;
}

export interface TuneProgress {
  /** `screen`: groups of many. `decide`: those that could be faster, once more. */
  phase: 'screen' | 'decide';
  done: number;
}

/** One configuration as it was measured. */
export interface Candidate {
  configuration: string;
  /** Seconds per call, the median. Null where it was not timed. */
  seconds: number | null;
  /** Its time over that of the backend's own, with the 95 % interval: below 1 is faster. Null for that one itself and where not timed. */
  ratio: number | null;
  ci95: readonly [number, number] | null;
  phase: TuneProgress['phase'] | null;
  /** Why it was not timed: a wrong result, or what it threw. */
  failed: string | null;
}

export interface Tuning {
  op: string;
  problem: string;
  /** What is taken for this problem from now on, where tuned configurations are used; `chosen` unless something beat it. */
  configuration: string;
  /** What the backend takes by itself. */
  chosen: string;
  /** How many times as fast as `chosen`, with the 95 % interval; null where that stays. */
  speedup: { value: number; ci95: readonly [number, number] } | null;
  reason: string;
  /** The backend's own first, then in the order in which it names them. */
  candidates: Candidate[];
  createdAt: string;
  /** Where it is kept; null where it is not, `notes` say why. */
  file: string | null;
  notes: string[];
}

/** So many are timed together, and so many meet the backend's own again. */
const groupSize = 8;
const finalists = 3;
const bytesForAll = 2 ** 31;

const optionNames = ['stream', 'dtype', 'quick', 'folder', 'coldLimitBytes', 'seed', 'signal', 'onProgress'];

/** src/op.ts says what it does. */
export async function tune(
  op: Operator,
  args: Readonly<Record<string, unknown>>,
  options: TuneOptions,
): Promise<Tuning> {
  const where = `${op.spec.name}.tune`;
  for (const name of Object.keys(options))
    if (!optionNames.includes(name))
      throw new KernwattError('ARGUMENT', `${where}: ${name} is not an option, expected ${optionNames.join(', ')}`);
  const { folder } = options;
  if (folder !== undefined && folder !== null && (typeof folder !== 'string' || folder === ''))
    throw new KernwattError('ARGUMENT', `${where}: folder is ${String(folder)}, expected a folder or null`);
  options.signal?.throwIfAborted();
  const { stream, dtype } = options;
  using own = op.bind(args, { stream, dtype });
  try {
    if (own.device.info.emulated)
      throw new KernwattError(
        'UNSUPPORTED',
        `${where}: device is ${own.device.name}, expected one that is not emulated: emulated kernels are never fast or slow`,
      );
    return await tunePlan(op, own, options);
  } finally {
    await own.stream.mark();
    for (const [name, tensor] of Object.entries(own.outputs)) if (args[name] === undefined) tensor.dispose();
  }
}

async function tunePlan(op: Operator, own: Plan, options: TuneOptions): Promise<Tuning> {
  const names = own.configurations();
  const [chosen = 'the only one', ...others] = names;
  const result: Tuning = {
    op: op.spec.name,
    problem: own.problem,
    configuration: chosen,
    chosen,
    speedup: null,
    reason: `there is no other configuration for this problem on ${own.device.name}, so nothing was measured`,
    candidates: [],
    createdAt: new Date().toISOString(),
    file: null,
    notes: [],
  };
  if (others.length === 0) return result;
  const race = new Race(op, own, chosen, options);
  const short = others.length > finalists ? await race.screen(others) : others;
  await race.decide(short);
  result.candidates = names.map((name) => race.seen.get(name)!);
  const best = short
    .map((name) => race.seen.get(name)!)
    .filter(({ phase, ci95 }) => phase === 'decide' && ci95 !== null && ci95[1] < 1)
    .sort((a, b) => a.ratio! - b.ratio!)[0];
  if (best) {
    const [low, high] = best.ci95!;
    result.configuration = best.configuration;
    result.speedup = { value: 1 / best.ratio!, ci95: [1 / high, 1 / low] };
  }
  result.reason = best
    ? `${best.configuration} takes less time than ${chosen} with confidence`
    : `of ${others.length} others none takes less time than ${chosen} with confidence`;
  const store = await storeFor(own, options.folder);
  const { file, note } = await store.keep({
    createdAt: result.createdAt,
    op: result.op,
    problem: result.problem,
    configuration: result.configuration,
    chosen,
    speedup: result.speedup,
    measured: result.candidates.filter(({ seconds }) => seconds !== null).length,
    cache: race.cache,
  });
  result.file = file;
  if (note !== null) result.notes.push(note);
  return result;
}

/** The one that the device uses, unless a folder was named. */
const storeFor = async ({ device }: Plan, folder: string | null | undefined): Promise<Tuned> =>
  folder === undefined && device.tuned ? device.tuned : openTuned(device, folder);

/** Configurations of one problem against the backend's own. */
class Race {
  readonly seen = new Map<string, Candidate>();
  /** How cold the operands were. */
  cache = 'unknown';

  constructor(
    readonly op: Operator,
    readonly own: Plan,
    readonly chosen: string,
    readonly options: TuneOptions,
  ) {}

  /** @returns those that could be faster, the most promising first. */
  async screen(names: readonly string[]): Promise<string[]> {
    for (let at = 0; at < names.length; at += groupSize) {
      const group = names.slice(at, at + groupSize);
      await this.#time(group, 'screen', { quick: true, maxSeconds: this.options.quick ? 1 : 2 }, (done) =>
        this.options.onProgress?.({ phase: 'screen', done: (at + done * group.length) / names.length }),
      );
    }
    return names
      .map((name) => this.seen.get(name)!)
      .filter(({ ratio, ci95 }) => ratio !== null && (ci95 === null || ci95[0] < 1))
      .sort((a, b) => a.ratio! - b.ratio!)
      .slice(0, finalists)
      .map(({ configuration }) => configuration);
  }

  async decide(names: readonly string[]): Promise<void> {
    if (names.length === 0) return;
    const { quick = false, onProgress } = this.options;
    await this.#time(names, 'decide', { quick }, (done) => onProgress?.({ phase: 'decide', done }));
  }

  async #time(
    names: readonly string[],
    phase: TuneProgress['phase'],
    how: Pick<CommonOptions, 'quick' | 'maxSeconds'>,
    report: (done: number) => void,
  ): Promise<void> {
    const { own, options, chosen } = this;
    const plans: Record<string, Plan> = {};
    try {
      for (const name of [chosen, ...names]) {
        try {
          // Outputs of the plan that is there: they are compared with the definition, not kept.
          plans[name] = this.op.bind(
            { ...own.args, ...own.params },
            { stream: own.stream, backend: own.backend, configuration: name },
          );
        } catch (error) {
          if (!(error instanceof KernwattError) || name === chosen) throw error;
          this.#note({ configuration: name, failed: error.message });
        }
      }
      if (Object.keys(plans).length < 2) return;
      const free = own.device.memory().freeBytes;
      const forAll = Math.min(options.coldLimitBytes ?? bytesForAll, free / 2);
      const result = await compare(plans, {
        ...how,
        baseline: chosen,
        energy: false,
        coldLimitBytes: forAll / Object.keys(plans).length,
        seed: options.seed ?? 1,
        ...(options.signal ? { signal: options.signal } : {}),
        onProgress: ({ done }) => report(done),
      });
      this.#take(result, phase);
    } finally {
      for (const plan of Object.values(plans)) plan.dispose();
    }
  }

  #take({ records, ratios, clock }: ComparisonResult, phase: TuneProgress['phase']): void {
    for (const [configuration, { time, correctness }] of Object.entries(records)) {
      if (configuration === this.chosen && time) this.cache = time.cache;
      const timed = ratios[configuration] ?? null;
      this.#note({
        configuration,
        seconds: time?.[clock]?.median ?? null,
        ratio: timed?.value ?? null,
        ci95: timed?.ci95 ?? null,
        phase,
        failed: correctness.state === 'failed' ? correctness.reason : null,
      });
    }
  }

  #note(seen: Partial<Candidate> & Pick<Candidate, 'configuration'>): void {
    this.seen.set(seen.configuration, { seconds: null, ratio: null, ci95: null, phase: null, failed: null, ...seen });
  }
}
