// Pools: many requests at a time for one operator, each with memory of its own, behind a queue that has an end.
import type { Compiled } from './compile.js';
import type { Device } from './device.js';
import { checkDType, type DType, type RawData, type TensorData } from './dtype.js';
import { KernwattError } from './errors.js';
import { type Backend, chooseBackend } from './plan.js';
import { Aborts } from './pool/aborts.js';
import { Capacity } from './pool/capacity.js';
import { Lane } from './pool/lane.js';
import { type PoolInput, type PoolResult, Reader, type Request } from './pool/request.js';
import { Slot } from './pool/slot.js';
import { kindOf } from './solve.js';
import type { Dims, ParamSpecs, ParamValues, TensorSpecs } from './spec.js';
import type { Tensor } from './tensor.js';

/**
 * What a pool has room for, by name: the largest size of each dimension that requests decide; a tensor for an input that all of
 * them share; an element type for an input that they bring (those that must be given need none); parameters, the same for all.
 */
export type PoolCapacity<T extends TensorSpecs, P extends ParamSpecs> = Partial<Dims<T>> & {
  readonly [K in keyof T as T[K]['role'] extends 'inout' | 'out' ? never : K]?: Tensor | DType | undefined;
} & Partial<ParamValues<P>>;

type Shared<C, K> = K extends keyof C ? (C[K] extends Tensor ? true : false) : false;
type Announced<C, K> = K extends keyof C ? (C[K] extends DType ? true : false) : false;

/** What a request brings. */
export type PoolInputs<T extends TensorSpecs, C> = {
  readonly [K in keyof T as T[K]['role'] extends 'in' ? (Shared<C, K> extends true ? never : K) : never]: PoolInput;
} & {
  readonly [K in keyof T as T[K]['role'] extends 'in?' ? (Announced<C, K> extends true ? K : never) : never]?:
    | PoolInput
    | undefined;
};
export type OutputNames<T extends TensorSpecs> = { [K in keyof T]: T[K]['role'] extends 'out' ? K : never }[keyof T] &
  string;

export interface PoolOptions {
  /** Requests that may be in flight at a time, each with memory of the full capacity. Default 8. */
  slots?: number | undefined;
  /** Requests that may wait for a slot. Default 256; with 0 whoever finds no free slot is turned away. */
  queue?: number | undefined;
  /** Needed where the capacity holds no tensor. */
  device?: Device | undefined;
  /** As for a call. */
  backend?: Backend | undefined;
  /** As for a call: element type of the outputs. */
  dtype?: DType | undefined;
  /** Shapes whose plans each slot keeps; others are bound anew, which takes some ten microseconds. Default 64. */
  plans?: number | undefined;
}

export interface PoolRunOptions<As extends PoolResult = PoolResult> {
  /** Aborting rejects with the signal's reason: at once, wherever the request is. What runs already runs to its end unseen. */
  signal?: AbortSignal | undefined;
  /**
   * What the results are: `array` (f16, bf16 and f8 widened to f32), `raw` (arrays of the stored bits) or `tensor` (allocated for
   * the request, and the caller's to dispose of). Default `array`.
   */
  as?: As | undefined;
}

export type PoolResults<O extends string, As extends PoolResult> = {
  [K in O]: As extends 'tensor' ? Tensor : As extends 'raw' ? RawData : TensorData;
};

/** A request that waits, between its neighbours. */
interface Waiting extends Request {
  before: Waiting | undefined;
  next: Waiting | undefined;
}

const bounds = { slots: [1, 1024], queue: [0, 2 ** 20], plans: [1, 2 ** 16] } as const;
const optionNames = ['slots', 'queue', 'device', 'backend', 'dtype', 'plans'];

/**
 * Runs requests for one operator, `slots` at a time, in the order in which they came. Nothing here blocks the event loop, and
 * nothing grows without bound: memory is allocated once, and a full queue answers `BUSY`.
 */
export class Pool<I = Readonly<Record<string, PoolInput | undefined>>, O extends string = string> {
  readonly device: Device;
  readonly slots: number;
  readonly queue: number;
  /** Largest size of every dimension. */
  readonly limits: Readonly<Record<string, number>>;
  /** Memory of all slots. */
  readonly bytes: number;
  readonly #where: string;
  readonly #capacity: Capacity;
  readonly #reader: Reader;
  readonly #all: Slot[] = [];
  readonly #free: Slot[] = [];
  readonly #lane: Lane | undefined;
  readonly #aborts = new Aborts<Request>((request, reason) => {
    // One that waits leaves the queue with that.
    if (request === this.#first || (request as Waiting).before) this.#remove(request as Waiting);
    this.#reject(request, reason);
  });
  #first: Waiting | undefined;
  #last: Waiting | undefined;
  #waiting = 0;
  #closing: Promise<void> | undefined;
  #drained: (() => void) | undefined;

  /** @internal Use `op.pool`. */
  constructor(compiled: Compiled, capacity: unknown, options: PoolOptions) {
    this.#where = `${compiled.spec.name}.pool`;
    checkOptions(this.#where, options);
    const { slots = 8, queue = 256, plans = 64, device, backend, dtype } = options;
    this.#capacity = new Capacity(compiled, capacity, device, dtype);
    this.#reader = new Reader(this.#capacity);
    this.device = this.#capacity.device;
    this.slots = slots;
    this.queue = queue;
    this.limits = this.#capacity.limits;
    this.bytes = slots * this.#capacity.slotBytes;
    try {
      chooseBackend(this.#where, this.device, backend);
      for (let i = 0; i < slots; ++i) this.#all.push(new Slot(compiled, this.#capacity, backend, plans));
      if (this.device.kind === 'cpu') this.#lane = new Lane(this.device.createStream());
    } catch (error) {
      for (const slot of this.#all) void slot.close();
      this.#capacity.release();
      throw error;
    }
    this.#free.push(...this.#all.toReversed());
  }

  /** Requests in flight. */
  get running(): number {
    return this.slots - this.#free.length;
  }

  /** Requests in the queue. */
  get waiting(): number {
    return this.#waiting;
  }

  get closed(): boolean {
    return this.#closing !== undefined;
  }

  /**
   * One request. Sizes follow from the inputs as for a call, and may be anything up to the capacity. Arrays are read when the
   * request is launched: leave them alone until it has settled.
   * @throws {KernwattError} `BUSY` at once when slots and queue are full; `SHAPE`, `DTYPE`, `ARGUMENT`, `INDEX` as the operator
   *   would; `DISPOSED` when the pool, its device or a tensor is gone; the error of the work itself. None of them concerns any
   *   other request. With `signal`, its reason.
   */
  run<As extends PoolResult = 'array'>(inputs: I, options: PoolRunOptions<As> = {}): Promise<PoolResults<O, As>> {
    return new Promise((resolve, reject) => {
      const { signal, as = 'array' } = this.#options(options);
      if (this.#closing) throw new KernwattError('DISPOSED', `${this.#where}: pool is closed, expected an open one`);
      if (signal?.aborted) throw signal.reason;
      if (this.#free.length === 0 && this.#waiting >= this.queue)
        throw new KernwattError(
          'BUSY',
          `${this.#where}: requests under way are ${this.running + this.#waiting}, expected fewer than ${this.slots} slots and ${this.queue} in the queue; try again later`,
        );
      const read = this.#reader.read(inputs);
      const request: Waiting = {
        inputs: read.inputs,
        form: read.form,
        bound: read.bound || as === 'tensor',
        as,
        signal,
        settled: false,
        resolve: resolve as (results: Record<string, unknown>) => void,
        reject,
        before: undefined,
        next: undefined,
      };
      if (signal) this.#aborts.add(signal, request);
      const slot = this.#free.pop();
      if (!slot) this.#append(request);
      else if (!this.#start(slot, request)) this.#next(slot);
    });
  }

  /** Lets requests in flight and in the queue finish, then frees everything. Later ones are refused. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  toString(): string {
    return `Pool(${this.#where} on ${this.device.name}: ${this.running} of ${this.slots} slots, ${this.#waiting} waiting)`;
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.toString();
  }

  #options(options: unknown): { signal?: AbortSignal | undefined; as?: PoolResult | undefined } {
    if (options === null || typeof options !== 'object')
      throw new KernwattError('ARGUMENT', `${this.#where}: options are ${kindOf(options)}, expected { signal, as }`);
    const { signal, as, ...rest } = options as Record<string, unknown>;
    for (const name in rest)
      throw new KernwattError('ARGUMENT', `${this.#where}: ${name} is not an option of run, expected signal or as`);
    if (signal !== undefined && !(signal instanceof AbortSignal))
      throw new KernwattError('ARGUMENT', `${this.#where}: signal is ${kindOf(signal)}, expected an AbortSignal`);
    if (as !== undefined && as !== 'array' && as !== 'raw' && as !== 'tensor')
      throw new KernwattError('ARGUMENT', `${this.#where}: as is ${kindOf(as)}, expected array, raw or tensor`);
    return { signal, as };
  }

  #resolve(request: Request, results: Record<string, unknown>): void {
    this.#settle(request);
    request.resolve(results);
  }

  #reject(request: Request, reason: unknown): void {
    this.#settle(request);
    request.reject(reason);
  }

  #settle(request: Request): void {
    request.settled = true;
    if (request.signal) this.#aborts.delete(request.signal, request);
  }

  #append(request: Waiting): void {
    request.before = this.#last;
    if (this.#last) this.#last.next = request;
    else this.#first = request;
    this.#last = request;
    ++this.#waiting;
  }

  #remove(request: Waiting): void {
    if (request.before) request.before.next = request.next;
    else this.#first = request.next;
    if (request.next) request.next.before = request.before;
    else this.#last = request.before;
    request.before = undefined;
    request.next = undefined;
    --this.#waiting;
  }

  /** False where the request failed on the spot and left the slot as it was. */
  #start(slot: Slot, request: Request): boolean {
    const lane = slot.direct(request) && !this.#pending() ? this.#lane : undefined;
    if (!lane) {
      void this.#alone(slot, request);
      return true;
    }
    try {
      const plan = slot.launch(request, lane.stream);
      lane.add({
        plan,
        ended: () => {
          if (!request.settled) this.#take(slot, request);
          this.#next(slot);
        },
        failed: (error) => {
          this.#reject(request, error);
          this.#next(slot);
        },
      });
      return true;
    } catch (error) {
      this.#reject(request, error);
      return false;
    }
  }

  #take(slot: Slot, request: Request): void {
    try {
      this.#resolve(request, slot.take(request));
    } catch (error) {
      this.#reject(request, error);
    }
  }

  /** Whether a fixed tensor is still being written elsewhere. */
  #pending(): boolean {
    for (const name in this.#capacity.fixed)
      if (this.#capacity.fixed[name]!.storage.pendingOutside(this.#lane!.stream)) return true;
    return false;
  }

  async #alone(slot: Slot, request: Request): Promise<void> {
    try {
      const results = await slot.run(request);
      if (results && request.settled && request.as === 'tensor')
        for (const tensor of Object.values(results)) (tensor as Tensor).dispose();
      else if (results) this.#resolve(request, results);
    } catch (error) {
      this.#reject(request, error);
    }
    this.#next(slot);
  }

  /** A slot is free again: whoever has waited longest gets it. */
  #next(slot: Slot): void {
    for (let request = this.#first; request; request = this.#first) {
      this.#remove(request);
      if (this.#start(slot, request)) return;
    }
    this.#free.push(slot);
    if (this.#free.length === this.slots) this.#drained?.();
  }

  async #close(): Promise<void> {
    if (this.running > 0)
      await new Promise<void>((done) => {
        this.#drained = done;
      });
    await Promise.all([...this.#all.map((slot) => slot.close()), this.#lane?.stream.close()]);
    this.#capacity.release();
  }
}

function checkOptions(where: string, options: unknown): asserts options is PoolOptions {
  if (options === null || typeof options !== 'object')
    throw new KernwattError(
      'ARGUMENT',
      `${where}: options are ${kindOf(options)}, expected { ${optionNames.join(', ')} }`,
    );
  for (const name of Object.keys(options))
    if (!optionNames.includes(name))
      throw new KernwattError('ARGUMENT', `${where}: ${name} is not an option, expected ${optionNames.join(', ')}`);
  const given = options as Record<string, unknown>;
  for (const [name, [low, high]] of Object.entries(bounds)) {
    const value = given[name];
    if (value !== undefined && !(Number.isInteger(value) && (value as number) >= low && (value as number) <= high))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} is ${kindOf(value)}, expected a whole number from ${low} to ${high}`,
      );
  }
  if (given.dtype !== undefined) checkDType(where, given.dtype);
}
