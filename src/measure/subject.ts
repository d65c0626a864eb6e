// What is measured: a plan (all three clocks, cold or hot, checked) or a function (host clock alone). Both look alike from here
// on: they describe themselves, give a runner for each clock, and are checked before and after.
import type { Device } from '../device.js';
import { isInteger } from '../dtype.js';
import type { LoadWindow } from '../energy/recording.js';
import { KernwattError } from '../errors.js';
import type { Compression, KeptPerformance } from '../metrics/mcr.js';
import { native, type SampleResult } from '../native.js';
import type { Operator } from '../op.js';
import * as ops from '../ops/index.js';
import { Plan } from '../plan.js';
import type { Tensor } from '../tensor.js';
import { compressionOf, toItself } from './compression.js';
import { Correctness, overwrittenInputs, unchecked } from './correctness.js';
import { readSteal, stealShare } from './environment.js';
import type { Round, Runner } from './loop.js';
import { known, missing, type Quantity } from './quantity.js';
import type { CacheState, CaseRecord, Clock, CorrectnessRecord, KernelRecord, WorkRecord } from './record.js';
import { Rotation, rotationSize, spanBytes } from './rotation.js';

/** Anything that can be measured: a plan, or a function whose result, if a promise, is awaited. */
export type Measurable = Plan | (() => unknown);

export interface SubjectOptions {
  name?: string | undefined;
  cache: 'cold' | 'hot';
  /** Most memory that copies of operands may take, bytes. */
  coldLimitBytes: number;
  /** Null: do not check. */
  check: { seconds: number; seed: number } | null;
  /** What MCR of a weight of fewer than eight bits is multiplied by. */
  fidelity?: KeptPerformance | undefined;
  /** Whose allocator is read for a function. */
  device?: Device | undefined;
}

export interface Subject extends AsyncDisposable {
  readonly name: string;
  readonly device: Device | null;
  readonly clocks: readonly Clock[];
  readonly case: CaseRecord;
  readonly kernel: KernelRecord | null;
  readonly work: WorkRecord;
  readonly cache: CacheState;
  readonly coldBytes: number | null;
  readonly copies: number;
  readonly llcBytes: number | null;
  readonly extraBytes: number;
  readonly operandBytes: Quantity;
  readonly workspaceBytes: Quantity;
  readonly inPlace: boolean;
  /** Data type that decides which peak applies; null for a function. */
  readonly dtype: Plan['args'][string]['dtype'] | null;
  /** For MCR; or why there is none. */
  readonly compression: Compression | string;
  /** One call from JavaScript. */
  readonly call: () => unknown;
  /** Whether everything it reads is 0, so that its energy would say nothing about real data. */
  readonly zeroInputs: boolean;
  runner(clock: Clock): Runner;
  /** Calls without a pause for a window of `seconds`, after calls for `settleSeconds` that do not count. */
  load(options: LoadOptions): Promise<LoadWindow>;
  before(): Promise<CorrectnessRecord>;
  after(): Promise<CorrectnessRecord>;
}

export interface LoadOptions {
  settleSeconds: number;
  seconds: number;
  /** About how long a call takes. */
  secondsPerCall: number;
}

/** Seconds of CLOCK_MONOTONIC, on which native loops and meters stamp, too. */
export const monotonic = (): number => Number(process.hrtime.bigint()) / 1e9;

export async function subject(what: Measurable, options: SubjectOptions): Promise<Subject> {
  if (what instanceof Plan) return PlanSubject.create(what, options);
  if (typeof what === 'function') return new FunctionSubject(what, options);
  throw new KernwattError('ARGUMENT', `measure: subject is ${String(what)}, expected a plan or a function`);
}

/** Host time of calls from JavaScript to completion, seconds per call; what is not a promise is complete when it returns. */
async function timeCalls(call: () => unknown, calls: number): Promise<number> {
  const from = performance.now();
  for (let i = 0; i < calls; i++) {
    const result = call();
    if (typeof (result as Promise<unknown> | null | undefined)?.then === 'function') await result;
  }
  return (performance.now() - from) / 1000 / calls;
}

/** Lets timers and signals (Ctrl-C) be seen now and then, which a function that never waits would prevent. */
const breathe = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
const breathEvery = 16;

function hostRunner(call: () => unknown): Runner {
  return async (samples, calls): Promise<Round> => {
    const seconds = new Float64Array(samples);
    const before = readSteal();
    for (let i = 0; i < samples; i++) {
      seconds[i] = await timeCalls(call, calls);
      if (i % breathEvery === 0) await breathe();
    }
    return { seconds, stealShare: stealShare(before, readSteal()) };
  };
}

/** A native sample of a load lasts about this long, seconds: what the device waits for between two is then below 0.1 %. */
const loadSampleSeconds = 0.02;
/** Calls that a library captures as one graph; more would be launched one by one. */
const mostLoadCalls = 16384;

/** A window that came out shorter than this share of what was asked is run again, so many times in all. */
const leastShare = 0.8;
const loadAttempts = 4;

/** Calls of one sample of a load; whole rounds over the copies where it can hold them, so that all samples are one graph. */
export function loadCalls(secondsPerCall: number, copies: number): number {
  const calls = Math.min(mostLoadCalls, Math.max(1, Math.ceil(loadSampleSeconds / Math.max(secondsPerCall, 1e-9))));
  return calls > copies ? Math.ceil(calls / copies) * copies : calls;
}

/** Calls from JavaScript until the time has come. */
async function callUntil(call: () => unknown, calls: number, until: number): Promise<number> {
  let made = 0;
  while (monotonic() < until) {
    await timeCalls(call, calls);
    made += calls;
    if ((made / calls) % breathEvery === 0) await breathe();
  }
  return made;
}

async function hostLoad(
  call: () => unknown,
  { settleSeconds, seconds, secondsPerCall }: LoadOptions,
): Promise<LoadWindow> {
  const calls = Math.max(1, Math.ceil(1e-3 / Math.max(secondsPerCall, 1e-9)));
  await callUntil(call, calls, monotonic() + settleSeconds);
  const begin = monotonic();
  const iterations = await callUntil(call, calls, begin + seconds);
  return { begin, end: monotonic(), iterations, busySeconds: null };
}

/** Samples of several subjects in the given order, seconds per call; `device` and `stream` need plans of one stream. */
export async function sampleOrder(
  subjects: readonly Subject[],
  clock: Clock,
  order: Uint32Array,
  calls: readonly number[],
): Promise<Float64Array> {
  const plans = subjects.filter((one) => one instanceof PlanSubject);
  const stream = plans[0]?.plan.stream;
  if (clock === 'host' || stream === undefined || plans.length < subjects.length) {
    const seconds = new Float64Array(order.length);
    for (const [i, one] of order.entries()) {
      seconds[i] = await timeCalls(subjects[one]!.call, calls[one]!);
      if (i % breathEvery === 0) await breathe();
    }
    return seconds;
  }
  const times = calls.map((count, i) => count * order.reduce((sum, one) => sum + Number(one === i), 0));
  const cases = plans.map(({ rotation }, i) => rotation.take(times[i]!).map((plan) => plan.handle));
  const result = await native().sample(stream.handle, { cases, order, calls: Uint32Array.from(calls), clock });
  return result.seconds;
}

/** The operator a plan was bound from. */
export function operatorOf(plan: Plan): Operator {
  const op = Object.values(ops as unknown as Record<string, Operator>).find(({ spec }) => spec === plan.op);
  if (!op) throw new KernwattError('INTERNAL', `measure: operator ${plan.op.name} is not in the list of operators`);
  return op;
}

class PlanSubject implements Subject {
  readonly clocks = ['device', 'stream', 'host'] as const;
  readonly device: Device;
  readonly work: WorkRecord;
  readonly operandBytes: Quantity;
  readonly workspaceBytes: Quantity;
  readonly #correctness: Correctness | null;

  private constructor(
    readonly plan: Plan,
    readonly rotation: Rotation,
    readonly options: SubjectOptions,
  ) {
    this.device = plan.device;
    const { flops, bytes, tokens, params } = plan.work;
    this.work = { flops, minBytes: bytes, tokens, params };
    this.#correctness = options.check ? new Correctness(plan, operatorOf(plan), options.check) : null;
    const operands = Object.values(plan.args).reduce((sum, tensor) => sum + tensor.distinctBytes, 0);
    this.operandBytes = known(operands, 'B', 'elements of every operand, repeated ones once');
    this.workspaceBytes = known(plan.workspaceBytes, 'B', 'scratch memory of the plan');
  }

  static async create(plan: Plan, options: SubjectOptions): Promise<PlanSubject> {
    const { device, work } = plan;
    if (plan.disposed) throw new KernwattError('DISPOSED', 'measure: plan is disposed, expected a live one');
    if (device.info.emulated)
      throw new KernwattError(
        'UNSUPPORTED',
        `measure: device is ${device.name}, expected one that is not emulated; emulation is never timed`,
      );
    const llc = device.info.lastLevelCacheBytes;
    const limit = Math.min(options.coldLimitBytes, device.memory().freeBytes / 4);
    const size =
      options.cache === 'cold'
        ? rotationSize(work.bytes, spanBytes(plan), llc, limit)
        : { copies: 1, bytes: work.bytes, spanBytes: 0, cold: false };
    return new PlanSubject(plan, await Rotation.create(plan, operatorOf(plan), size), options);
  }

  get name(): string {
    return this.options.name ?? this.plan.op.name;
  }

  get case(): CaseRecord {
    const { plan } = this;
    const args = Object.entries(plan.args);
    const inputs = args.flatMap(([name, { origin }]) =>
      origin && !(name in plan.outputs)
        ? [[name, { distribution: origin.distribution, seed: origin.seed ?? null }]]
        : [],
    );
    return {
      name: this.name,
      op: plan.op.name,
      shape: { ...plan.dims },
      dtype: Object.fromEntries(args.map(([name, tensor]) => [name, tensor.dtype])),
      args: { ...plan.params },
      inputs: Object.fromEntries(inputs),
    };
  }

  get kernel(): KernelRecord {
    const { device, backend, workspaceBytes, op, ...explain } = this.plan.explain();
    return { device, backend, explain, workspaceBytes };
  }

  get cache(): CacheState {
    if (this.options.cache === 'hot') return 'hot';
    return this.rotation.size.cold ? 'cold' : 'warm';
  }

  get coldBytes(): number | null {
    return this.options.cache === 'cold' ? this.copies * this.rotation.size.bytes : null;
  }

  get copies(): number {
    return this.rotation.plans.length;
  }

  get llcBytes(): number | null {
    return this.device.info.lastLevelCacheBytes;
  }

  get extraBytes(): number {
    return this.rotation.extraBytes;
  }

  get inPlace(): boolean {
    return overwrittenInputs(this.plan).length > 0;
  }

  get zeroInputs(): boolean {
    const inputs = Object.entries(this.plan.args).filter(
      ([name, { dtype }]) => !(name in this.plan.outputs) && !isInteger(dtype),
    );
    const isZero = ({ origin }: Tensor): boolean =>
      origin?.distribution === 'zeros' || (origin?.distribution === 'constant' && origin.parameters?.value === 0);
    return inputs.length > 0 && inputs.every(([, tensor]) => isZero(tensor));
  }

  get dtype() {
    return this.plan.dtype;
  }

  get compression(): Compression | string {
    return compressionOf(this.plan, this.options.fidelity);
  }

  readonly call = () => this.rotation.next().run();

  runner(clock: Clock): Runner {
    if (clock === 'host') return hostRunner(this.call);
    return async (samples, calls) => {
      const { seconds, stealShare: share } = await this.#sample(clock, samples, calls);
      return { seconds, stealShare: share < 0 ? null : share };
    };
  }

  #sample(clock: 'device' | 'stream', samples: number, calls: number): Promise<SampleResult> {
    return native().sample(this.plan.stream.handle, {
      cases: [this.rotation.take(samples * calls).map((plan) => plan.handle)],
      order: new Uint32Array(samples),
      calls: Uint32Array.of(calls),
      clock,
    });
  }

  async load({ settleSeconds, seconds, secondsPerCall }: LoadOptions): Promise<LoadWindow> {
    for (let perCall = secondsPerCall, attempt = 1; ; attempt++) {
      const calls = loadCalls(perCall, this.copies);
      const samples = 1 + Math.ceil((settleSeconds + seconds) / (calls * perCall));
      const { start, end, seconds: each } = await this.#sample('device', samples, calls);
      const settled = start.findIndex((time) => time >= start[0]! + settleSeconds);
      // Calls that proved faster than thought, because something disturbed when they were timed, fill too little.
      if ((settled < 0 || end - start[settled]! < leastShare * seconds) && attempt < loadAttempts) {
        perCall = (end - start[0]!) / (samples * calls);
        continue;
      }
      const first = settled < 0 ? samples - 1 : settled;
      const counted = each.subarray(first);
      const busySeconds = counted.reduce((sum, value) => sum + value * calls, 0);
      return { begin: start[first]!, end, iterations: counted.length * calls, busySeconds };
    }
  }

  async before(): Promise<CorrectnessRecord> {
    return this.#correctness ? this.#correctness.before() : unchecked('checking was switched off');
  }

  async after(): Promise<CorrectnessRecord> {
    // Copies have the same inputs, so one of them must come to the same result.
    const copy = this.copies > 1 ? this.rotation.plans[this.copies - 1] : undefined;
    return this.#correctness ? this.#correctness.after(copy) : unchecked('checking was switched off');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.rotation.dispose();
    await this.#correctness?.[Symbol.asyncDispose]();
  }
}

const noOperands = 'a function does not say what it reads and writes';

class FunctionSubject implements Subject {
  readonly clocks = ['host'] as const;
  readonly device: Device | null;
  readonly name: string;
  readonly kernel = null;
  readonly work = { flops: null, minBytes: null, tokens: null, params: null };
  readonly cache = 'unknown';
  readonly coldBytes = null;
  readonly copies = 1;
  readonly llcBytes: number | null;
  readonly extraBytes = 0;
  readonly inPlace = false;
  readonly dtype = null;
  readonly compression = `a function does not say what weights it has; ${toItself}`;
  readonly zeroInputs = false;
  readonly operandBytes = missing('B', noOperands);
  readonly workspaceBytes = missing('B', noOperands);

  constructor(
    readonly call: () => unknown,
    options: SubjectOptions,
  ) {
    this.name = options.name ?? (call.name || 'function');
    this.device = options.device ?? null;
    this.llcBytes = this.device?.info.lastLevelCacheBytes ?? null;
  }

  get case(): CaseRecord {
    return { name: this.name, op: null, shape: {}, dtype: {}, args: {}, inputs: {} };
  }

  runner(): Runner {
    return hostRunner(this.call);
  }

  load(options: LoadOptions): Promise<LoadWindow> {
    return hostLoad(this.call, options);
  }

  async before(): Promise<CorrectnessRecord> {
    return unchecked('a function has no definition to compare with');
  }

  after(): Promise<CorrectnessRecord> {
    return this.before();
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
