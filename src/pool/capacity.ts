// What the requests of a pool have in common: fixed tensors and parameters, and the largest size of every dimension.
import { type Compiled, type CompiledTensor, type Dim, dimsOf } from '../compile.js';
import { Device } from '../device.js';
import { bytesOf, checkDType, type DType, isPaired } from '../dtype.js';
import { KernwattError } from '../errors.js';
import { countElements, rowMajor, type Shape } from '../shape.js';
import { kindOf, solve, unknownName } from '../solve.js';
import type { Storage } from '../storage.js';
import { Tensor } from '../tensor.js';

/** What a slot has to have room for: an input that requests bring, or an output. */
export interface Room {
  readonly name: string;
  readonly dtype: DType;
  /** Elements of the largest request. */
  readonly elements: number;
}

export interface InputRoom extends Room {
  readonly t: CompiledTensor;
  readonly dims: readonly Dim[];
  /** Sizes that the fixed tensors decide; undefined where requests may differ. */
  readonly exact: readonly (number | undefined)[];
}

/** A capacity by what its entries are. */
interface Sorted {
  limits: Record<string, number>;
  fixed: Record<string, Tensor>;
  dtypes: Record<string, DType>;
  params: Record<string, unknown>;
}

/** @internal */
export class Capacity {
  readonly where: string;
  /** The operator under the name of its pool, for messages. */
  readonly named: Compiled;
  readonly device: Device;
  /** Views of our own: the caller may dispose of theirs. */
  readonly fixed: Readonly<Record<string, Tensor>>;
  readonly params: Readonly<Record<string, unknown>>;
  /** Largest size of every dimension. */
  readonly limits: Readonly<Record<string, number>>;
  readonly inputs: readonly InputRoom[];
  readonly outputs: readonly Room[];
  readonly dtype: DType | undefined;
  /** Memory of no size that stands for an input where only its shape counts. */
  readonly #stands: Record<string, Storage> = {};

  /**
   * @throws {KernwattError} `ARGUMENT` for names and sizes that do not fit, and what the operator has to say of a problem of
   *   the full capacity, which must be one itself.
   */
  constructor(compiled: Compiled, capacity: unknown, device: unknown, dtype: DType | undefined) {
    this.where = `${compiled.spec.name}.pool`;
    this.named = { ...compiled, spec: { ...compiled.spec, name: this.where } };
    this.dtype = dtype;
    const updated = compiled.tensors.find((t) => t.spec.role === 'inout');
    if (updated)
      throw new KernwattError(
        'UNSUPPORTED',
        `${this.where}: ${updated.name} is updated in place, expected an operator without such tensors; call it on a stream`,
      );
    const { limits, fixed, dtypes, params } = this.#sort(capacity);
    this.device = this.#deviceOf(fixed, device);
    this.params = params;
    const exact = this.#sizesOf(fixed);
    this.limits = this.#complete({ ...limits }, exact, fixed, dtypes);
    this.inputs = compiled.tensors
      .filter((t) => t.spec.role !== 'out' && !fixed[t.name] && (t.spec.role === 'in' || dtypes[t.name] !== undefined))
      .map((t) => this.#room(t, dtypeOf(compiled, t, fixed, dtypes), exact));
    try {
      for (const { name } of this.inputs) this.#stands[name] = this.device.allocate(this.where, [0], 'u8').storage;
      const full = this.inputs.map((input) => [input.name, this.stand(input, this.#shapeOf(input.dims))]);
      const solved = solve(this.named, { ...fixed, ...Object.fromEntries(full), ...params }, dtype);
      this.outputs = solved.missing.map(({ name, shape, dtype }) => ({
        name,
        dtype,
        elements: countElements(this.where, shape, dtype),
      }));
    } catch (error) {
      this.#releaseStands();
      throw error;
    }
    this.fixed = Object.fromEntries(Object.entries(fixed).map(([name, tensor]) => [name, tensor.alias()]));
  }

  /** Bytes of one slot. */
  get slotBytes(): number {
    return [...this.inputs, ...this.outputs].reduce((sum, { elements, dtype }) => sum + bytesOf(elements, dtype), 0);
  }

  /** A tensor that has a shape but no memory. */
  stand({ name, dtype }: Room, shape: Shape): Tensor {
    return new Tensor(this.#stands[name]!, 0, dtype, [...shape], rowMajor(shape));
  }

  release(): void {
    this.#releaseStands();
    for (const tensor of Object.values(this.fixed)) tensor.dispose();
  }

  #releaseStands(): void {
    for (const stand of Object.values(this.#stands)) stand.release();
  }

  #sort(capacity: unknown): Sorted {
    if (capacity === null || typeof capacity !== 'object' || Array.isArray(capacity) || capacity instanceof Tensor)
      throw new KernwattError('ARGUMENT', `${this.where}: capacity is ${kindOf(capacity)}, expected an object`);
    const sorted: Sorted = { limits: {}, fixed: {}, dtypes: {}, params: {} };
    const { tensors, params } = this.named;
    const dims = new Set(tensors.flatMap((t) => t.dims.map(({ name }) => name)));
    for (const [name, value] of Object.entries(capacity)) {
      if (value === undefined) continue;
      const t = tensors.find((one) => one.name === name);
      if (t) this.#sortTensor(t, value, sorted);
      else if (params.some((one) => one.name === name)) sorted.params[name] = value;
      else if (!dims.has(name)) throw unknownName(this.where, name, [...this.named.names, ...dims]);
      else if (Number.isSafeInteger(value) && (value as number) >= 0) sorted.limits[name] = value as number;
      else
        throw new KernwattError('ARGUMENT', `${this.where}: ${name} is ${kindOf(value)}, expected a size of 0 or more`);
    }
    return sorted;
  }

  #sortTensor({ name, spec }: CompiledTensor, value: unknown, { fixed, dtypes }: Sorted): void {
    if (spec.role === 'out')
      throw new KernwattError(
        'ARGUMENT',
        `${this.where}: ${name} is given, expected inputs alone: the pool has its own`,
      );
    if (value instanceof Tensor) {
      value.check(this.where, name);
      fixed[name] = value;
    } else if (typeof value === 'string') {
      checkDType(`${this.where}: ${name}`, value);
      dtypes[name] = value;
    } else {
      throw new KernwattError(
        'ARGUMENT',
        `${this.where}: ${name} is ${kindOf(value)}, expected a tensor that all requests share, or the element type of those they bring`,
      );
    }
  }

  #deviceOf(fixed: Readonly<Record<string, Tensor>>, given: unknown): Device {
    if (given !== undefined && !(given instanceof Device))
      throw new KernwattError('ARGUMENT', `${this.where}: device is ${kindOf(given)}, expected one from openDevice()`);
    const device = given ?? Object.values(fixed)[0]?.device;
    if (!device)
      throw new KernwattError('ARGUMENT', `${this.where}: device is missing, expected one where no tensor is given`);
    device.check(this.where);
    for (const [name, tensor] of Object.entries(fixed))
      if (tensor.device !== device)
        throw new KernwattError(
          'ARGUMENT',
          `${this.where}: ${name} is on ${tensor.device.name}, expected ${device.name} as the pool`,
        );
    return device;
  }

  /** Sizes that the fixed tensors have; of one that broadcasts, the size of those that do not. */
  #sizesOf(fixed: Readonly<Record<string, Tensor>>): Record<string, number> {
    const sizes: Record<string, number> = {};
    for (const t of this.named.tensors) {
      const shape = fixed[t.name]?.shape;
      const dims = dimsOf(t, this.params);
      const absent = dims.length - (shape?.length ?? 0);
      for (let i = 0; shape && i < shape.length; ++i) {
        const { name, broadcasts, extra } = dims[i + absent] ?? dims[0]!;
        if (!(broadcasts && shape[i] === 1)) sizes[name] ??= shape[i]! - extra;
      }
    }
    return sizes;
  }

  /** A limit for every dimension of the inputs: given, decided by the fixed tensors, derived, or 1 where it may be absent. */
  #complete(
    limits: Record<string, number>,
    exact: Readonly<Record<string, number>>,
    fixed: Readonly<Record<string, Tensor>>,
    dtypes: Readonly<Record<string, DType>>,
  ): Record<string, number> {
    const { spec, tensors } = this.named;
    for (const [name, size] of Object.entries(exact)) {
      if (limits[name] !== undefined && limits[name] !== size)
        throw new KernwattError(
          'SHAPE',
          `${this.where}: ${name} is ${limits[name]}, expected ${size} as the given tensors have`,
        );
      limits[name] = size;
    }
    const brought = tensors.filter((t) => t.spec.role === 'in' || dtypes[t.name] || fixed[t.name]);
    for (const { dims } of brought) for (const dim of dims) if (dim.broadcasts) limits[dim.name] ??= 1;
    const defaults = this.named.params.map(({ name, spec }) => [name, spec.default]);
    const params = { ...Object.fromEntries(defaults.filter(([, v]) => typeof v !== 'function')), ...this.params };
    for (const t of brought)
      for (const { name } of t.dims)
        if (limits[name] === undefined && !spec.derive?.[name])
          throw new KernwattError(
            'ARGUMENT',
            `${this.where}: ${name} is missing, expected the largest size of a request`,
          );
    for (const [name, derive] of Object.entries(spec.derive ?? {})) limits[name] ??= derive(limits, params as never);
    return limits;
  }

  #room(t: CompiledTensor, dtype: DType, exact: Readonly<Record<string, number>>): InputRoom {
    if (isPaired(dtype))
      throw new KernwattError(
        'UNSUPPORTED',
        `${this.where}: ${t.name} is ${dtype} that requests bring, expected a tensor that all of them share`,
      );
    const dims = dimsOf(t, this.params);
    const sizes = dims.map(({ name, extra, broadcasts }) => {
      const size = exact[name];
      return size === undefined || broadcasts ? undefined : size + extra;
    });
    return {
      t,
      name: t.name,
      dtype,
      dims,
      exact: sizes,
      elements: countElements(this.where, this.#shapeOf(dims), dtype),
    };
  }

  #shapeOf(dims: readonly Dim[]): number[] {
    return dims.map(({ name, extra }) => this.limits[name]! + extra);
  }
}

/** Element type of an input: as given, that of a tensor which must be like it, of the one it must be like, or the first allowed. */
function dtypeOf(
  op: Compiled,
  t: CompiledTensor,
  fixed: Readonly<Record<string, Tensor>>,
  dtypes: Readonly<Record<string, DType>>,
): DType {
  const said = (name: string): DType | undefined => {
    const allowed = op.spec.tensors[name]!.dtype;
    const alike = op.tensors.filter((one) => 'like' in one.spec.dtype && one.spec.dtype.like === name);
    return (
      dtypes[name] ??
      fixed[name]?.dtype ??
      alike
        .map((one) => said(one.name))
        .find((found) => found !== undefined && ('like' in allowed || allowed.includes(found)))
    );
  };
  const found = (name: string): DType => {
    const { dtype } = op.spec.tensors[name]!;
    return said(name) ?? ('like' in dtype ? found(dtype.like) : dtype[0]!);
  };
  return found(t.name);
}
