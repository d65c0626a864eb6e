// What one request in flight has to itself: memory of the capacity, a stream, and plans for the shapes seen last.
import type { Compiled } from '../compile.js';
import { checkNumbers } from '../contents.js';
import { type DType, dtypeIndex, encode, isInteger, type NumericData, type RawData, storedArray } from '../dtype.js';
import { KernwattError } from '../errors.js';
import { native } from '../native.js';
import { type Backend, type CallOptions, callOnce, Plan, prepare } from '../plan.js';
import { rowMajor, type Shape } from '../shape.js';
import type { Storage } from '../storage.js';
import type { Stream } from '../stream.js';
import { Tensor } from '../tensor.js';
import { upload } from '../upload.js';
import type { Capacity, Room } from './capacity.js';
import type { Brought, Form, Request } from './request.js';

/** Memory of one operand. */
interface Cell {
  storage: Storage;
  /** On the CPU: the same memory as an array, which JavaScript copies to and from faster than it crosses into C++. */
  memory: RawData | undefined;
}

/** Operands up to this size are copied on the spot where they can be: some ten microseconds. */
const directBytes = 64 * 2 ** 10;

export class Slot {
  readonly #compiled: Compiled;
  readonly #capacity: Capacity;
  readonly #backend: Backend | undefined;
  readonly #mostPlans: number;
  readonly #cells: Record<string, Cell> = {};
  readonly #plans = new Map<string, Plan>();
  readonly #inPlace: boolean;
  #stream: Stream | undefined;

  constructor(compiled: Compiled, capacity: Capacity, backend: Backend | undefined, mostPlans: number) {
    this.#compiled = compiled;
    this.#capacity = capacity;
    this.#backend = backend;
    this.#mostPlans = mostPlans;
    try {
      for (const room of [...capacity.inputs, ...capacity.outputs]) this.#cells[room.name] = this.#cell(room);
      this.#inPlace = Object.values(this.#cells).every(({ memory }) => memory !== undefined);
      // A stream of a GPU takes a while to make; one of the CPU is a thread, which small requests never need.
      if (capacity.device.kind !== 'cpu') this.#stream = capacity.device.createStream();
    } catch (error) {
      this.release();
      throw error;
    }
  }

  get stream(): Stream {
    this.#stream ??= this.#capacity.device.createStream();
    return this.#stream;
  }

  /** Whether a request is copied on the spot, launched on a stream that others share, and copied back on the spot. */
  direct({ bound, form }: Request): boolean {
    return !bound && this.#inPlace && form.largest <= directBytes;
  }

  /** Copies the inputs in and queues the operator on `stream`. Returns the plan: what ran may be run again. */
  launch({ inputs, form }: Request, stream: Stream): Plan {
    for (const input of inputs) {
      this.#check(input, form);
      this.#copyIn(input);
    }
    const plan = this.#plan(form, inputs, stream, `direct ${form.key}`);
    plan.enqueue();
    return plan;
  }

  /** The outputs of a direct request that has run. */
  take({ form, as }: Request): Record<string, unknown> {
    const results: Record<string, unknown> = {};
    for (const { name, dtype, elements } of form.outputs) {
      const memory = this.#cells[name]!.memory!;
      if (as === 'raw' || dtype === 'f32' || isInteger(dtype)) results[name] = memory.slice(0, elements);
      else {
        const into = new Float32Array(elements);
        native().convert(memory, dtypeIndex(dtype), into, dtypeIndex('f32'), elements);
        results[name] = into;
      }
    }
    return results;
  }

  /** Runs any request on the slot's own stream. Settles when nothing of it is left there; undefined if it was aborted before. */
  async run(request: Request): Promise<Record<string, unknown> | undefined> {
    const { stream } = this;
    try {
      await this.#written(request, stream);
      for (const input of request.inputs) {
        if (request.settled) return undefined;
        if (!(input.data instanceof Tensor)) await this.#write(input, input.data, request, stream);
      }
      if (request.settled) return undefined;
      return await this.#launchAndRead(request, stream);
    } catch (error) {
      // Takes a failure of what is still queued, so that the next request does not meet it.
      await stream.mark().catch(() => {});
      throw error;
    }
  }

  /** Frees everything; nothing may be running. */
  async close(): Promise<void> {
    this.release();
    await this.#stream?.close();
  }

  release(): void {
    for (const plan of this.#plans.values()) plan.dispose();
    this.#plans.clear();
    for (const { storage, memory } of Object.values(this.#cells)) {
      if (memory && memory.length > 0) native().conceal(storage.handle, memory.buffer as ArrayBuffer);
      storage.release();
    }
  }

  #cell({ dtype, elements }: Room): Cell {
    const { device, where } = this.#capacity;
    const { storage } = device.allocate(where, [elements], dtype);
    if (device.kind !== 'cpu') return { storage, memory: undefined };
    const buffer = elements > 0 ? native().expose(storage.handle) : new ArrayBuffer(0);
    return { storage, memory: buffer ? storedArray(dtype, buffer) : undefined };
  }

  /** A tensor over the first elements of a cell. */
  #tensor(name: string, dtype: DType, shape: Shape): Tensor {
    return new Tensor(this.#cells[name]!.storage.retain(), 0, dtype, [...shape], rowMajor(shape));
  }

  #check({ room, data, length }: Brought, { dims }: Form): void {
    const { where } = this.#capacity;
    if ((data as NumericData).length !== length)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${room.name} has ${(data as NumericData).length} elements, expected ${length} as when it was handed in; leave arrays alone until the request has settled`,
      );
    const { holds } = room.t.spec;
    if (holds && holds.kind !== 'pages' && holds.kind !== 'selection')
      checkNumbers(where, room.name, holds, data as NumericData, dims);
  }

  #copyIn({ room: { name, dtype }, data, length }: Brought): void {
    const memory = this.#cells[name]!.memory!;
    const { data: encoded, raw } = encode(`${this.#capacity.where}: ${name}`, data as NumericData, dtype);
    if (raw || dtype === 'f32') memory.set(encoded as Float32Array);
    else native().convert(encoded, dtypeIndex('f32'), memory, dtypeIndex(dtype), length);
  }

  async #write(input: Brought, data: NumericData, { form, signal }: Request, stream: Stream): Promise<void> {
    this.#check(input, form);
    using tensor = this.#tensor(input.room.name, input.room.dtype, input.shape);
    await upload(`${this.#capacity.where}: ${input.room.name}`, tensor, data, { stream, signal });
  }

  /** Waits for other streams that were given a fixed tensor, or one of the request, to write. */
  async #written({ inputs }: Request, stream: Stream): Promise<void> {
    const tensors = inputs.map(({ data }) => data).filter((data) => data instanceof Tensor);
    for (const { storage } of [...Object.values(this.#capacity.fixed), ...tensors])
      while (storage.pendingOutside(stream)) await storage.writer!.mark();
  }

  async #launchAndRead(request: Request, stream: Stream): Promise<Record<string, unknown>> {
    const { form, inputs, as } = request;
    const own =
      as === 'tensor' ? [] : form.outputs.map((o) => [o.name, this.#tensor(o.name, o.dtype, o.shape)] as const);
    try {
      let made: Record<string, Tensor> = {};
      if (request.bound) made = this.#call(inputs, Object.fromEntries(own), stream);
      else this.#plan(form, inputs, stream, form.key).enqueue();
      if (as === 'tensor') {
        await stream.mark().catch((error) => {
          for (const tensor of Object.values(made)) tensor.dispose();
          throw error;
        });
        return made;
      }
      const raw = as === 'raw';
      const reads = await Promise.allSettled(own.map(([, tensor]) => tensor.read({ raw: raw as true, stream })));
      return Object.fromEntries(
        reads.map((read, i) => {
          if (read.status === 'rejected') throw read.reason;
          return [own[i]![0], read.value];
        }),
      );
    } finally {
      for (const [, tensor] of own) tensor.dispose();
    }
  }

  /** Binds tensors of the caller in place, for this once. */
  #call(inputs: readonly Brought[], outputs: Readonly<Record<string, Tensor>>, stream: Stream): Record<string, Tensor> {
    const brought = inputs.map(({ room: { name, dtype }, shape, data }) => [
      name,
      data instanceof Tensor ? data : this.#tensor(name, dtype, shape),
    ]);
    const tensors: Record<string, Tensor> = Object.fromEntries(brought);
    try {
      return callOnce(this.#compiled, { ...this.#args(), ...tensors, ...outputs }, this.#options(stream));
    } finally {
      for (const { data, room } of inputs) if (data !== tensors[room.name]) tensors[room.name]!.dispose();
    }
  }

  /** The plan for requests of one form, over the slot's memory; the one used longest ago makes room for a new one. */
  #plan(form: Form, inputs: readonly Brought[], stream: Stream, key: string): Plan {
    const known = this.#plans.get(key);
    if (known) {
      this.#plans.delete(key);
      this.#plans.set(key, known);
      return known;
    }
    const tensors: Record<string, Tensor> = {};
    for (const { room, shape } of inputs) tensors[room.name] = this.#tensor(room.name, room.dtype, shape);
    for (const { name, dtype, shape } of form.outputs) tensors[name] = this.#tensor(name, dtype, shape);
    try {
      const args = { ...this.#args(), ...tensors };
      const plan = new Plan(this.#compiled, prepare(this.#compiled, args, this.#options(stream)));
      if (this.#plans.size >= this.#mostPlans) {
        const [oldest, old] = this.#plans.entries().next().value!;
        this.#plans.delete(oldest);
        old.dispose();
      }
      this.#plans.set(key, plan);
      return plan;
    } finally {
      for (const tensor of Object.values(tensors)) tensor.dispose();
    }
  }

  #args(): Record<string, unknown> {
    // Whatever wrote to this memory before has ended: the slot was free.
    for (const { storage } of Object.values(this.#cells)) storage.writer = undefined;
    return { ...this.#capacity.fixed, ...this.#capacity.params };
  }

  #options(stream: Stream): CallOptions {
    return { stream, backend: this.#backend, dtype: this.#capacity.dtype };
  }
}
