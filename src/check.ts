// Is a backend right? Every case of an operator, and random ones, against the definition in double precision
// (kernels/<op>/<op>_ref.cc). Needs no test framework: the command line, the tests and a user's script run the same code.
import type { Case } from './case.js';
import type { Device } from './device.js';
import { type DType, integerRange, isPaired } from './dtype.js';
import { KernwattError } from './errors.js';
import { fuzzCase } from './fuzz.js';
import { type CheckResult, native } from './native.js';
import type { Operator } from './op.js';
import { openDevice } from './open.js';
import { Guarded, planCase } from './operands.js';
import type { Backend } from './plan.js';
import { nativeArgs } from './solve.js';
import { isWritten } from './spec.js';
import type { Origin, Tensor } from './tensor.js';

export interface CheckOptions {
  device: Device;
  /** Default: the fast one of the device. */
  backend?: Backend;
  /** Of the inputs; default 0. */
  seed?: number;
  /** The CPU device that runs the definition; default: `device` when that is a CPU, else one opened for the purpose. */
  reference?: Device;
}

export interface CheckOpOptions extends CheckOptions {
  /** Random cases to run instead of the listed ones, with seeds from `seed` upwards. */
  fuzz?: number;
  /** Only the cases for which this is true. */
  only?: (c: Case) => boolean;
}

/** What became of one case. */
export interface CheckOutcome {
  op: string;
  case: Case;
  device: string;
  backend: Backend;
  seed: number;
  /** `declined`: the backend does not run this case and says why; that is not a failure, and not a pass. */
  state: 'passed' | 'failed' | 'declined';
  /** Sentences: what is wrong, or why it was declined; empty when passed. */
  reasons: string[];
  /** Error statistics of each output; empty unless it ran. */
  outputs: CheckResult[];
  /** The command that runs this case again. */
  repro: string;
  seconds: number;
}

/** src/later.ts says what it, and the two below, do. */
export async function* checkOp(op: Operator, options: CheckOpOptions): AsyncGenerator<CheckOutcome, void, undefined> {
  const { fuzz = 0, only, seed = 0, ...rest } = options;
  const reference = await referenceFor(options);
  try {
    if (fuzz > 0) {
      for (let i = 0; i < fuzz; ++i) yield await checkFuzz(op, { ...rest, reference, seed: seed + i });
    } else {
      for (const c of op.spec.cases()) if (!only || only(c)) yield await checkCase(op, c, { ...rest, reference, seed });
    }
  } finally {
    await release(reference, options);
  }
}

export function checkFuzz(op: Operator, options: CheckOptions): Promise<CheckOutcome> {
  const seed = options.seed ?? 0;
  return check(op, fuzzCase(op, seed, options.device), `--seed ${seed} --fuzz 1`, options);
}

export function checkCase(op: Operator, c: Case, options: CheckOptions): Promise<CheckOutcome> {
  const seed = options.seed ? `--seed ${options.seed} ` : '';
  return check(op, c, `${seed}--case ${JSON.stringify(c.name)}`, options);
}

async function check(op: Operator, c: Case, which: string, options: CheckOptions): Promise<CheckOutcome> {
  const started = performance.now();
  const { device, seed = 0 } = options;
  const backend = options.backend ?? (device.kind === 'cpu' ? 'cpu' : 'cuda');
  const repro = `kernwatt check ${op.spec.name} --backend ${backend}${placeOf(device, backend)} ${which}`;
  const reference = await referenceFor(options);
  const held: { dispose(): void }[] = [];
  let result: Pick<CheckOutcome, 'state' | 'reasons' | 'outputs'>;
  try {
    result = await runCase(op, c, device, backend, seed, reference, held);
  } catch (error) {
    if (!(error instanceof KernwattError)) throw error;
    const declined = error.code === 'ERR_KERNWATT_UNSUPPORTED';
    const reason = declined ? error.message : `${error.code}: ${error.message}`;
    result = { state: declined ? 'declined' : 'failed', reasons: [reason], outputs: [] };
  } finally {
    for (const one of held) one.dispose();
    await release(reference, options);
  }
  const seconds = (performance.now() - started) / 1000;
  return { op: op.spec.name, case: c, device: device.name, backend, seed, ...result, repro, seconds };
}

/** Options that lead to the same device again, where it is not the usual one of the backend. */
function placeOf({ kind, name, info }: Device, backend: Backend): string {
  if (kind !== 'cpu') return name === 'cuda:0' ? '' : ` --device ${name}`;
  return backend === 'ref' || info.isa === native().cpu().isa.at(-1) ? '' : ` --isa ${info.isa}`;
}

async function runCase(
  op: Operator,
  c: Case,
  device: Device,
  backend: Backend,
  seed: number,
  reference: Device,
  held: { dispose(): void }[],
): Promise<Pick<CheckOutcome, 'state' | 'reasons' | 'outputs'>> {
  const keep = <T extends { dispose(): void }>(one: T): T => {
    held.push(one);
    return one;
  };
  const { operands, params } = planCase(op, c, seed);
  const guarded: Record<string, Guarded> = {};
  const pristine: Record<string, Tensor> = {};
  for (const [i, operand] of operands.entries()) {
    const { name, spec } = operand;
    if (spec.role === 'out' && c.inPlace) continue;
    const made = keep(Guarded.make(device, operand));
    guarded[name] = made;
    if (spec.role === 'out') continue;
    made.fill(operand, originFor(c, operand.dtype, seedFor(seed, operands, i)));
    pristine[name] = keep(await made.view.to(reference));
  }
  for (const one of Object.values(guarded)) await one.remember();
  const views = Object.fromEntries(Object.entries(guarded).map(([name, { view }]) => [name, view]));
  if (c.inPlace) for (const { name, spec } of operands) if (spec.role === 'out') views[name] = views[c.inPlace]!;
  const outputs = op.run({ ...views, ...params }, { backend });
  await device.stream.mark();

  const reasons: string[] = [];
  for (const { name, spec } of operands) {
    const note = await guarded[name]?.changed(name, isWritten(spec) || name === c.inPlace);
    if (note) reasons.push(note);
  }
  const actual: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(outputs)) actual[name] = keep(await tensor.to(reference));
  const args = nativeArgs(op.compiled, { ...pristine, ...actual }, params);
  const before = nativeArgs(op.compiled, { ...actual, ...pristine }, params);
  const compared = await native().check(op.spec.name, reference.stream.handle, args, null, before);
  for (const result of compared) if (result.failed > 0) reasons.push(outside(result));
  if (c.exact) {
    const exact = c.exact === true ? Object.keys(actual) : c.exact;
    reasons.push(...(await differences(op, pristine, params, actual, exact, keep)));
  }
  return { state: reasons.length ? 'failed' : 'passed', reasons, outputs: compared };
}

/** The seed of the numbers in operand `i` of a case. */
export const seedFor = (seed: number, operands: readonly unknown[], i: number): number => seed * operands.length + i;

/** All values of a 4-bit type; else whole numbers for exact cases, and normal ones for the others. */
export function originFor(c: Case, dtype: DType, seed: number): Origin {
  if (isPaired(dtype)) {
    const [low, high] = integerRange(dtype);
    return { distribution: 'integers', seed, parameters: { low, high } };
  }
  if (c.exact) return { distribution: 'integers', seed, parameters: { low: -4, high: 4 } };
  return { distribution: 'normal', seed, parameters: { mean: 0, sd: 1 } };
}

function outside({ field, failed, elements, row, column, actual, expected, allowed }: CheckResult): string {
  return `${field}: ${failed} of ${elements} elements are outside the tolerance; worst at row ${row}, column ${column}: ${actual}, expected ${expected} within ${allowed}`;
}

/**
 * Elements of the outputs in `exact` that are not the very values of the reference backend; zeros of either sign are equal. Updates
 * those of `pristine` that the operator updates in place.
 */
async function differences(
  op: Operator,
  pristine: Record<string, Tensor>,
  params: Record<string, unknown>,
  actual: Record<string, Tensor>,
  exact: readonly string[],
  keep: <T extends Tensor>(one: T) => T,
): Promise<string[]> {
  const reasons: string[] = [];
  const blank: Record<string, Tensor> = {};
  for (const [name, tensor] of Object.entries(actual))
    if (!pristine[name]) blank[name] = keep(tensor.device.empty(tensor.shape, tensor.dtype));
  const expected = op.run({ ...pristine, ...blank, ...params }, { backend: 'ref' });
  for (const name of exact) {
    const [want, have] = await Promise.all([expected[name]!.read(), actual[name]!.read()]);
    let count = 0;
    let first = -1;
    for (let i = 0; i < want.length; ++i)
      if (want[i] !== have[i] && !(Number.isNaN(want[i]) && Number.isNaN(have[i])) && count++ === 0) first = i;
    if (count > 0)
      reasons.push(
        `${name}: ${count} of ${want.length} elements differ from the exact result; element ${first} is ${have[first]}, expected ${want[first]}`,
      );
  }
  return reasons;
}

async function referenceFor({ device, reference }: CheckOptions): Promise<Device> {
  return reference ?? (device.kind === 'cpu' ? device : await openDevice('cpu'));
}

async function release(used: Device, { device, reference }: CheckOptions): Promise<void> {
  if (used !== device && used !== reference) await used.close();
}
