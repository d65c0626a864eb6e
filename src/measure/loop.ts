// Takes samples from a clock until the stop rule is satisfied. What a clock is (native events, a JavaScript loop, a simulation
// in a test) is the runner's business; when to stop is stop.ts.
import type { ClockRecord } from './record.js';
import { median, summarize } from './stats.js';
import { decide, type StopRule, spread } from './stop.js';

/** Samples of one round: seconds per call each, and whether a hypervisor interfered (null: cannot be seen). */
export interface Round {
  seconds: Float64Array;
  stealShare: number | null;
}

/** Times `samples` samples of `calls` back-to-back calls each. */
export type Runner = (samples: number, calls: number) => Promise<Round>;

export interface LoopOptions {
  rule: StopRule;
  /** A sample lasts at least this long, so that the clock's resolution does not show; seconds. */
  sampleSeconds: number;
  signal?: AbortSignal | undefined;
  /** After each round: share of the expected time that has passed, 0 to 1. */
  onRound?: ((done: number) => void) | undefined;
  now?: () => number;
}

/** Above this share of stolen processor time a round's samples are counted as disturbed. */
export const stolenAbove = 0.01;
const roundSeconds = 0.05;
const mostSamples = 4096;
/** Seconds; calls from here on are not repeated just to get to know them. */
const longCall = 0.25;

/** Calls per sample so that a sample lasts sampleSeconds, and seconds of one call; warms up on the way. */
export async function calibrate(run: Runner, sampleSeconds: number): Promise<{ calls: number; perCall: number }> {
  // The first call loads code and touches memory; the next ones say how long a call takes, unless it took so long that
  // loading cannot matter.
  const first = (await run(1, 1)).seconds[0]!;
  if (first > longCall) return { calls: 1, perCall: first };
  let perCall = median((await run(3, 1)).seconds);
  if (perCall >= sampleSeconds) return { calls: 1, perCall };
  // Single calls carry the cost of reading the clock, so the estimate is refined with a group of them.
  const group = Math.min(65536, Math.max(2, Math.ceil(sampleSeconds / Math.max(perCall, 1e-9) / 4)));
  perCall = median((await run(3, group)).seconds);
  return { calls: Math.max(1, Math.ceil(sampleSeconds / Math.max(perCall, 1e-9))), perCall };
}

/** Measures with one clock. Rejects with the signal's reason when aborted. */
export async function timeClock(run: Runner, options: LoopOptions): Promise<ClockRecord> {
  const { rule, sampleSeconds, signal, onRound, now = () => performance.now() / 1000 } = options;
  signal?.throwIfAborted();
  const started = now();
  const { calls, perCall } = await calibrate(run, sampleSeconds);
  const seconds: number[] = [];
  const spreads: number[] = [];
  let measuredSeconds = 0;
  let stolen = 0;
  let stealKnown = true;
  for (;;) {
    signal?.throwIfAborted();
    // Rounds grow with the run, so that looking at the samples stays cheap beside taking them.
    const aim = Math.max(roundSeconds, measuredSeconds / 8);
    const count = Math.min(mostSamples, Math.max(1, Math.round(aim / Math.max(perCall * calls, 1e-9))));
    const round = await run(count, calls);
    for (const value of round.seconds) {
      seconds.push(value);
      measuredSeconds += value * calls;
    }
    if (round.stealShare === null) stealKnown = false;
    else if (round.stealShare > stolenAbove) stolen += round.seconds.length;
    const stat = summarize(seconds);
    spreads.push(spread(stat));
    const elapsedSeconds = now() - started;
    const reason = decide({ stat, measuredSeconds, elapsedSeconds, spreads }, rule);
    onRound?.(
      reason ? 1 : Math.max(elapsedSeconds / rule.maxSeconds, Math.min(0.99, measuredSeconds / rule.minSeconds / 2)),
    );
    if (reason === null) continue;
    return {
      ...stat,
      callsPerSample: calls,
      stop: { rule: reason, converged: reason === 'precision', target: rule.target, measuredSeconds, elapsedSeconds },
      stolenSamples: stealKnown ? stolen : null,
    };
  }
}
