// An operator bound to its arguments: checked once, pointers fixed, ready to be queued as often as wanted.
import { type Roofline, rooflineOf } from './ceilings.js';
import type { Compiled } from './compile.js';
import { checkContents } from './contents.js';
import type { Device } from './device.js';
import type { DType } from './dtype.js';
import { KernwattError } from './errors.js';
import { native, type PlanHandle } from './native.js';
import { distinctElements, formatShape } from './shape.js';
import { checkOverlap, nativeArgs, type Solved, same, solve, unknownName } from './solve.js';
import { isWritten, type OpSpec, type Work } from './spec.js';
import type { Stream } from './stream.js';
import { Tensor } from './tensor.js';
import { problemOf } from './tune/problem.js';
import type { TunedFact } from './tune/store.js';

/** `cpu` and `ref` run on the CPU, `cuda` on `cuda:N` and, emulated, on `emu:N`. */
export type Backend = 'cpu' | 'ref' | 'cuda';

export interface CallOptions {
  /** Default: the device's own stream. */
  stream?: Stream | undefined;
  /** Default: the fast one of the device. `ref` is the definition in double precision, slow. */
  backend?: Backend | undefined;
  /** Element type of outputs that are not given. */
  dtype?: DType | undefined;
  /** One of `plan.configurations()`; default: what was measured where the device was opened with `tuned`, else the backend's own choice. */
  configuration?: string | undefined;
}

/** Facts about how a plan runs: what was chosen and why. */
export interface Explanation {
  op: string;
  backend: Backend;
  device: string;
  workspaceBytes: number;
  /** FLOPs and bytes of a call, and the least time that the device's ceilings allow; null in the definition's explanation. */
  roofline: Roofline | null;
  /** Whether a measured configuration is used and why; absent unless the device was opened with `tuned`. */
  tuned?: TunedFact;
  /** Whatever the backend adds: variant, tile, instruction set, reason. */
  [fact: string]: unknown;
}

/** A bound operator. It keeps the memory of its tensors alive until it is disposed or bound to others. */
export class Plan<O extends Record<string, Tensor> = Record<string, Tensor>> {
  readonly op: OpSpec;
  readonly backend: Backend;
  readonly device: Device;
  readonly stream: Stream;
  /** Size of every dimension by name. */
  readonly dims: Readonly<Record<string, number>>;
  /** Every parameter, defaults included. */
  readonly params: Readonly<Record<string, number | boolean | string>>;
  /** What one call costs at least. */
  readonly work: Work;
  /** Scratch memory in the stream's arena, which all plans of the stream share. */
  readonly workspaceBytes: number;
  /**
   * Queues one call and returns: tens of nanoseconds plus the launch. Errors of the work itself come from `stream.mark()`.
   * @throws {KernwattError} `DISPOSED` once the plan, its stream or its device is gone.
   */
  enqueue: () => void;
  /** @internal What was asked for, by the caller or by what was measured. */
  readonly configuration: string | undefined;
  /** @internal */
  readonly handle: PlanHandle;
  readonly #compiled: Compiled;
  #tensors: Record<string, Tensor>;
  #disposed = false;

  readonly #tuned: TunedFact | undefined;

  /** @internal Use `op.bind`. */
  constructor(compiled: Compiled, { handle, backend, stream, solved, configuration, tuned }: Prepared) {
    this.op = compiled.spec;
    this.backend = backend;
    this.device = solved.device;
    this.stream = stream;
    this.dims = solved.dims;
    this.params = solved.params;
    this.work = workOf(compiled, solved);
    this.handle = handle;
    this.configuration = configuration;
    this.#tuned = tuned;
    this.workspaceBytes = native().workspaceBytes(handle);
    this.enqueue = native().enqueueFunction(handle);
    this.#compiled = compiled;
    this.#tensors = solved.tensors;
    for (const tensor of Object.values(solved.tensors)) tensor.storage.retain();
    markWritten(compiled, solved.tensors, stream);
  }

  /** Every tensor by name, outputs included. */
  get args(): Readonly<Record<string, Tensor>> {
    return this.#tensors;
  }

  get outputs(): O {
    const outputs: Record<string, Tensor> = {};
    for (const { name, spec } of this.#compiled.tensors) if (isWritten(spec)) outputs[name] = this.#tensors[name]!;
    return outputs as O;
  }

  /** @internal Element type that decides which ceiling applies. */
  get dtype(): DType | null {
    return Object.values(this.#tensors)[0]?.dtype ?? null;
  }

  /** @internal What a measurement of it holds for. */
  get problem(): string {
    return problemOf(this.#compiled, this.backend, { tensors: this.#tensors, params: this.params });
  }

  /** Queues one call and resolves to the outputs when it has run. */
  async run(): Promise<O> {
    this.enqueue();
    markWritten(this.#compiled, this.#tensors, this.stream);
    await this.stream.mark();
    return this.outputs;
  }

  /**
   * Points the plan at other tensors of the same dtype, shape and strides; calls queued before keep the old ones.
   * @throws {KernwattError} `ARGUMENT`, `DTYPE`, `SHAPE`, `INDEX`, `DISPOSED`; the plan is then as it was.
   */
  rebind(args: Readonly<Record<string, Tensor | undefined>>): this {
    const where = `${this.op.name}.rebind`;
    this.#check(where);
    const tensors = { ...this.#tensors };
    for (const [name, tensor] of Object.entries(args)) {
      if (!(name in this.op.tensors)) throw unknownName(where, name, Object.keys(this.op.tensors));
      if (tensor === undefined) continue;
      const old = this.#tensors[name];
      if (!old)
        throw new KernwattError(
          'ARGUMENT',
          `${where}: ${name} was absent when bound, expected to stay so; bind a new plan`,
        );
      checkAlike(where, name, tensor, old);
      tensor.ordered(where, name, this.stream);
      tensors[name] = tensor;
    }
    checkOverlap(this.#compiled, tensors);
    checkContents(this.#compiled, tensors, this.dims);
    native().rebindPlan(this.handle, nativeArgs(this.#compiled, tensors, this.params));
    for (const tensor of Object.values(tensors)) tensor.storage.retain();
    for (const tensor of Object.values(this.#tensors)) tensor.storage.release();
    this.#tensors = tensors;
    markWritten(this.#compiled, tensors, this.stream);
    return this;
  }

  /** How the plan runs, as data. */
  explain(): Explanation {
    this.#check(`${this.op.name}.explain`);
    const facts = JSON.parse(native().explain(this.handle)) as Record<string, unknown>;
    const { backend, device, workspaceBytes } = this;
    const roofline = backend === 'ref' ? null : rooflineOf(device, this.dtype, this.work, facts);
    const tuned = this.#tuned && { tuned: this.#tuned };
    return { op: this.op.name, backend, device: device.name, workspaceBytes, ...facts, roofline, ...tuned };
  }

  /**
   * Names of the ways in which the backend can compute what the plan was bound to, for the option `configuration`: its own choice first, then by
   * falling hope. Empty where it has one way alone. Names are stable within a version of this package.
   */
  configurations(): string[] {
    this.#check(`${this.op.name}.configurations`);
    return native().configurations(this.handle);
  }

  get disposed(): boolean {
    return this.#disposed || this.device.closed;
  }

  /** Releases the plan once its queued calls have run; its tensors, outputs included, live on. Idempotent. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.enqueue = () => this.#check(this.op.name);
    native().destroyPlan(this.handle);
    for (const tensor of Object.values(this.#tensors)) tensor.storage.release();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  toString(): string {
    const sizes = Object.entries(this.dims).map(([name, size]) => `${name} ${size}`);
    return `Plan(${this.op.name} on ${this.device.name} ${this.backend}: ${sizes.join(', ')})`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }

  #check(where: string): void {
    if (this.#disposed) throw new KernwattError('DISPOSED', `${where}: plan is disposed, expected a live one`);
    this.stream.check(where);
  }
}

function checkAlike(where: string, name: string, tensor: Tensor, old: Tensor): void {
  if (!(tensor instanceof Tensor))
    throw new KernwattError('ARGUMENT', `${where}: ${name} is ${String(tensor)}, expected a tensor`);
  tensor.check(where, name);
  if (tensor.device !== old.device)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: ${name} is on ${tensor.device.name}, expected the plan's ${old.device.name}`,
    );
  if (tensor.dtype !== old.dtype)
    throw new KernwattError('DTYPE', `${where}: ${name} is ${tensor.dtype}, expected ${old.dtype} as bound`);
  if (!same(tensor.shape, old.shape))
    throw new KernwattError(
      'SHAPE',
      `${where}: ${name} is ${formatShape(tensor.shape)}, expected ${formatShape(old.shape)} as bound`,
    );
  if (tensor.format !== old.format)
    throw new KernwattError('ARGUMENT', `${where}: ${name} is ${tensor.format}, expected ${old.format} as bound`);
  if (!same(tensor.stride, old.stride))
    throw new KernwattError(
      'ARGUMENT',
      `${where}: ${name} has strides ${formatShape(tensor.stride)}, expected ${formatShape(old.stride)} as bound`,
    );
}

function markWritten(compiled: Compiled, tensors: Record<string, Tensor>, stream: Stream): void {
  for (const { name, spec } of compiled.tensors) if (isWritten(spec)) tensors[name]!.storage.wrote(stream);
}

function workOf({ spec, tensors }: Compiled, solved: Solved): Work {
  const given = new Set(Object.keys(solved.tensors));
  const { flops, unread = [], read = {}, tokens = null, weights } = spec.work(solved.dims, solved.params, given);
  let bytes = 0;
  for (const { name } of tensors)
    if (!unread.includes(name)) bytes += (read[name] ?? 1) * (solved.tensors[name]?.distinctBytes ?? 0);
  const elements = (name: string) => {
    const tensor = solved.tensors[name];
    return tensor ? distinctElements(tensor.shape, tensor.stride) : 0;
  };
  const params = weights?.reduce((sum, name) => sum + elements(name), 0) ?? null;
  return { flops, bytes, tokens, params };
}

/** A call that has passed every check, with its outputs allocated: what an eager call and a plan both begin with. */
export interface Prepared {
  handle: PlanHandle;
  backend: Backend;
  stream: Stream;
  solved: Solved;
  configuration: string | undefined;
  tuned: TunedFact | undefined;
}

const optionNames = ['stream', 'backend', 'dtype', 'configuration'];

/** @internal Checks, allocates and binds; on failure nothing stays allocated. */
export function prepare(compiled: Compiled, args: Readonly<Record<string, unknown>>, options: CallOptions): Prepared {
  const where = compiled.spec.name;
  if (options === null || typeof options !== 'object')
    throw new KernwattError(
      'ARGUMENT',
      `${where}: options are ${String(options)}, expected { ${optionNames.join(', ')} }`,
    );
  for (const name of Object.keys(options))
    if (!optionNames.includes(name))
      throw new KernwattError('ARGUMENT', `${where}: ${name} is not an option, expected ${optionNames.join(', ')}`);
  const asked = options.configuration;
  if (asked !== undefined && (typeof asked !== 'string' || asked === ''))
    throw new KernwattError(
      'ARGUMENT',
      `${where}: configuration is ${String(asked)}, expected one of plan.configurations()`,
    );
  const solved = solve(compiled, args, options.dtype);
  const { device, tensors } = solved;
  const backend = chooseBackend(where, device, options.backend);
  const stream = options.stream ?? device.stream;
  if (stream.device !== device)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: stream is on ${stream.device.name}, expected ${device.name} as the tensors`,
    );
  stream.check(where);
  for (const name in tensors) tensors[name]!.ordered(where, name, stream);
  const made: Tensor[] = [];
  try {
    for (const { name, shape, dtype } of solved.missing) {
      const tensor = device.allocate(where, shape, dtype, stream);
      made.push(tensor);
      tensors[name] = tensor;
    }
    const raw = nativeArgs(compiled, tensors, solved.params);
    const create = (configuration?: string) =>
      native().createPlan(where, backend === 'cuda' ? 'library' : backend, stream.handle, raw, configuration);
    const measured =
      asked === undefined && backend !== 'ref'
        ? device.tuned?.find(where, problemOf(compiled, backend, solved))
        : undefined;
    const common = { backend, stream, solved };
    if (measured?.configuration === undefined)
      return { ...common, handle: create(asked), configuration: asked, tuned: measured?.fact };
    const { configuration, fact } = measured;
    try {
      return { ...common, handle: create(configuration), configuration, tuned: fact };
    } catch (error) {
      if (!(error instanceof KernwattError) || error.code !== 'ERR_KERNWATT_UNSUPPORTED') throw error;
      const tuned: TunedFact = { state: 'declined', reason: error.message };
      return { ...common, handle: create(), configuration: undefined, tuned };
    }
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    throw error;
  }
}

/** @internal The eager call: prepare, queue, let go. */
export function callOnce(
  compiled: Compiled,
  args: Readonly<Record<string, unknown>>,
  options: CallOptions,
): Record<string, Tensor> {
  const { handle, stream, solved } = prepare(compiled, args, options);
  try {
    native().enqueue(handle);
  } catch (error) {
    for (const { name } of solved.missing) solved.tensors[name]!.dispose();
    throw error;
  } finally {
    native().destroyPlan(handle);
  }
  markWritten(compiled, solved.tensors, stream);
  const outputs: Record<string, Tensor> = {};
  for (const { name, spec } of compiled.tensors) if (isWritten(spec)) outputs[name] = solved.tensors[name]!;
  return outputs;
}

/** @internal The backend that runs on a device, or the one asked for. */
export function chooseBackend(where: string, device: Device, given: Backend | undefined): Backend {
  const usual: Backend = device.kind === 'cpu' ? 'cpu' : 'cuda';
  if (given === undefined || given === usual || (given === 'ref' && device.kind === 'cpu')) return given ?? usual;
  const expected = device.kind === 'cpu' ? 'cpu or ref' : 'cuda';
  throw new KernwattError('ARGUMENT', `${where}: backend is ${given}, expected ${expected} on ${device.name}`);
}
