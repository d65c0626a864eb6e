// Tensors for a check: each lies inside a larger poisoned buffer, so that a read or a write outside it shows.
import type { BroadcastForm, Case, Layout } from './case.js';
import { type Compiled, type CompiledTensor, type Dim, dimsOf } from './compile.js';
import type { Device } from './device.js';
import { bitsOf, bytesOf, type DType, isInteger, isPaired, type NumericData, type RawData } from './dtype.js';
import { KernwattError } from './errors.js';
import type { Operator } from './op.js';
import { randomSource } from './random.js';
import { extent, rowMajor, type SliceRange } from './shape.js';
import { finishSizes, unknownName } from './solve.js';
import type { Holds, TensorSpec } from './spec.js';
import { type Origin, Tensor } from './tensor.js';

/** What a case says about one tensor, spelt out. */
export interface Operand {
  name: string;
  spec: TensorSpec;
  dtype: DType;
  shape: number[];
  /** Dimensions that repeat one slice (stride 0). */
  repeated: readonly boolean[];
  layout: Layout;
  /** What it has to hold; undefined where any numbers will do. */
  contents: NumericData | undefined;
  /** The seed of `contents`, where they were drawn from what the input may hold. */
  drawn: number | undefined;
  /** Parts that nothing may read: they are filled with NaN. */
  unread: readonly (readonly SliceRange[])[];
}

/** A case with every choice made: sizes, parameters, operands in declaration order. */
export interface CasePlan {
  operands: Operand[];
  dims: Record<string, number>;
  params: Record<string, number | boolean | string>;
  flops: number;
}

/**
 * Works out what a case asks for; `seed` decides what it leaves open of the contents.
 * @throws {KernwattError} where the case breaks a rule of the operator or names what it does not have.
 */
export function planCase(op: Operator, c: Case, seed = 0): CasePlan {
  const { spec } = op;
  const { names } = op.compiled;
  const named = [c.params, c.dtypes, c.layout, c.values].flatMap((part) => Object.keys(part ?? {}));
  const parts = Object.keys(c.broadcast ?? {}).map((place) => place.split('.')[0]!);
  for (const name of [...named, ...parts, ...(c.with ?? [])])
    if (!names.has(name)) throw unknownName(`${spec.name} case "${c.name}"`, name, names);
  const given = new Set(c.with ?? []);
  const present = op.compiled.tensors.filter((t) => t.spec.role !== 'in?' || given.has(t.name));
  const dims = broadcastSizes(op.compiled, c, present);
  const params = paramValues(op.compiled, c, dims, given);
  const dtypes = Object.fromEntries(present.map((t) => [t.name, dtypeFor(op, t.spec, t.name, c)]));
  finishSizes(spec, dims, params, given, dtypes);
  const inputs = present.filter((t) => t.spec.role !== 'out');
  const anyLead = inputs.some((t) => t.optional && formOf(c, t, t.dims[0]!) !== 'absent');
  const { flops, unread = [] } = spec.work(dims, params, given);
  const operands = present.map((t): Operand => {
    const forms = dimsOf(t, params).map((dim) => {
      const form = t.spec.role !== 'out' ? formOf(c, t, dim) : t.optional && !anyLead ? 'absent' : 'full';
      return { size: form === 'one' ? 1 : dims[dim.name]! + dim.extra, form };
    });
    if (forms[0]?.form === 'absent') forms.shift();
    const shape = forms.map(({ size }) => size);
    const drawn =
      t.spec.holds && c.values?.[t.name] === undefined ? seed * names.size + op.compiled.tensors.indexOf(t) : undefined;
    const dtype = dtypes[t.name]!;
    if (isPaired(dtype) && c.layout?.[t.name])
      throw new KernwattError(
        'UNSUPPORTED',
        `${spec.name} case "${c.name}": layout of ${t.name} is ${c.layout[t.name]}, expected none for ${dtype}: it lies without gaps`,
      );
    return {
      name: t.name,
      spec: t.spec,
      dtype,
      shape,
      repeated: forms.map(({ form }) => form === 'shared'),
      layout: c.layout?.[t.name] ?? 'dense',
      contents: contentsOf(t, c, shape, dims, drawn),
      drawn,
      unread: unread.includes(t.name) ? [[]] : [],
    };
  });
  clipTables(operands, dims);
  return {
    operands: operands.map((o) => ({ ...o, unread: [...o.unread, ...beyond(op.compiled, o.name, operands)] })),
    dims,
    params,
    flops,
  };
}

/** The sizes of a case; one that no input carries in full is 1. */
function broadcastSizes(op: Compiled, c: Case, present: readonly CompiledTensor[]): Record<string, number> {
  const dims: Record<string, number> = { ...c.dims };
  const carried = new Set<string>();
  for (const t of present)
    for (const dim of t.dims)
      if (t.spec.role !== 'out' && ['full', 'shared'].includes(formOf(c, t, dim))) carried.add(dim.name);
  for (const t of op.tensors)
    for (const { name, broadcasts } of t.dims) if (broadcasts && !carried.has(name)) dims[name] = 1;
  return dims;
}

/** How a dimension of a tensor appears. */
function formOf(c: Case, t: CompiledTensor, dim: Dim): BroadcastForm {
  if (!dim.broadcasts) return 'full';
  const lead = dim === t.dims[0] ? c.broadcast?.[t.name] : undefined;
  const left = t.optional ? 'absent' : 'one';
  return c.broadcast?.[`${t.name}.${dim.name}`] ?? lead ?? (dim.name in c.dims ? 'full' : left);
}

/** Numbers that a case names, or that an input of whole numbers may hold: those of the seed `drawn`. */
function contentsOf(
  t: CompiledTensor,
  c: Case,
  shape: readonly number[],
  dims: Readonly<Record<string, number>>,
  drawn: number | undefined,
): NumericData | undefined {
  const size = shape.reduce((a, b) => a * b, 1);
  const value = c.values?.[t.name];
  if (typeof value === 'number') return new Float32Array(size).fill(value);
  if (value) return value;
  const { holds } = t.spec;
  if (!holds || drawn === undefined) return undefined;
  const next = randomSource(drawn);
  if (holds.kind === 'flags') {
    const hidden = 0.2 + 0.6 * next();
    // Any value but 0 is true.
    return Uint8Array.from({ length: size }, () => (next() < hidden ? 0 : 1 + Math.floor(2 * next())));
  }
  if (holds.kind === 'pages') {
    const pages = dims[holds.of]!;
    if (holds.beyond === undefined || size <= pages) return shuffled(pages, size, next);
    return Int32Array.from({ length: size }, () => Math.floor(next() * pages));
  }
  if (holds.kind === 'selection') return selections(dims[holds.of]!, shape.at(-1)!, size, next);
  const high = dims[holds.of]! - (holds.kind === 'indices' ? 1 : 0);
  const draw = () => {
    const share = next();
    return share < 0.1 ? 0 : share > 0.8 ? high : Math.floor(next() * (high + 1));
  };
  const numbers = Int32Array.from({ length: size }, draw);
  return holds.kind === 'offsets' ? numbers.sort() : numbers;
}

/** `count` of the whole numbers below `below`, none twice. */
function shuffled(below: number, count: number, next: () => number): Int32Array {
  if (count > below) throw new KernwattError('SHAPE', `a table of ${count} pages has only ${below}, expected as many`);
  const all = Int32Array.from({ length: below }, (_, i) => i);
  for (let i = 0; i < count; ++i) {
    const other = i + Math.floor(next() * (below - i));
    [all[i], all[other]] = [all[other]!, all[i]!];
  }
  return all.slice(0, count);
}

/** Rows of `columns` entries, `size` in all: some of the whole numbers below `below`, ascending, and -1 in what is left of a row. */
function selections(below: number, columns: number, size: number, next: () => number): Int32Array {
  const all = new Int32Array(size).fill(-1);
  for (let row = 0; row < size; row += columns) {
    const most = Math.min(columns, below);
    const count = next() < 0.7 ? most : Math.floor(next() * (most + 1));
    // Each number is taken with the chance that leaves `count` of them at the end.
    for (let value = 0, taken = 0; taken < count; ++value)
      if (next() * (below - value) < count - taken) all[row + taken++] = value;
  }
  return all;
}

/** Tables of pages with -1 in the entries that their lengths leave out. */
function clipTables(operands: readonly Operand[], dims: Readonly<Record<string, number>>): void {
  for (const { spec, contents, drawn, shape } of operands) {
    if (spec.holds?.kind !== 'pages' || drawn === undefined) continue;
    const { each, lengths } = spec.holds;
    const reach = operands.find((o) => o.name === lengths)!.contents!;
    const table = contents as Int32Array;
    for (let i = 0; i < table.length; ++i)
      if ((i % shape[1]!) * dims[each]! >= reach[Math.floor(i / shape[1]!)]!) table[i] = -1;
  }
}

/** Parts of a tensor that lengths or offsets among the operands leave out. */
function beyond(op: Compiled, name: string, operands: readonly Operand[]): SliceRange[][] {
  const dims = op.tensors.find((t) => t.name === name)!.dims.map((d) => d.name);
  const cut = (ranges: Readonly<Record<string, SliceRange>>) => dims.map((dim) => ranges[dim] ?? null);
  return operands.flatMap(({ spec: { holds, dims: own }, contents }) => {
    if (holds === undefined || !('beyond' in holds) || !holds.beyond?.includes(name)) return [];
    const numbers = Array.from(contents!);
    if (holds.kind === 'pages') return unusedSlots(holds, numbers, operands, dims, name).map(cut);
    const size = operands.find((o) => o.name === name)!.shape[dims.indexOf(holds.of)]!;
    if (holds.kind === 'lengths') return numbers.map((length, i) => cut({ [own[0]!]: i, [holds.of]: [length, size] }));
    return [cut({ [holds.of]: [0, numbers[0]!] }), cut({ [holds.of]: [numbers.at(-1)!, size] })];
  });
}

/** Of each page, the slots that no entry of a table reaches. */
function unusedSlots(
  { of, lengths, each }: Extract<Holds, { kind: 'pages' }>,
  table: readonly number[],
  operands: readonly Operand[],
  dims: readonly string[],
  name: string,
): Record<string, SliceRange>[] {
  const { shape } = operands.find((o) => o.name === name)!;
  const [pages, size] = [shape[dims.indexOf(of)]!, shape[dims.indexOf(each)]!];
  const requests = Array.from(operands.find((o) => o.name === lengths)!.contents!);
  const entries = table.length / requests.length;
  const used = new Array<number>(pages).fill(0);
  for (const [row, length] of requests.entries())
    for (let i = 0; i * size < length; ++i) {
      const page = table[row * entries + i]!;
      used[page] = Math.max(used[page]!, Math.min(size, length - i * size));
    }
  return used.map((slots, page) => ({ [of]: page, [each]: [slots, size] }));
}

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
function dtypeFor(op: Operator, spec: TensorSpec, name: string, c: Case): DType {
  const named = c.dtypes?.[name];
  if (named) return named;
  const other = 'like' in spec.dtype ? spec.dtype.like : spec.from;
  if (other) return dtypeFor(op, op.spec.tensors[other]!, other, c);
  return (spec.dtype as readonly DType[])[0]!;
}

/** Elements of poison on either side of every operand. */
export const guard = 64;

/** Where an operand lies in its buffer, in elements. */
export function placementOf(operand: Operand): { stride: number[]; offset: number; elements: number } {
  const stride = strideOf(operand);
  const offset = guard + (operand.layout === 'padded' ? 1 : 0);
  return { stride, offset, elements: offset + extent(operand.shape, stride) + guard };
}

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
    const { stride, offset, elements } = placementOf(operand);
    const base = device.allocate('check', [elements], dtype);
    base.write(poison(dtype, base.size));
    return new Guarded(base, new Tensor(base.storage.retain(), offset, dtype, shape, stride));
  }

  /** What the operand has to hold, else what `origin` says; NaN in the parts that nothing may read. */
  fill({ contents, unread }: Operand, origin: Origin): void {
    const { device } = this.view;
    if (contents) this.#write(contents);
    else device.fill(this.view, origin);
    for (const ranges of unread) {
      using part = this.view.slice(ranges);
      if (part.size > 0) device.fill(part, { distribution: 'constant', parameters: { value: Number.NaN } });
    }
  }

  /** Dimensions that repeat are written once. */
  #write(contents: NumericData): void {
    const { stride, shape } = this.view;
    using once = this.view.slice(shape.map((size, i) => (stride[i] === 0 ? [0, Math.min(size, 1)] : null)));
    once.write(contents.slice(0, once.size));
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
    const each = isPaired(this.view.dtype) ? 2 : 1;
    const inside = membersOf(this.view, after.length, each);
    for (let i = 0; i < after.length; ++i) {
      if (after[i] === before[i]) continue;
      const within = inside[i] === 1;
      if (within && written) continue;
      if (within)
        return `${name} was modified at element ${each * i - guard} of its memory, expected it only to be read`;
      return `memory outside ${name} was overwritten, ${each * i} elements into a buffer of ${each * after.length} whose first ${guard} are not its own`;
    }
    return undefined;
  }

  dispose(): void {
    this.view.dispose();
    this.#base.dispose();
  }
}

/** Distances between neighbours, as the layout says. */
function strideOf({ shape, layout, repeated }: Operand): number[] {
  const stride = rowMajor(shape);
  const last = shape.length - 1;
  const inside = (order: readonly number[], gap: number) => {
    let step = 1;
    for (const i of order) {
      stride[i] = step;
      step = step * Math.max(shape[i]!, 1) + (gap && (i === last ? gap + 4 : gap));
    }
  };
  // From the innermost dimension outwards.
  const order = shape.map((_, i) => last - i);
  if (layout === 'padded') inside(order, 3);
  else if (layout === 'swapped' && last > 1) inside([last, 0, ...order.slice(1, -1)], 0);
  else if (layout === 'crossed' && last > 1) inside([last, last - 2, last - 1, ...order.slice(3)], 0);
  return stride.map((step, i) => (repeated[i] ? 0 : step));
}

/** A NaN of an unlikely pattern in the floating-point types, so that reading it spreads and writing over it shows. */
function poison(dtype: DType, size: number): RawData {
  if (dtype === 'f32') return new Float32Array(new Uint32Array(size).fill(0x7fc0_beef).buffer);
  if (dtype === 'i32') return new Int32Array(size).fill(0x5555_5555);
  if (bitsOf(dtype) === 16) return new Uint16Array(size).fill(dtype === 'f16' ? 0x7ead : 0x7fcd);
  if (isPaired(dtype)) return new Uint8Array(bytesOf(size, dtype)).fill(0x55);
  if (isInteger(dtype)) return dtype === 'i8' ? new Int8Array(size).fill(0x55) : new Uint8Array(size).fill(0x55);
  return new Uint8Array(size).fill(0x7f);
}

/** The stored bits of raw data. */
const bitsIn = (raw: RawData): ArrayLike<number> =>
  raw instanceof Float32Array ? new Uint32Array(raw.buffer, raw.byteOffset, raw.length) : raw;

/** 1 for every entry of a buffer of `size` that belongs to a view, `each` elements in an entry. */
function membersOf({ shape, stride, nativeView }: Tensor, size: number, each: number): Uint8Array {
  const mask = new Uint8Array(size);
  const visit = (d: number, at: number): void => {
    const step = stride[d]!;
    if (d === shape.length - 1) for (let i = 0; i < shape[d]!; ++i) mask[Math.floor((at + i * step) / each)] = 1;
    else for (let i = 0; i < shape[d]!; ++i) visit(d + 1, at + i * step);
  };
  visit(0, nativeView.offset);
  return mask;
}
