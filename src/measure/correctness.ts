// Whether a plan computes what its operator's definition says: sampled rows of each output against the reference in double
// precision before the measurement, and a hash of all outputs before and after, which must be the same.
import type { Device } from '../device.js';
import { isInteger } from '../dtype.js';
import { type CheckResult, native } from '../native.js';
import type { Operator } from '../op.js';
import { openDevice } from '../open.js';
import type { Plan } from '../plan.js';
import { randomSource } from '../random.js';
import { nativeArgs } from '../solve.js';
import type { Tensor } from '../tensor.js';
import type { CorrectnessRecord } from './record.js';

const mostRows = 256;
/** Tile heights of the kernels; rows on both sides of their multiples are where partial tiles go wrong. */
const tiles = [8, 16, 32, 64, 128, 256];

/** Rows to compare, most telling first: both ends, both sides of tile edges, then seeded random ones; no repeats. */
export function sampleRows(rows: number, most: number, seed: number): number[] {
  const chosen = new Set<number>();
  const add = (row: number) => {
    if (row >= 0 && row < rows && chosen.size < most) chosen.add(row);
  };
  add(0);
  add(rows - 1);
  for (const tile of tiles) {
    add(tile - 1);
    add(tile);
    add(Math.floor((rows - 1) / tile) * tile);
  }
  const next = randomSource(seed);
  const wanted = Math.min(most, rows);
  // Almost all rows wanted: drawing without luck would take forever, so the rest is simply counted up.
  for (let tries = 0; chosen.size < wanted && tries < 4 * wanted; tries++) add(Math.floor(next() * rows));
  for (let row = 0; chosen.size < wanted; row++) add(row);
  return [...chosen];
}

/** Rows of an output: its size over all dimensions but the last. */
const rowsOf = (tensor: Tensor): number => tensor.shape.slice(0, -1).reduce((a, b) => a * b, 1);

export interface CheckOptions {
  /** Longest time for comparing rows, seconds. */
  seconds: number;
  seed: number;
}

export const unchecked = (reason: string): CorrectnessRecord => ({
  state: 'unchecked',
  reason,
  rows: 0,
  seed: null,
  elements: 0,
  failed: 0,
  worst: null,
  maxAbs: null,
  maxRel: null,
  cosine: null,
  hashBefore: null,
  hashAfter: null,
});

const unwritten = { distribution: 'constant', parameters: { value: Number.NaN } } as const;

/** Inputs in memory that an output writes to. */
export function overwrittenInputs(plan: Plan): [name: string, tensor: Tensor][] {
  const written = new Set(Object.values(plan.outputs).map((tensor) => tensor.storage));
  return Object.entries(plan.args).filter(([name, tensor]) => !(name in plan.outputs) && written.has(tensor.storage));
}

/** Checks one plan before and after it is measured. */
export class Correctness implements AsyncDisposable {
  readonly #plan: Plan;
  readonly #op: Operator;
  readonly #options: CheckOptions;
  /** Inputs that share memory with an output, tensors updated in place, and their contents before the first call. */
  readonly #overwritten: { name: string; tensor: Tensor; copy: Tensor }[] = [];
  #record: CorrectnessRecord | undefined;
  /** For a GPU: a CPU device and the operands there. */
  #moved: Moved | undefined;

  constructor(plan: Plan, op: Operator, options: CheckOptions) {
    this.#plan = plan;
    this.#op = op;
    this.#options = options;
    const updated = Object.entries(plan.outputs).filter(([name]) => isUpdated(plan, name));
    for (const [name, tensor] of [...overwrittenInputs(plan), ...updated]) {
      const copy = plan.device.empty(tensor.shape, tensor.dtype);
      copy.copyFrom(tensor, { stream: plan.stream });
      this.#overwritten.push({ name, tensor, copy });
    }
  }

  /** Runs the plan on fresh outputs and compares. */
  async before(): Promise<CorrectnessRecord> {
    const hashBefore = await this.#runAndHash(this.#plan);
    const results = await this.#compare();
    const { rows, checks } = results;
    const failed = checks.find((check) => check.failed > 0);
    const largest = (pick: (check: CheckResult) => number) => Math.max(...checks.map(pick));
    const finite = (value: number) => (Number.isFinite(value) ? value : null);
    this.#record = {
      state: failed ? 'failed' : 'passed',
      reason: failed ? describeFailure(failed) : null,
      rows,
      seed: this.#options.seed,
      elements: checks.reduce((sum, check) => sum + check.elements, 0),
      failed: checks.reduce((sum, check) => sum + check.failed, 0),
      worst: finite(largest((check) => check.worst)),
      maxAbs: finite(largest((check) => check.maxAbs)),
      maxRel: finite(largest((check) => check.maxRel)),
      cosine: finite(Math.min(...checks.map((check) => check.cosine))),
      hashBefore,
      hashAfter: null,
    };
    return this.#record;
  }

  /** Runs the plan, and a copy of it if given, again on the same inputs; every bit must be as before. */
  async after(copy?: Plan): Promise<CorrectnessRecord> {
    const record = this.#record!;
    const differ = (what: string, hashAfter: string): CorrectnessRecord => ({
      ...record,
      state: 'failed',
      reason: `${what} differ from those of the same inputs before the measurement`,
      hashAfter,
    });
    const hashAfter = await this.#runAndHash(this.#plan);
    if (hashAfter !== record.hashBefore) return differ('the outputs', hashAfter);
    if (copy && this.#overwritten.length === 0) {
      const hash = await this.#runAndHash(copy);
      if (hash !== record.hashBefore) return differ('the outputs on copies of the operands', hash);
    }
    return { ...record, hashAfter };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { copy } of this.#overwritten) copy.dispose();
    await this.#moved?.cpu.close();
  }

  /** Fresh outputs first: NaN, so that an element nobody writes shows, or the inputs that they overwrite as they were. */
  async #runAndHash(plan: Plan): Promise<string> {
    const { stream } = plan;
    for (const [name, output] of Object.entries(plan.outputs)) {
      if (isInteger(output.dtype) || output.size === 0 || isUpdated(plan, name)) continue;
      plan.device.fill(output, unwritten, stream);
    }
    for (const { tensor, copy } of this.#overwritten) tensor.copyFrom(copy, { stream });
    await plan.run();
    const hashes: string[] = [];
    for (const output of Object.values(plan.outputs)) hashes.push(await output.hash({ stream }));
    return hashes.join('');
  }

  async #compare(): Promise<{ rows: number; checks: CheckResult[] }> {
    const { seconds, seed } = this.#options;
    // What belongs to these rows is compared in the other outputs.
    const total = rowsOf(Object.values(this.#plan.outputs)[0]!);
    if (total === 0) return { rows: 0, checks: await this.#check([]) };
    const candidates = sampleRows(total, mostRows, seed);
    const checks: CheckResult[] = [];
    const started = performance.now();
    let done = 0;
    let take = 2;
    // Growing portions: the first tells what a row costs, and none may be expected to overrun the time.
    while (done < candidates.length && take > 0) {
      checks.push(...(await this.#check(candidates.slice(done, done + take))));
      done = Math.min(candidates.length, done + take);
      if (checks.some((check) => check.failed > 0)) break;
      const elapsed = (performance.now() - started) / 1000;
      take = Math.min(Math.floor(((seconds - elapsed) * done) / Math.max(elapsed, 1e-6)), 4 * done);
    }
    return { rows: done, checks };
  }

  async #check(rows: readonly number[]): Promise<CheckResult[]> {
    const { device, op, params, stream } = this.#plan;
    const originals = Object.fromEntries(this.#overwritten.map(({ name, copy }) => [name, copy]));
    let before: Record<string, Tensor> = { ...this.#plan.args, ...originals };
    let results: Record<string, Tensor> = this.#plan.outputs;
    let on = stream;
    if (device.kind !== 'cpu') {
      this.#moved ??= await moveToCpu(before, results);
      ({ before, results } = this.#moved);
      on = this.#moved.cpu.stream;
    }
    const raw = (tensors: Record<string, Tensor>) => nativeArgs(this.#op.compiled, tensors, params);
    const after = raw({ ...before, ...results });
    return native().check(op.name, on.handle, after, Float64Array.from(rows), raw(before));
  }
}

const isUpdated = (plan: Plan, name: string): boolean => plan.op.tensors[name]!.role === 'inout';

interface Moved {
  cpu: Device;
  before: Record<string, Tensor>;
  results: Record<string, Tensor>;
}

async function moveToCpu(before: Record<string, Tensor>, results: Record<string, Tensor>): Promise<Moved> {
  const cpu = await openDevice('cpu');
  const moved = new Map<Tensor, Tensor>();
  const move = async (tensors: Record<string, Tensor>) => {
    const there: Record<string, Tensor> = {};
    for (const [name, tensor] of Object.entries(tensors)) {
      const copy = moved.get(tensor) ?? (await tensor.to(cpu));
      moved.set(tensor, copy);
      there[name] = copy;
    }
    return there;
  };
  try {
    return { cpu, before: await move(before), results: await move(results) };
  } catch (error) {
    await cpu.close();
    throw error;
  }
}

const describeFailure = ({ field, row, column, actual, expected, allowed }: CheckResult): string =>
  `${field}[row ${row}, column ${column}] is ${actual}, expected ${expected} within ${allowed}`;
