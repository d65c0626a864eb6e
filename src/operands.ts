// Tensors for a check: each lies inside a larger poisoned buffer, so that a read or a write outside it shows.
import type { BatchForm, Case, Layout } from './case.js';
import type { Device } from './device.js';
import { bitsOf, type DType, isInteger, type RawData } from './dtype.js';
import type { Operator } from './op.js';
import { extent, rowMajor } from './shape.js';
import { type Compiled, finishSizes, unknownName } from './solve.js';
import type { TensorSpec } from './spec.js';
import { type Origin, Tensor } from './tensor.js';

/** What a case says about one tensor, spelt out. */
export interface Operand {
  name: string;
  spec: TensorSpec;
  dtype: DType;
  shape: number[];
  /** The leading dimension repeats one slice (stride 0). */
  shared: boolean;
  layout: Layout;
}

/** A case with every choice made: sizes, parameters, operands in declaration order. */
export interface CasePlan {
  operands: Operand[];
  dims: Record<string, number>;
  params: Record<string, number | boolean | string>;
  /** Inputs that the parameters make the operator skip: they are filled with NaN. */
  unread: ReadonlySet<string>;
  flops: number;
}

/**
 * Works out what a case asks for.
 * @throws {KernwattError} where the case breaks a rule of the operator or names what it does not have.
 */
export function planCase(op: Operator, c: Case): CasePlan {
  const { spec } = op;
  const { names } = op.compiled;
  for (const name of [...Object.keys(c.params ?? {}), ...Object.keys(c.dtypes ?? {}), ...(c.with ?? [])])
    if (!names.has(name)) throw unknownName(`${spec.name} case "${c.name}"`, name, names);
  const given = new Set(c.with ?? []);
  const present = op.compiled.tensors.filter((t) => t.spec.role !== 'in?' || given.has(t.name));
  const dims: Record<string, number> = { ...c.dims };
  // Without an input that carries it, a shared dimension is 1.
  for (const {
    broadcast,
    dims: [lead],
  } of op.compiled.tensors) {
    const carried = present.some(
      (t) => t.broadcast && t.spec.role !== 'out' && ['full', 'shared'].includes(formOf(c, t.name, lead!)),
    );
    if (broadcast && !carried) dims[lead!] = 1;
  }
  const params = paramValues(op.compiled, c, dims, given);
  finishSizes(spec, dims, params, given);
  const anyLead = present.some(
    (t) => t.broadcast && t.spec.role !== 'out' && formOf(c, t.name, t.dims[0]!) !== 'absent',
  );
  const operands = present.map((t): Operand => {
    const order = t.spec.transpose && params[t.spec.transpose] === true ? t.swapped : t.dims;
    const form = !t.broadcast ? 'full' : t.spec.role === 'out' && !anyLead ? 'absent' : formOf(c, t.name, order[0]!);
    const shape = order.map((d) => dims[d]!);
    if (t.broadcast && form === 'one') shape[0] = 1;
    if (t.broadcast && form === 'absent') shape.shift();
    return {
      name: t.name,
      spec: t.spec,
      dtype: dtypeFor(op, t.spec, t.name, c),
      shape,
      shared: form === 'shared',
      layout: c.layout?.[t.name] ?? 'dense',
    };
  });
  const { flops, unread = [] } = spec.work(dims, params);
  return { operands, dims, params, unread: new Set(unread), flops };
}

const formOf = (c: Case, name: string, lead: string): BatchForm =>
  c.batch?.[name] ?? (lead in c.dims ? 'full' : 'absent');

function paramValues(
  op: Compiled,
  c: Case,
  dims: Record<string, number>,
  given: ReadonlySet<string>,
): CasePlan['params'] {
  const params: CasePlan['params'] = {};
  for (const { name, spec } of op.params) {
    const value = c.params?.[name] ?? (typeof spec.default === 'function' ? spec.default(dims, given) : spec.default);
    params[name] = value as number;
  }
  return params;
}

/** Element type of a tensor in a case: named there, else that of the tensor it follows, else the first allowed. */
export function dtypeFor(op: Operator, spec: TensorSpec, name: string, c: Case): DType {
  const named = c.dtypes?.[name];
  if (named) return named;
  const other = 'like' in spec.dtype ? spec.dtype.like : spec.from;
  if (other) return dtypeFor(op, op.spec.tensors[other]!, other, c);
  return (spec.dtype as readonly DType[])[0]!;
}

/** Elements of poison on either side of every operand. */
const guard = 64;

/** A tensor inside a poisoned buffer. */
export class Guarded {
  readonly view: Tensor;
  readonly #base: Tensor;
  #before: RawData | undefined;

  private constructor(base: Tensor, view: Tensor) {
    this.#base = base;
    this.view = view;
  }

  static make(device: Device, operand: Operand): Guarded {
    const { shape, dtype } = operand;
    const stride = strideOf(operand);
    const offset = guard + (operand.layout === 'padded' ? 1 : 0);
    const base = device.allocate('check', [offset + extent(shape, stride) + guard], dtype);
    base.write(poison(dtype, base.size));
    return new Guarded(base, new Tensor(base.storage.retain(), offset, dtype, shape, stride));
  }

  fill(origin: Origin): void {
    this.view.device.fill(this.view, origin);
  }

  /** Remembers the buffer as it is. */
  async remember(): Promise<void> {
    this.#before = await this.#base.read({ raw: true });
  }

  /**
   * Compares the buffer with what was remembered, bit for bit.
   * @param written whether the view itself may have changed.
   * @returns a sentence about the first change, or undefined.
   */
  async changed(name: string, written: boolean): Promise<string | undefined> {
    const before = bitsIn(this.#before!);
    const after = bitsIn(await this.#base.read({ raw: true }));
    const inside = membersOf(this.view, after.length);
    for (let i = 0; i < after.length; ++i) {
      if (after[i] === before[i]) continue;
      const within = inside[i] === 1;
      if (within && written) continue;
      if (within) return `${name} was modified at element ${i - guard} of its memory, expected it only to be read`;
      return `memory outside ${name} was overwritten, ${i} elements into a buffer of ${after.length} whose first ${guard} are not its own`;
    }
    return undefined;
  }

  dispose(): void {
    this.view.dispose();
    this.#base.dispose();
  }
}

/** Rows apart by an odd number of elements, or the outermost dimension stored inside the next one; the last stays contiguous. */
function strideOf({ shape, layout, shared }: Operand): number[] {
  const stride = rowMajor(shape);
  const rank = shape.length;
  if (layout === 'padded') {
    let step = 1;
    for (let i = rank - 1; i >= 0; --i) {
      stride[i] = step;
      step = step * Math.max(shape[i]!, 1) + (i === rank - 1 ? 7 : 3);
    }
  } else if (layout === 'swapped' && rank > 2) {
    stride[0] = shape[rank - 1]!;
    for (let i = rank - 2, step = shape[0]! * shape[rank - 1]!; i >= 1; --i) {
      stride[i] = step;
      step *= Math.max(shape[i]!, 1);
    }
  }
  if (shared) stride[0] = 0;
  return stride;
}

/** A NaN of an unlikely pattern in the floating-point types, so that reading it spreads and writing over it shows. */
function poison(dtype: DType, size: number): RawData {
  if (dtype === 'f32') return new Float32Array(new Uint32Array(size).fill(0x7fc0_beef).buffer);
  if (dtype === 'i32') return new Int32Array(size).fill(0x5555_5555);
  if (bitsOf(dtype) === 16) return new Uint16Array(size).fill(dtype === 'f16' ? 0x7ead : 0x7fcd);
  if (isInteger(dtype)) return dtype === 'i8' ? new Int8Array(size).fill(0x55) : new Uint8Array(size).fill(0x55);
  return new Uint8Array(size).fill(0x7f);
}

/** The stored bits of raw data. */
const bitsIn = (raw: RawData): ArrayLike<number> =>
  raw instanceof Float32Array ? new Uint32Array(raw.buffer, raw.byteOffset, raw.length) : raw;

/** 1 for every element of a buffer of `size` that belongs to a view. */
function membersOf({ shape, stride, nativeView }: Tensor, size: number): Uint8Array {
  const mask = new Uint8Array(size);
  const visit = (d: number, at: number): void => {
    const step = stride[d]!;
    if (d === shape.length - 1) for (let i = 0; i < shape[d]!; ++i) mask[at + i * step] = 1;
    else for (let i = 0; i < shape[d]!; ++i) visit(d + 1, at + i * step);
  };
  visit(0, nativeView.offset);
  return mask;
}
