// compare(): several plans or functions interleaved in one run, and the only source of ratios. Blocks of A B B A in random
// order, so that drift falls on all alike; the ratio is taken within each block and summarised over blocks.
import { randomUUID } from 'node:crypto';
import { KernwattError } from '../errors.js';
import { Plan } from '../plan.js';
import { randomSource } from '../random.js';
import { assemble, type Observation } from './assemble.js';
import { readSteal, stealShare } from './environment.js';
import { Interleaved, mirroredBlocks } from './interleave.js';
import { calibrate, stolenAbove } from './loop.js';
import { cpuOf, invalid, peaksOf, sampleSeconds } from './measure.js';
import { type CompareOptions, type Settings, settings } from './options.js';
import { missing } from './quantity.js';
import { type Clock, type ClockRecord, clocks, type Comparison, type MeasureRecord } from './record.js';
import { type Interval, type Stat, summarize } from './stats.js';
import { decide, type StopReason, spread } from './stop.js';
import { type Measurable, type Subject, sampleOrder, subject } from './subject.js';

export interface ComparisonResult {
  runId: string;
  clock: Clock;
  baseline: string;
  /** Time of each other one over the baseline's: below 1 is faster. Null when either is invalid. */
  ratios: Record<string, { value: number; ci95: Interval | null } | null>;
  records: Record<string, MeasureRecord>;
}

const method =
  'median over blocks of the ratio of times within a block (each case twice, in mirrored random order); order-statistic interval';
const roundSeconds = 0.1;

/**
 * Measures several plans or functions in one interleaved run and gives the ratios of their times with 95 % intervals.
 * Numbers of separate runs must not be divided by each other; these may.
 *
 * @param cases at least two, by name. Plans of one stream are timed by the device's clock, anything else by the host's.
 * @throws {KernwattError} as measure().
 */
export async function compare(
  cases: Readonly<Record<string, Measurable>>,
  options: CompareOptions = {},
): Promise<ComparisonResult> {
  const set = settings('compare', options);
  const names = Object.keys(cases);
  if (names.length < 2)
    throw new KernwattError('ARGUMENT', `compare: number of cases is ${names.length}, expected at least 2`);
  const baseline = options.baseline ?? names[0]!;
  if (!(baseline in cases))
    throw new KernwattError('ARGUMENT', `compare: baseline is ${baseline}, expected one of ${names.join(', ')}`);
  set.signal?.throwIfAborted();
  const clock = chooseClock(Object.values(cases), options.clock);
  const subjects: Subject[] = [];
  try {
    for (const name of names) subjects.push(await subject(cases[name]!, { ...set, name }));
    return await run(subjects, names.indexOf(baseline), clock, set);
  } finally {
    for (const one of subjects) await one[Symbol.asyncDispose]();
  }
}

function chooseClock(cases: readonly Measurable[], asked: Clock | undefined): Clock {
  const [first] = cases;
  const together = cases.every((one) => one instanceof Plan && first instanceof Plan && one.stream === first.stream);
  if (asked === undefined) return together ? 'device' : 'host';
  if (!clocks.includes(asked))
    throw new KernwattError('ARGUMENT', `compare: clock is ${asked}, expected ${clocks.join(', ')}`);
  if (asked !== 'host' && !together)
    throw new KernwattError(
      'UNSUPPORTED',
      `compare: clock is ${asked}, expected host unless all cases are plans of one stream`,
    );
  return asked;
}

async function run(subjects: Subject[], baseline: number, clock: Clock, set: Settings): Promise<ComparisonResult> {
  const start = { runId: randomUUID(), createdAt: new Date() };
  const name = subjects.map((one) => one.name).join(' / ');
  set.onProgress?.({ name, phase: 'check', done: 0.05 });
  const before = [];
  for (const one of subjects) before.push(await one.before());
  const wrong = before.some(({ state }) => state === 'failed');
  const timed = wrong ? null : await interleave(subjects, baseline, clock, set, name);
  const correctness = [];
  for (const [i, one] of subjects.entries()) correctness.push(timed ? await one.after() : before[i]!);
  const ids: string[] = [];
  const records: Record<string, MeasureRecord> = {};
  const ratios: ComparisonResult['ratios'] = {};
  // The baseline comes first: the others refer to its id.
  for (const i of [baseline, ...subjects.keys()]) {
    const one = subjects[i]!;
    if (records[one.name]) continue;
    const observed: Observation = { ...invalid({ ...start, cpu: cpuOf(one) }, correctness[i]!) };
    const valid = correctness[i]!.state !== 'failed' && timed !== null;
    const rated = valid && i !== baseline && correctness[baseline]!.state !== 'failed';
    if (valid) {
      observed.times = { [clock]: timed.records[i]! };
      observed.stealShare = timed.steal;
      observed.memory = sharedWindow;
      observed.peaks = await peaksOf(one, set);
    }
    if (rated)
      observed.comparison = comparison(timed, i, baseline, clock, subjects[baseline]!.name, ids[baseline]!, set.seed);
    const record = assemble(one, observed);
    ids[i] = record.id;
    records[one.name] = record;
    if (i !== baseline)
      ratios[one.name] = record.comparison && { value: record.comparison.ratio, ci95: record.comparison.ci95 };
  }
  const ordered = Object.fromEntries(subjects.map((one) => [one.name, records[one.name]!]));
  return { runId: start.runId, clock, baseline: subjects[baseline]!.name, ratios, records: ordered };
}

const shared = missing('B', 'several cases share the window; measure() alone gives each its own');
const sharedWindow = { averageBytes: shared, peakBytes: shared };

interface Timed {
  seen: Interleaved;
  records: ClockRecord[];
  steal: number | null;
}

async function interleave(
  subjects: Subject[],
  baseline: number,
  clock: Clock,
  { rule, seed, signal, onProgress }: Settings,
  name: string,
): Promise<Timed> {
  const started = performance.now();
  const calls: number[] = [];
  let blockSeconds = 0;
  for (const one of subjects) {
    const calibrated = await calibrate(one.runner(clock), sampleSeconds[clock]);
    calls.push(calibrated.calls);
    blockSeconds += 2 * calibrated.calls * calibrated.perCall;
  }
  const next = randomSource(seed);
  const seen = new Interleaved(subjects.length);
  const others = [...subjects.keys()].filter((i) => i !== baseline);
  const spreads: number[][] = others.map(() => []);
  const begin = readSteal();
  let measuredSeconds = 0;
  let stolen = 0;
  let stealKnown = true;
  for (;;) {
    signal?.throwIfAborted();
    const aim = Math.max(roundSeconds, measuredSeconds / 8);
    const blocks = Math.min(1024, Math.max(1, Math.round(aim / blockSeconds)));
    const order = mirroredBlocks(subjects.length, blocks, next);
    const steal = readSteal();
    const seconds = await sampleOrder(subjects, clock, order, calls);
    const share = stealShare(steal, readSteal());
    seen.add(order, seconds);
    for (const [i, value] of seconds.entries()) measuredSeconds += value * calls[order[i]!]!;
    if (share === null) stealKnown = false;
    else if (share > stolenAbove) stolen += 2 * blocks;
    const elapsedSeconds = (performance.now() - started) / 1000;
    const reasons = others.map((i, at) => {
      const stat = summarize(seen.ratios(i, baseline));
      spreads[at]!.push(spread(stat));
      return decide({ stat, measuredSeconds, elapsedSeconds, spreads: spreads[at]! }, rule);
    });
    const fired = together(reasons);
    onProgress?.({
      name,
      phase: clock,
      done: 0.1 + 0.9 * (fired ? 1 : Math.min(0.99, elapsedSeconds / rule.maxSeconds)),
    });
    if (fired === null) continue;
    const stop = {
      rule: fired,
      converged: fired === 'precision',
      target: rule.target,
      measuredSeconds,
      elapsedSeconds,
    };
    const records = seen.samples.map((samples, i) => ({
      ...summarize(samples),
      callsPerSample: calls[i]!,
      stop,
      stolenSamples: stealKnown ? stolen : null,
    }));
    return { seen, records, steal: stealShare(begin, readSteal()) };
  }
}

/** All ratios must have stopped; the run is as good as its worst one. */
function together(reasons: readonly (StopReason | null)[]): StopReason | null {
  if (reasons.includes(null)) return null;
  return reasons.find((reason) => reason === 'time') ?? reasons.find((reason) => reason === 'noise') ?? 'precision';
}

function comparison(
  { seen, records }: Timed,
  one: number,
  baseline: number,
  clock: Clock,
  baselineName: string,
  baselineId: string,
  seed: number,
): Comparison {
  const stat: Stat = summarize(seen.ratios(one, baseline));
  return {
    baseline: baselineName,
    baselineId,
    clock,
    ratio: stat.median,
    ci95: stat.ci95Median,
    ratioOfMedians: records[one]!.median / records[baseline]!.median,
    blocks: seen.blocks,
    seed,
    method,
  };
}
