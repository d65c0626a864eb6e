// compare(): several plans or functions interleaved in one run, and the only source of ratios. Blocks of A B B A in random
// order, so that drift falls on all alike; the ratio is taken within each block and summarised over blocks.
import { randomUUID } from 'node:crypto';
import { costsFor } from '../calibrate/costs.js';
import { KernwattError } from '../errors.js';
import { Plan } from '../plan.js';
import { randomSource } from '../random.js';
import { assemble, type Observation } from './assemble.js';
import { energyRatio } from './energy.js';
import { readSteal, stealShare } from './environment.js';
import { gpuFacts } from './gpu_facts.js';
import { Interleaved, mirroredBlocks } from './interleave.js';
import { calibrate, stolenAbove } from './loop.js';
import { cpuOf, invalid, peaksOf, sampleSeconds } from './measure.js';
import { meterEnergy } from './metering.js';
import { type CompareOptions, checkFidelity, type Settings, settings } from './options.js';
import { missing, type Quantity } from './quantity.js';
import {
  type Clock,
  type ClockRecord,
  type Comparison,
  type CorrectnessRecord,
  clocks,
  type MeasureRecord,
} from './record.js';
import { type Interval, summarize } from './stats.js';
import { decide, type StopReason, spread } from './stop.js';
import { type Measurable, type Subject, sampleOrder, subject } from './subject.js';

export interface CaseRatio {
  value: number;
  ci95: Interval | null;
  /** Joules per call over the baseline's: below 1 takes less. */
  energy: Quantity;
}

export interface ComparisonResult {
  runId: string;
  clock: Clock;
  baseline: string;
  /** Time of each other one over the baseline's: below 1 is faster. Null when either is invalid. */
  ratios: Record<string, CaseRatio | null>;
  records: Record<string, MeasureRecord>;
}

const method =
  'median over blocks of the ratio of times within a block (each case twice, in mirrored random order); order-statistic interval';
const roundSeconds = 0.1;
/** What timing takes of the progress where energy is metered, too. */
const timeShare = 0.5;

/** src/later.ts says what it does. */
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
  for (const [name, given] of Object.entries(options.fidelity ?? {})) {
    if (!(name in cases))
      throw new KernwattError('ARGUMENT', `compare: fidelity is of ${name}, expected one of ${names.join(', ')}`);
    checkFidelity('compare', given);
  }
  set.signal?.throwIfAborted();
  const clock = chooseClock(Object.values(cases), options.clock);
  const subjects: Subject[] = [];
  try {
    for (const name of names)
      subjects.push(await subject(cases[name]!, { ...set, name, fidelity: options.fidelity?.[name] }));
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
  const before: CorrectnessRecord[] = [];
  for (const one of subjects) before.push(await one.before());
  // A wrong case is not timed; the others are.
  const right = subjects.filter((_, i) => before[i]!.state !== 'failed');
  const reference = subjects[baseline]!;
  const timed = await interleave(right, right.indexOf(reference), clock, set, name);
  const gpu = await gpuFacts(subjects.find(({ device }) => device?.kind === 'cuda')?.device ?? null);
  const energies = await meterEnergy(right, set, gpu, (done) =>
    set.onProgress?.({ name, phase: 'energy', done: 0.1 + 0.9 * (timeShare + (1 - timeShare) * done) }),
  );
  const records = new Map<Subject, MeasureRecord>();
  const ratios: ComparisonResult['ratios'] = {};
  // The baseline comes first: the others refer to its id.
  for (const one of new Set([reference, ...subjects])) {
    const lane = right.indexOf(one);
    const correctness = lane < 0 ? before[subjects.indexOf(one)]! : await one.after();
    const common = { ...start, cpu: cpuOf(one) };
    if (correctness.state === 'failed') {
      records.set(one, assemble(one, invalid(common, correctness)));
      if (one !== reference) ratios[one.name] = null;
      continue;
    }
    const base = records.get(reference);
    const rated = base !== undefined && base.verdict !== 'invalid';
    const origin = right.indexOf(reference);
    const comparison = rated
      ? {
          ...compareTo(timed, lane, origin, base, clock, set.seed),
          ...energyRatio(energies[lane]!, energies[origin]!),
        }
      : null;
    const peaks = await peaksOf(one, set);
    const observed: Observation = {
      ...common,
      correctness,
      times: { [clock]: timed.records[lane]! },
      memory: sharedWindow,
      peaks,
      stealShare: timed.steal,
      energy: energies[lane]!,
      calibration: await costsFor(one.device, peaks),
      gpu: one.device?.kind === 'cuda' ? gpu : null,
      comparison,
    };
    records.set(one, assemble(one, observed));
    if (one !== reference) ratios[one.name] = comparison && ratioOf(comparison);
  }
  const ordered = Object.fromEntries(subjects.map((one) => [one.name, records.get(one)!]));
  return { runId: start.runId, clock, baseline: reference.name, ratios, records: ordered };
}

const ratioOf = ({ ratio, ci95, energyRatio: energy }: Comparison): CaseRatio => ({ value: ratio, ci95, energy });

const shared = missing('B', 'several cases share the window; measure() alone gives each its own');
const sharedWindow = { averageBytes: shared, peakBytes: shared };

interface Timed {
  seen: Interleaved;
  records: ClockRecord[];
  steal: number | null;
}

/** Times the subjects in turns until the ratios to the baseline (-1: none, then the times themselves) are known well enough. */
async function interleave(
  subjects: Subject[],
  baseline: number,
  clock: Clock,
  { rule, seed, signal, onProgress, energy }: Settings,
  name: string,
): Promise<Timed> {
  if (subjects.length === 0) return { seen: new Interleaved(0), records: [], steal: null };
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
  const judged = [...subjects.keys()].filter((i) => i !== baseline || subjects.length === 1);
  const spreads: number[][] = judged.map(() => []);
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
    const reasons = judged.map((i, at) => {
      const alone = baseline < 0 || i === baseline;
      const stat = summarize(alone ? seen.samples[i]! : seen.ratios(i, baseline));
      spreads[at]!.push(spread(stat));
      return decide({ stat, measuredSeconds, elapsedSeconds, spreads: spreads[at]! }, rule);
    });
    const fired = together(reasons);
    onProgress?.({
      name,
      phase: clock,
      done: 0.1 + 0.9 * (energy ? timeShare : 1) * (fired ? 1 : Math.min(0.99, elapsedSeconds / rule.maxSeconds)),
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

function compareTo(
  { seen, records }: Timed,
  lane: number,
  baseline: number,
  { id, case: { name } }: MeasureRecord,
  clock: Clock,
  seed: number,
): Omit<Comparison, 'energyRatio' | 'energyRounds'> {
  const { median, ci95Median } = summarize(seen.ratios(lane, baseline));
  return {
    baseline: name,
    baselineId: id,
    clock,
    ratio: median,
    ci95: ci95Median,
    ratioOfMedians: records[lane]!.median / records[baseline]!.median,
    blocks: seen.blocks,
    seed,
    method,
  };
}
