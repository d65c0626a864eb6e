// A made-up plan for assembling records without a device, and the published schema as a validator.
import { Ajv2020, type ErrorObject } from 'ajv/dist/2020.js';
import { estimateEnergy } from '../../src/energy/estimate.js';
import type { MeterScope } from '../../src/energy/recording.js';
import { assemble, type Observation } from '../../src/measure/assemble.js';
import { unchecked } from '../../src/measure/correctness.js';
import { type Metered, unmetered } from '../../src/measure/energy.js';
import type { Peaks } from '../../src/measure/peaks.js';
import { known, missing } from '../../src/measure/quantity.js';
import type { ClockRecord, Comparison, MeasureRecord } from '../../src/measure/record.js';
import { summarize } from '../../src/measure/stats.js';
import type { Subject } from '../../src/measure/subject.js';
import schema from '../../src/schema/measure.json' with { type: 'json' };

/** The published schema allows fields of later versions; what this version writes has none but those named. */
const closed = JSON.parse(JSON.stringify(schema), (_, value) =>
  value?.required && value.properties ? { additionalProperties: false, ...value } : value,
);

const validator = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true }).compile(closed);

/** What the schema has against a record; empty when it is valid. */
export function complaints(record: unknown): ErrorObject[] {
  validator(record);
  return validator.errors ?? [];
}

/** A clock whose samples are all `seconds`. */
export const clock = (seconds: number, converged = true): ClockRecord => ({
  ...summarize(new Array(20).fill(seconds)),
  callsPerSample: 1,
  stop: { rule: converged ? 'precision' : 'time', converged, target: 0.01, measuredSeconds: 1, elapsedSeconds: 2 },
  stolenSamples: 0,
});

export const peaks: Peaks = {
  flops: { kind: 'flops', name: 'fma_f32', value: 1e11, unit: 'FLOP/s', source: 'empirical', provenance: 'a test' },
  bandwidth: { kind: 'bandwidth', name: 'read', value: 1e10, unit: 'B/s', source: 'empirical', provenance: 'a test' },
  spec: [],
};

/** A product of 1e9 operations on 1e7 bytes. */
export const subject: Subject = {
  name: 'made up',
  device: null,
  clocks: ['device', 'stream', 'host'],
  case: {
    name: 'made up',
    op: 'gemm',
    shape: { m: 10, rowsW: 20, k: 30 },
    dtype: { x: 'f32', w: 'f32', y: 'f32' },
    args: { alpha: 1, activation: 'none', transX: false },
    inputs: { x: { distribution: 'normal', seed: 1 }, w: { distribution: 'data', seed: null } },
  },
  kernel: { device: 'cpu', backend: 'cpu', explain: { variant: 'avx2' }, workspaceBytes: 0 },
  work: { flops: 1e9, minBytes: 1e7, tokens: 10, params: 600 },
  cache: 'cold',
  coldBytes: 1e9,
  copies: 100,
  llcBytes: 1e8,
  extraBytes: 0,
  operandBytes: known(1e7, 'B', 'a test'),
  workspaceBytes: known(0, 'B', 'a test'),
  inPlace: false,
  dtype: 'f32',
  compression: 'w is stored as it came, uncompressed',
  zeroInputs: false,
  call: () => {},
  runner: () => async () => ({ seconds: Float64Array.of(1), stealShare: 0 }),
  load: async () => ({ begin: 0, end: 1, iterations: 1, busySeconds: 1 }),
  before: async () => unchecked('a test'),
  after: async () => unchecked('a test'),
  [Symbol.asyncDispose]: async () => {},
};

export const observed: Observation = {
  runId: 'run',
  createdAt: new Date(0),
  cpu: null,
  correctness: {
    ...unchecked('none'),
    state: 'passed',
    reason: null,
    rows: 2,
    seed: 1,
    elements: 40,
    worst: 0.5,
    hashBefore: 'ab',
    hashAfter: 'ab',
  },
  times: { device: clock(0.02), host: clock(0.021) },
  memory: { averageBytes: known(2e7, 'B', 'a test'), peakBytes: known(2e7, 'B', 'a test') },
  peaks,
  stealShare: 0,
  energy: unmetered('a test has no meter'),
  calibration: null,
  gpu: null,
  comparison: null,
};

export const record = (changes: Partial<Observation> = {}, of: Partial<Subject> = {}): MeasureRecord =>
  assemble({ ...subject, ...of }, { ...observed, ...changes });

/** What compare() adds to the record of a case that is not the baseline. */
export const comparison = (changes: Partial<Comparison> = {}): Comparison => ({
  baseline: 'a',
  baselineId: 'b',
  clock: 'device',
  ratio: 1,
  ci95: [0.9, 1.1],
  ratioOfMedians: 1,
  blocks: 9,
  seed: 1,
  method: 'a test',
  energyRatio: missing('1', 'a test has no meter'),
  energyRounds: 0,
  ...changes,
});

/** Length of a window of metered(), and the calls in it. */
const windowSeconds = 1;
const windowCalls = 1000;

/**
 * Windows that took these joules per call, on a counter that ticks 50 times a second and is read at each tick. `powerShare`: what the
 * power readings show of the true power.
 */
export function metered(
  perCallJ: readonly number[],
  {
    scope = 'gpu',
    powerShare = 1,
    name = 'gpu:0',
  }: { scope?: MeterScope['scope']; powerShare?: number; name?: string } = {},
): Metered {
  const period = 0.02;
  const counter = { seconds: [0], values: [0] };
  const power = { seconds: [] as number[], values: [] as number[], averagedSeconds: 0 };
  const windows = perCallJ.map((_, i) => ({
    begin: i * windowSeconds,
    end: (i + 1) * windowSeconds,
    iterations: windowCalls,
    busySeconds: windowSeconds,
  }));
  for (const joules of perCallJ)
    for (let tick = 0; tick < windowSeconds / period; tick++) {
      const watts = (joules * windowCalls) / windowSeconds;
      const seconds = counter.seconds.at(-1)! + period;
      for (const [at, value] of [
        [seconds - period / 1000, counter.values.at(-1)!],
        [seconds, counter.values.at(-1)! + watts * period],
      ] as const) {
        counter.seconds.push(at);
        counter.values.push(value);
      }
      power.seconds.push(seconds - period / 2);
      power.values.push(powerShare * watts);
    }
  const estimate = estimateEnergy({
    data: { counter, power },
    windows,
    scope: { scope, mig: false, otherProcesses: 0 },
  });
  const domains = [{ name, source: 'nvml', scope, ...estimate } as const];
  return { windows, domains, covers: ['a made-up board'], unread: [], gpu: null };
}
