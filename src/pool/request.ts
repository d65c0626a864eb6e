// One request to a pool: its inputs read, its sizes checked against the operator and the capacity, and how it is settled.
import { bytesOf, checkData, type DType, type NumericData } from '../dtype.js';
import { KernwattError } from '../errors.js';
import { countElements, formatShape, type Shape } from '../shape.js';
import { kindOf, solve, unknownName } from '../solve.js';
import { Tensor } from '../tensor.js';
import type { Capacity, InputRoom } from './capacity.js';

/** Numbers in row-major order. The shape may be left out where the other tensors decide all of it but one size. */
export type PoolArray = NumericData | { readonly data: NumericData; readonly shape: Shape };
/** What a request may bring for an input. A tensor is bound as it is, without a copy. */
export type PoolInput = PoolArray | Tensor;
/** Arrays of numbers (f16, bf16 and f8 widened to f32), arrays of the stored bits, or tensors that the caller then owns. */
export type PoolResult = 'array' | 'raw' | 'tensor';

/** An input as it was read. */
export interface Brought {
  readonly room: InputRoom;
  readonly shape: Shape;
  readonly data: NumericData | Tensor;
  /** Elements at the time; an array that has another number of them later was detached or resized. */
  readonly length: number;
}

/** What follows from the sizes of a request: the same for all that are alike. */
export interface Form {
  readonly key: string;
  readonly dims: Readonly<Record<string, number>>;
  readonly outputs: readonly {
    readonly name: string;
    readonly shape: Shape;
    readonly dtype: DType;
    readonly elements: number;
  }[];
  /** Bytes of the largest operand as stored. */
  readonly largest: number;
}

export interface Request {
  readonly inputs: readonly Brought[];
  readonly form: Form;
  readonly as: PoolResult;
  readonly signal: AbortSignal | undefined;
  /** It brings or wants tensors, so it is bound to them alone. */
  readonly bound: boolean;
  settled: boolean;
  resolve(results: Record<string, unknown>): void;
  reject(reason: unknown): void;
}

/** Forms of the requests seen last. */
const mostForms = 1024;

/** @internal Reads inputs against a capacity. */
export class Reader {
  readonly #capacity: Capacity;
  readonly #forms = new Map<string, Form>();

  constructor(capacity: Capacity) {
    this.#capacity = capacity;
  }

  /** @throws {KernwattError} `ARGUMENT`, `SHAPE`, `DTYPE`, `DISPOSED`, as the operator would; nothing has been queued then. */
  read(given: unknown): { inputs: Brought[]; form: Form; bound: boolean } {
    const { where, inputs: rooms } = this.#capacity;
    if (given === null || typeof given !== 'object' || Array.isArray(given) || ArrayBuffer.isView(given))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: inputs are ${kindOf(given)}, expected an object of ${rooms.map(({ name }) => name).join(', ')}`,
      );
    const values = given as Readonly<Record<string, unknown>>;
    const inputs: Brought[] = [];
    let key = '';
    let bound = false;
    let count = 0;
    for (const room of rooms) {
      const value = values[room.name];
      if (value === undefined) {
        if (room.t.spec.role === 'in')
          throw new KernwattError('ARGUMENT', `${where}: ${room.name} is missing, expected an array or a tensor`);
        key += '-;';
        continue;
      }
      ++count;
      const input = value instanceof Tensor ? this.#tensor(room, value) : this.#array(room, value);
      inputs.push(input);
      bound ||= input.data instanceof Tensor;
      key += `${input.shape};`;
    }
    for (const name in values) if (values[name] !== undefined && --count < 0) throw this.#unexpected(values);
    return { inputs, form: this.#form(key, inputs, bound), bound };
  }

  #tensor(room: InputRoom, tensor: Tensor): Brought {
    const { where, device } = this.#capacity;
    tensor.check(where, room.name);
    if (tensor.device !== device)
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${room.name} is on ${tensor.device.name}, expected the pool's own ${device.name}`,
      );
    if (tensor.dtype !== room.dtype)
      throw new KernwattError('DTYPE', `${where}: ${room.name} is ${tensor.dtype}, expected ${room.dtype} as the pool`);
    return { room, shape: tensor.shape, data: tensor, length: tensor.size };
  }

  #array(room: InputRoom, value: unknown): Brought {
    const where = this.#capacity.where;
    if (value !== null && typeof value === 'object' && 'data' in value) {
      const { data, shape } = value as { data: unknown; shape: Shape };
      checkData(`${where}: ${room.name}`, data);
      const length = countElements(`${where}: ${room.name}`, shape, room.dtype);
      if (data.length !== length)
        throw new KernwattError(
          'SHAPE',
          `${where}: ${room.name} has ${data.length} elements, expected ${length} for ${formatShape(shape)}`,
        );
      return { room, shape: [...shape], data, length };
    }
    checkData(`${where}: ${room.name}`, value);
    return { room, shape: this.#shapeOf(room, value.length), data: value, length: value.length };
  }

  /** The shape of an array that comes without one; a leading dimension that may be absent is. */
  #shapeOf({ name, dims, exact, t }: InputRoom, length: number): Shape {
    const { where } = this.#capacity;
    const first = t.optional ? 1 : 0;
    const shape: number[] = [];
    let open = -1;
    let rest = 1;
    for (let i = first; i < exact.length; ++i) {
      const size = exact[i];
      shape.push(size ?? 0);
      if (size !== undefined) rest *= size;
      else if (open >= 0) {
        const sizes = formatShape(dims.slice(first).map((dim, at) => exact[at + first] ?? dim.text));
        throw new KernwattError(
          'SHAPE',
          `${where}: ${name} comes without a shape, expected { data, shape } as several sizes of ${sizes} may differ`,
        );
      } else open = i - first;
    }
    if (open >= 0) shape[open] = rest === 0 ? 0 : length / rest;
    if (!Number.isInteger(shape[open] ?? 0) || shape.reduce((a, b) => a * b, 1) !== length) {
      const sizes = formatShape(shape.map((size, at) => (at === open ? dims[at + first]!.text : size)));
      throw new KernwattError('SHAPE', `${where}: ${name} has ${length} elements, expected those of ${sizes}`);
    }
    return shape;
  }

  #form(key: string, inputs: readonly Brought[], bound: boolean): Form {
    const known = bound ? undefined : this.#forms.get(key);
    if (known) return known;
    const { named, fixed, params, dtype } = this.#capacity;
    const tensors: Record<string, Tensor> = {};
    for (const { room, shape, data } of inputs)
      tensors[room.name] = data instanceof Tensor ? data : this.#capacity.stand(room, shape);
    const { dims, missing } = solve(named, { ...fixed, ...tensors, ...params }, dtype);
    this.#checkSizes(dims, inputs);
    const outputs = missing.map((o) => ({ ...o, elements: o.shape.reduce((a, b) => a * b, 1) }));
    const sizes = [
      ...inputs.map(({ room, length }) => bytesOf(length, room.dtype)),
      ...outputs.map((o) => bytesOf(o.elements, o.dtype)),
    ];
    const form = { key, dims, outputs, largest: Math.max(...sizes) };
    if (bound) return form;
    if (this.#forms.size >= mostForms) this.#forms.delete(this.#forms.keys().next().value!);
    this.#forms.set(key, form);
    return form;
  }

  /** Names the dimension that is too large. */
  #checkSizes(dims: Readonly<Record<string, number>>, inputs: readonly Brought[]): void {
    const { where, limits } = this.#capacity;
    for (const { room } of inputs)
      for (const { name } of room.dims)
        if (dims[name]! > limits[name]!)
          throw new KernwattError('SHAPE', `${where}: ${name} is ${dims[name]}, expected at most ${limits[name]}`);
    for (const [name, size] of Object.entries(dims))
      if (size > (limits[name] ?? size))
        throw new KernwattError('SHAPE', `${where}: ${name} is ${size}, expected at most ${limits[name]}`);
  }

  #unexpected(values: Readonly<Record<string, unknown>>): KernwattError {
    const { where, inputs, named, fixed, params } = this.#capacity;
    const names = inputs.map(({ name }) => name);
    const name = Object.keys(values).find((one) => values[one] !== undefined && !names.includes(one))!;
    if (!named.names.has(name)) return unknownName(where, name, names);
    const why = fixed[name] || name in params ? 'is fixed by the pool' : 'is not in the capacity of the pool';
    return new KernwattError('ARGUMENT', `${where}: ${name} ${why}, expected ${names.join(', ')} alone`);
  }
}
