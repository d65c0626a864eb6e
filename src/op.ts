// What an operator is, stated once: its tensors, parameters, rules and cost. Calls, plans, checks, cases and docs read it.
import { type Compiled, compile } from './compile.js';
import { type PrepackArgs, type PrepackOptions, prepack } from './packed.js';
import { type CallOptions, callOnce, Plan, prepare } from './plan.js';
import { type OutputNames, Pool, type PoolCapacity, type PoolInputs, type PoolOptions } from './pool.js';
import type { Args, OpSpec, Outputs, ParamSpecs, TensorSpecs } from './spec.js';
import type { Tensor } from './tensor.js';
import type { TuneOptions, Tuning } from './tune/tune.js';

/** Any operator, for code that walks over all of them; arguments are checked at run time alone. */
export interface Operator {
  readonly spec: OpSpec;
  bind(args: Readonly<Record<string, unknown>>, options?: CallOptions): Plan;
  run(args: Readonly<Record<string, unknown>>, options?: CallOptions): Record<string, Tensor>;
  pool(capacity: Readonly<Record<string, unknown>>, options?: PoolOptions): Pool;
  prepack(args: Readonly<Record<string, unknown>>, options?: PrepackOptions): Tensor;
  tune(args: Readonly<Record<string, unknown>>, options?: TuneOptions): Promise<Tuning>;
  /** @internal */
  readonly compiled: Compiled;
}

/**
 * A callable operator that carries its own declaration. A call checks the arguments, allocates the outputs that are not given,
 * queues the operator on a stream and returns at once; errors of the work itself come from `await output.read()` or
 * `stream.mark()`.
 */
export interface Op<T extends TensorSpecs, P extends ParamSpecs> {
  // No comment of its own: an editor then shows the operator's.
  (args: Args<T, P>, options?: CallOptions): Outputs<T>;
  /** As the call, but for untyped arguments. */
  run(args: Readonly<Record<string, unknown>>, options?: CallOptions): Outputs<T>;
  /** Checks and binds once, for `enqueue` as often as wanted. */
  bind(args: Args<T, P>, options?: CallOptions): Plan<Outputs<T>>;
  /**
   * Memory, streams and plans for requests of any size up to a capacity, behind a queue that has an end: what servers use.
   * @example
   * await using pool = gemm.pool({ m: 64, w }, { slots: 8, queue: 256 });
   * const { y } = await pool.run({ x: array }, { signal });
   * @throws {KernwattError} `ARGUMENT`, and whatever the operator says of a problem of the full capacity; `OUT_OF_MEMORY`.
   */
  pool<const C extends PoolCapacity<T, P>>(
    capacity: C & { readonly [K in Exclude<keyof C, keyof PoolCapacity<T, P>>]: never },
    options?: PoolOptions,
  ): Pool<PoolInputs<T, C>, OutputNames<T>>;
  /**
   * An operand packed once in the format that the kernels of its device read fastest, for use in its place: on the CPU, the weight
   * of `gemm`, and `w`, `scales` and `zeros` of `gemmInt4`. Returns at once; the packing is queued. Its bytes count in `device.memory()`: `dispose` gives the original up.
   * @example
   * const packed = gemm.prepack({ w }, { dispose: true });
   * const { y } = gemm({ x, w: packed });
   * @throws {KernwattError} `UNSUPPORTED` where the backend has no format for it, or it is packed already; `ARGUMENT`, `OUT_OF_MEMORY`,
   *   `DISPOSED`.
   */
  prepack(args: PrepackArgs<T, P>, options?: PrepackOptions): Tensor;
  /**
   * Measures every configuration that the backend names for these arguments (`plan.configurations()`) with cold operands, in turns with the
   * one it takes by itself, and keeps one that is faster with confidence in the user's cache folder. Nothing uses it unasked:
   * `openDevice(name, { tuned: true })` does, and so does the option `configuration` of a call. Outputs are overwritten.
   * @example
   * const { configuration, speedup, reason } = await gemm.tune({ x, w });
   * @throws {KernwattError} as the call; `UNSUPPORTED` on an emulated device; `OUT_OF_MEMORY`; the signal's reason when aborted. A
   *   folder that cannot be written is a note, never an error.
   */
  tune(args: Args<T, P>, options?: TuneOptions): Promise<Tuning>;
  readonly spec: OpSpec<T, P>;
  /** @internal */
  readonly compiled: Compiled;
}

/**
 * Declares an operator. The types of its arguments and results, its checks, its documentation and the tests of every backend
 * follow from the one object.
 */
export function defineOp<const T extends TensorSpecs, const P extends ParamSpecs>(spec: OpSpec<T, P>): Op<T, P> {
  const compiled = compile(spec as unknown as OpSpec);
  const run = (args: object, options: CallOptions = {}) =>
    callOnce(compiled, args as Record<string, unknown>, options) as Outputs<T>;
  const bind = (args: object, options: CallOptions = {}) => {
    return new Plan<Outputs<T>>(compiled, prepare(compiled, args as Record<string, unknown>, options));
  };
  const pool = (capacity: object, options: PoolOptions = {}) => new Pool(compiled, capacity, options);
  const pack = (args: PrepackArgs<T, P>, options: PrepackOptions = {}) => prepack(compiled, args, options);
  const tune = async (args: object, options: TuneOptions = {}) =>
    (await import('./tune/tune.js')).tune(op as unknown as Operator, args as Record<string, unknown>, options);
  const op: Op<T, P> = Object.assign((args: Args<T, P>, options?: CallOptions) => run(args, options), {
    run,
    bind,
    pool,
    prepack: pack,
    tune,
    spec,
    compiled,
  });
  Object.defineProperty(op, 'name', { value: spec.name });
  return op;
}
