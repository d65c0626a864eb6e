// From the arguments of a call to sizes, parameter values and outputs: every check that does not need the kernel, in one place.
import { type Compiled, type CompiledTensor, type Dim, dimsOf, readDim } from './compile.js';
import { checkContents } from './contents.js';
import type { Device } from './device.js';
import type { DType } from './dtype.js';
import { type Code, KernwattError } from './errors.js';
import { nearest } from './nearest.js';
import { formatShape, isInjective, overlaps, type Shape } from './shape.js';
import { isRequired, isWritten, type OpSpec, type ParamSpec } from './spec.js';
import { Tensor } from './tensor.js';

export interface Solved {
  device: Device;
  /** By name; optional inputs that are absent and outputs still to be allocated are missing. */
  tensors: Record<string, Tensor>;
  params: Record<string, number | boolean | string>;
  dims: Record<string, number>;
  /** Outputs to allocate. */
  missing: { name: string; shape: number[]; dtype: DType }[];
}

/** Sizes by name while they are being found: what only broadcasting dimensions of size 1 have said may still grow. */
class Sizes {
  readonly size: Record<string, number> = {};
  readonly from: Record<string, string> = {};
  /** Names whose size is known, even where it is 1. */
  readonly fixed = new Set<string>();

  bind(where: string, t: CompiledTensor, tensor: Tensor, dims: readonly Dim[]): void {
    const absent = dims.length - tensor.shape.length;
    const output = t.spec.role === 'out';
    for (let i = 0; i < tensor.shape.length; ++i) {
      const { name, text, broadcasts, extra } = dims[i + absent]!;
      const size = tensor.shape[i]! - extra;
      if (size < 0) throw wrongShape(where, t, tensor, dims);
      const one = broadcasts && !output && size === 1;
      const known = this.size[name];
      if (known === undefined || (known === 1 && !output && !this.fixed.has(name))) {
        this.size[name] = size;
        this.from[name] = t.name;
        if (!one) this.fixed.add(name);
      } else if (known !== size && !one) {
        const other = this.from[name];
        const found = `${t.name} has ${name} ${size}, ${other ? `but ${other} has` : 'expected'} ${known}`;
        const either = text.endsWith(' or 1') && known !== 1 ? `; expected ${known} or 1` : '';
        throw new KernwattError('SHAPE', `${where}: ${found}${either}`);
      }
    }
  }
}

const wrongShape = (where: string, t: CompiledTensor, tensor: Tensor, dims: readonly Dim[]): KernwattError =>
  new KernwattError(
    'SHAPE',
    `${where}: ${t.name} is ${formatShape(tensor.shape)}, expected ${formatShape(dims.map(({ text }) => text))}`,
  );

/**
 * Checks the arguments of a call against its declaration.
 * @throws {KernwattError} `ARGUMENT`, `SHAPE`, `DTYPE`, `DISPOSED`; nothing has been allocated or launched then.
 */
export function solve(op: Compiled, args: Readonly<Record<string, unknown>>, dtype?: DType): Solved {
  const where = op.spec.name;
  if (args === null || typeof args !== 'object' || Array.isArray(args))
    throw new KernwattError(
      'ARGUMENT',
      `${where}: arguments are ${String(args)}, expected an object of ${[...op.names].join(', ')}`,
    );
  for (const name of Object.keys(args)) if (!op.names.has(name)) throw unknownName(where, name, op.names);
  const { device, tensors } = collect(op, args);
  const params = readParams(op, args);
  const sizes = bindInputs(op, tensors, params);
  checkDTypes(op, tensors, dtype);
  const given = new Set(op.tensors.filter((t) => t.spec.role === 'in?' && tensors[t.name]).map((t) => t.name));
  computeDefaults(op, params, sizes.size, given);
  const dtypes = Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [name, tensor.dtype]));
  finishSizes(op.spec, sizes.size, params, given, dtypes);
  bindRest(op, tensors, params, sizes);
  for (const t of op.tensors) if (tensors[t.name]) checkStride(where, t.name, tensors[t.name]!);
  checkOverlap(op, tensors);
  checkContents(op, tensors, sizes.size);
  return { device, tensors, params, dims: sizes.size, missing: missingOutputs(op, tensors, sizes.size, dtype) };
}

/**
 * Derived sizes and rules, from sizes alone: also how random cases learn that they are impossible. A size that only absent
 * inputs have is 0.
 */
export function finishSizes(
  spec: OpSpec,
  size: Record<string, number>,
  params: Solved['params'],
  given: ReadonlySet<string>,
  dtypes: Readonly<Record<string, DType>>,
): void {
  for (const [name, { role, dims }] of Object.entries(spec.tensors))
    for (const dim of dims.map(readDim))
      if (dim.text.endsWith('?')) size[dim.name] ??= 1;
      else if (role === 'in?' && !given.has(name)) size[dim.name] ??= 0;
  for (const [name, derive] of Object.entries(spec.derive ?? {})) size[name] = derive(size, params);
  for (const rule of spec.rules?.(size, params, given, dtypes) ?? [])
    if (rule) throw new KernwattError(rule[0], `${spec.name}: ${rule[1]}`);
}

export function unknownName(where: string, name: string, names: Iterable<string>): KernwattError {
  const guess = nearest(name, names);
  const rest = guess ? `did you mean ${guess}?` : `expected ${[...names].join(', ')}`;
  return new KernwattError('ARGUMENT', `${where}: ${name} is not an argument; ${rest}`);
}

function collect(
  op: Compiled,
  args: Readonly<Record<string, unknown>>,
): { device: Device; tensors: Record<string, Tensor> } {
  const where = op.spec.name;
  const tensors: Record<string, Tensor> = {};
  let first: { name: string; tensor: Tensor } | undefined;
  for (const { name, spec } of op.tensors) {
    const tensor = args[name];
    if (tensor === undefined) {
      if (isRequired(spec)) throw new KernwattError('ARGUMENT', `${where}: ${name} is missing, expected a tensor`);
      continue;
    }
    if (!(tensor instanceof Tensor))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} is ${kindOf(tensor)}, expected a tensor; device.tensor() makes one`,
      );
    tensor.check(where, name);
    first ??= { name, tensor };
    if (tensor.device !== first.tensor.device) throw elsewhere(where, name, tensor, first);
    tensors[name] = tensor;
  }
  if (!first) throw new KernwattError('INTERNAL', `${where}: declares no input that must be given`);
  return { device: first.tensor.device, tensors };
}

/** Two devices bear one name when it was opened twice. */
function elsewhere(
  where: string,
  name: string,
  tensor: Tensor,
  first: { name: string; tensor: Tensor },
): KernwattError {
  const [here, there] = [tensor.device.name, first.tensor.device.name];
  const which =
    here === there
      ? `on ${here} as opened another time than for ${first.name}`
      : `on ${here}, but ${first.name} is on ${there}`;
  return new KernwattError('ARGUMENT', `${where}: ${name} is ${which}, expected one device`);
}

/** A value in a message. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (typeof value !== 'object') return typeof value === 'string' ? JSON.stringify(value) : String(value);
  return `a ${value.constructor?.name ?? 'object'}`;
}

/** Given values, checked, and the defaults that are constants. */
function readParams(op: Compiled, args: Readonly<Record<string, unknown>>): Solved['params'] {
  const params: Solved['params'] = {};
  for (const { name, spec } of op.params) {
    const value = args[name];
    if (value !== undefined) params[name] = checkParam(op.spec.name, name, spec, value);
    else if (spec.required)
      throw new KernwattError('ARGUMENT', `${op.spec.name}: ${name} is missing, expected ${wanted(spec)}`);
    else if (typeof spec.default !== 'function') params[name] = spec.default as number;
  }
  return params;
}

function computeDefaults(
  op: Compiled,
  params: Solved['params'],
  size: Record<string, number>,
  given: ReadonlySet<string>,
): void {
  for (const { name, spec } of op.params)
    if (params[name] === undefined && typeof spec.default === 'function') params[name] = spec.default(size, given);
}

function checkParam(where: string, name: string, spec: ParamSpec, value: unknown): number | boolean | string {
  const [low, high] = spec.range ?? [];
  const right =
    spec.kind === 'f32'
      ? typeof value === 'number' && Number.isFinite(Math.fround(value))
      : spec.kind === 'bool'
        ? typeof value === 'boolean'
        : spec.kind === 'choice'
          ? spec.choices!.includes(value as string)
          : Number.isSafeInteger(value) && (value as number) >= low! && (value as number) <= high!;
  if (!right) throw new KernwattError('ARGUMENT', `${where}: ${name} is ${kindOf(value)}, expected ${wanted(spec)}`);
  return value as number | boolean | string;
}

function wanted(spec: ParamSpec): string {
  if (spec.kind === 'f32') return 'a finite number in the range of f32';
  if (spec.kind === 'bool') return 'true or false';
  if (spec.kind === 'choice') return `one of ${spec.choices!.join(', ')}`;
  return `a whole number from ${spec.range![0]} to ${spec.range![1]}`;
}

/** First pass: inputs whose sizes are their own. */
function bindInputs(op: Compiled, tensors: Record<string, Tensor>, params: Solved['params']): Sizes {
  const sizes = new Sizes();
  const derived = op.spec.derive ?? {};
  for (const t of op.tensors) {
    const tensor = tensors[t.name];
    if (!tensor) continue;
    const dims = dimsOf(t, params);
    const absent = dims.length - tensor.shape.length;
    if (absent !== 0 && !(absent === 1 && t.optional)) throw wrongShape(op.spec.name, t, tensor, dims);
    if (t.spec.role !== 'out' && !dims.some((d) => d.name in derived)) sizes.bind(op.spec.name, t, tensor, dims);
  }
  return sizes;
}

/** Second pass: outputs, and inputs with derived sizes. */
function bindRest(op: Compiled, tensors: Record<string, Tensor>, params: Solved['params'], sizes: Sizes): void {
  const derived = op.spec.derive ?? {};
  for (const name of Object.keys(derived)) sizes.fixed.add(name);
  for (const outputs of [false, true])
    for (const t of op.tensors) {
      const tensor = tensors[t.name];
      if (!tensor || (t.spec.role === 'out') !== outputs) continue;
      const dims = dimsOf(t, params);
      const fromInputs = dims.some((d) => d.name in derived);
      if (!outputs && !fromInputs) continue;
      sizes.bind(op.spec.name, t, tensor, dims);
      const lead = dims[0]!.name;
      if (outputs && tensor.shape.length < dims.length && sizes.size[lead] !== 1)
        throw new KernwattError(
          'SHAPE',
          `${op.spec.name}: ${t.name} is ${formatShape(tensor.shape)}, expected ${lead} ${sizes.size[lead]} before it`,
        );
    }
}

function checkDTypes(op: Compiled, tensors: Record<string, Tensor>, dtype: DType | undefined): void {
  for (const { name, spec } of op.tensors) {
    const tensor = tensors[name];
    if (!tensor) continue;
    if ('like' in spec.dtype) {
      const other = tensors[spec.dtype.like];
      const { like, or = [] } = spec.dtype;
      if (other && other.dtype !== tensor.dtype && !or.includes(tensor.dtype))
        throw new KernwattError(
          'DTYPE',
          `${op.spec.name}: ${name} is ${tensor.dtype}, but ${like} is ${other.dtype}${or.length > 0 ? `, expected that or ${either(or)}` : ''}`,
        );
    } else if (!spec.dtype.includes(tensor.dtype)) {
      const reserved = spec.reserved?.includes(tensor.dtype);
      throw new KernwattError(
        reserved ? 'UNSUPPORTED' : 'DTYPE',
        `${op.spec.name}: ${name} is ${tensor.dtype}${reserved ? ', for which there is no kernel yet' : ''}, expected ${either(spec.dtype)}`,
      );
    }
    if (spec.role === 'out' && spec.from && dtype !== undefined && tensor.dtype !== dtype)
      throw new KernwattError('DTYPE', `${op.spec.name}: ${name} is ${tensor.dtype}, but options.dtype is ${dtype}`);
  }
}

export const either = (names: readonly string[]): string =>
  names.length < 2 ? names.join() : `${names.slice(0, -1).join(', ')} or ${names.at(-1)}`;

function checkStride(where: string, name: string, tensor: Tensor): void {
  const last = tensor.shape.length - 1;
  if (tensor.shape[last]! > 1 && tensor.stride[last] !== 1 && tensor.size > 0)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: ${name} has stride ${tensor.stride[last]} in its last dimension, expected 1; use contiguous()`,
    );
}

/** What is written must have memory of its own, except where the declaration lets one take over an input as it is. */
export function checkOverlap(op: Compiled, tensors: Record<string, Tensor>): void {
  const where = op.spec.name;
  for (const { name, spec } of op.tensors) {
    if (!isWritten(spec)) continue;
    const out = tensors[name];
    if (!out) continue;
    out.checkOwn(where, name);
    if (!isInjective(out.shape, out.stride))
      throw new KernwattError(
        'ARGUMENT',
        `${where}: ${name} repeats elements (strides ${formatShape(out.stride)}), expected one without stride 0`,
      );
    for (const { name: other, spec: otherSpec } of op.tensors) {
      const tensor = tensors[other];
      if (!tensor || other === name || !overlaps(out.region, tensor.region)) continue;
      const allowed = spec.inPlace?.includes(other) ?? false;
      if (allowed && sameView(out, tensor)) continue;
      const exact = allowed ? ` or exactly the same view as ${other}` : '';
      if (!isWritten(otherSpec) || other > name)
        throw new KernwattError(
          'ARGUMENT',
          `${where}: ${name} overlaps ${other} in memory, expected separate tensors${exact}`,
        );
    }
  }
}

const sameView = (a: Tensor, b: Tensor): boolean =>
  a.dtype === b.dtype && a.region.start === b.region.start && same(a.shape, b.shape) && same(a.stride, b.stride);
export const same = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((n, i) => n === b[i]);

function missingOutputs(
  op: Compiled,
  tensors: Record<string, Tensor>,
  size: Record<string, number>,
  dtype: DType | undefined,
): Solved['missing'] {
  const missing: Solved['missing'] = [];
  const batched = op.tensors.some((t) => t.optional && tensors[t.name]?.shape.length === t.dims.length);
  for (const { name, spec, dims, optional } of op.tensors) {
    if (spec.role !== 'out' || tensors[name]) continue;
    const type = spec.from ? (dtype ?? tensors[spec.from]!.dtype) : (spec.dtype as readonly DType[])[0]!;
    if (!('like' in spec.dtype) && !spec.dtype.includes(type))
      throw new KernwattError(
        'DTYPE',
        `${op.spec.name}: options.dtype is ${type}, expected ${either(spec.dtype)} for ${name}`,
      );
    const shape = (optional && !batched ? dims.slice(1) : dims).map((d) => size[d.name]! + d.extra);
    missing.push({ name, shape, dtype: type });
  }
  return missing;
}

/** The argument object of the addon: C++ names, raw views, choices by number. */
export function nativeArgs(
  op: Compiled,
  tensors: Readonly<Record<string, Tensor>>,
  params: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const args: Record<string, unknown> = {};
  for (const t of op.tensors) args[t.native] = tensors[t.name]?.nativeView;
  for (const { name, native, spec } of op.params)
    args[native] = spec.kind === 'choice' ? spec.choices!.indexOf(params[name] as string) : params[name];
  return args;
}

/** Codes that a rule may use, for declarations. */
export type RuleCode = Extract<Code, 'SHAPE' | 'DTYPE' | 'ARGUMENT' | 'UNSUPPORTED'>;
