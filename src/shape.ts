// Geometry of strided views, free of memory: sizes, strides, slicing, and whether two views can touch the same element.
import { bitsOf, type DType, entriesOf, type NumericData } from './dtype.js';
import { KernwattError } from './errors.js';

export type Shape = readonly number[];
/** Most dimensions a tensor may have (kernels/core/tensor.h). */
export const maxRank = 8;

export const formatShape = (shape: readonly (number | string)[]): string => `[${shape.join(', ')}]`;

/** Strides of a row-major tensor, in elements. */
export function rowMajor(shape: Shape): number[] {
  const stride = new Array<number>(shape.length);
  let step = 1;
  for (let i = shape.length - 1; i >= 0; --i) {
    stride[i] = step;
    step *= Math.max(shape[i]!, 1);
  }
  return stride;
}

export function isRowMajor(shape: Shape, stride: Shape): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; --i) {
    if (shape[i] !== 1 && stride[i] !== step) return shape.includes(0);
    step *= shape[i]!;
  }
  return true;
}

/** Checks a shape given by a caller and returns its number of elements. */
export function countElements(where: string, shape: Shape, dtype: DType): number {
  if (!Array.isArray(shape)) throw new KernwattError('SHAPE', `${where}: shape is ${String(shape)}, expected an array`);
  if (shape.length < 1 || shape.length > maxRank)
    throw new KernwattError('SHAPE', `${where}: shape is ${formatShape(shape)}, expected 1 to ${maxRank} dimensions`);
  for (const size of shape)
    if (!Number.isSafeInteger(size) || size < 0)
      throw new KernwattError('SHAPE', `${where}: shape is ${formatShape(shape)}, expected whole sizes of 0 or more`);
  if (shape.includes(0)) return 0;
  const count = shape.reduce((a, b) => a * b, 1);
  if (count * Math.max(1, bitsOf(dtype) / 8) > Number.MAX_SAFE_INTEGER)
    throw new KernwattError(
      'SHAPE',
      `${where}: shape is ${formatShape(shape)} of ${dtype}, expected at most 2^53 - 1 bytes`,
    );
  return count;
}

/** Throws `SHAPE` unless data have as many elements as a shape. */
export function checkLength(where: string, data: NumericData, shape: Shape, size: number, dtype: DType): void {
  const entries = entriesOf(size, data, dtype);
  if (data.length === entries) return;
  const what = entries === size ? 'elements' : 'bytes';
  throw new KernwattError(
    'SHAPE',
    `${where}: data has ${data.length} ${what}, expected ${entries} for ${formatShape(shape)}`,
  );
}

/** One past the highest element a view reaches, counted from its first; 0 when it is empty. */
export function extent(shape: Shape, stride: Shape): number {
  let last = 0;
  for (let i = 0; i < shape.length; ++i) {
    if (shape[i] === 0) return 0;
    last += (shape[i]! - 1) * stride[i]!;
  }
  return last + 1;
}

/** True when every index of the view has an element of its own. Views made by slicing and permuting do. */
export function isInjective(shape: Shape, stride: Shape): boolean {
  if (shape.includes(0)) return true;
  const dims = shape.map((size, i) => ({ size, step: stride[i]! })).filter((d) => d.size > 1);
  dims.sort((a, b) => a.step - b.step);
  let reach = 1;
  for (const { size, step } of dims) {
    if (step < reach) return false;
    reach += (size - 1) * step;
  }
  return true;
}

/** Where a view lies in memory: bytes from the start of `base`, which is the same object for memory that is shared. */
export interface Region {
  base: object;
  /** Byte offset of the first element. */
  start: number;
  itemBytes: number;
  shape: Shape;
  stride: Shape;
}

/**
 * Whether two regions may share a byte. Never false when they do; exact when both are runs repeated at multiples of a
 * common pitch, as columns, heads or batches cut out of one tensor are.
 */
export function overlaps(a: Region, b: Region): boolean {
  if (a.base !== b.base) return false;
  const aEnd = a.start + extent(a.shape, a.stride) * a.itemBytes;
  const bEnd = b.start + extent(b.shape, b.stride) * b.itemBytes;
  if (aEnd === a.start || bEnd === b.start || aEnd <= b.start || bEnd <= a.start) return false;
  const runA = runs(a);
  const runB = runs(b);
  const pitch = gcd(runA.pitch, runB.pitch);
  if (pitch === 0 || runA.bytes > pitch || runB.bytes > pitch) return true;
  // Every byte of a region lies, modulo the pitch, in one arc of a circle: disjoint arcs cannot share a byte.
  const gap = mod(b.start - a.start, pitch);
  return gap < runA.bytes || gap + runB.bytes > pitch;
}

/** The longest contiguous run at the end of a view, and the greatest common divisor of the remaining strides, in bytes. */
function runs({ shape, stride, itemBytes }: Region): { bytes: number; pitch: number } {
  const dims = shape.map((size, i) => ({ size, step: stride[i]! })).filter((d) => d.size > 1);
  dims.sort((a, b) => a.step - b.step);
  let run = 1;
  let pitch = 0;
  for (const { size, step } of dims) {
    if (pitch === 0 && step === run) run *= size;
    else pitch = gcd(pitch, step);
  }
  return { bytes: run * itemBytes, pitch: pitch * itemBytes };
}

const mod = (a: number, m: number): number => ((a % m) + m) % m;
function gcd(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b];
  return a;
}

/** All of a dimension (`null`), one index of it (the dimension goes), or `[start, end, step = 1]`; negative counts from the end. */
export type SliceRange = null | number | readonly [start: number, end: number, step?: number];

/** What `ranges` pick of a tensor: where it begins, in elements, and how it lies. Throws `SHAPE` when a range leaves the tensor. */
export function sliceLayout(
  where: string,
  tensor: { readonly shape: Shape; readonly stride: Shape },
  ranges: readonly SliceRange[],
): { offset: number; shape: number[]; stride: number[] } {
  if (ranges.length > tensor.shape.length)
    throw new KernwattError(
      'SHAPE',
      `${where}: ${ranges.length} ranges given, expected at most ${tensor.shape.length} for ${formatShape(tensor.shape)}`,
    );
  let offset = 0;
  const shape: number[] = [];
  const stride: number[] = [];
  tensor.shape.forEach((size, i) => {
    const range = ranges[i] ?? null;
    const [start, end, step] =
      range === null
        ? [0, size, 1]
        : typeof range === 'number'
          ? [range, range + 1 || size, 1]
          : [range[0], range[1], range[2] ?? 1];
    const from = start < 0 ? start + size : start;
    const to = end < 0 ? end + size : end;
    const whole = Number.isInteger(from) && Number.isInteger(to) && Number.isInteger(step);
    if (!whole || from < 0 || to > size || from > to || step < 1)
      throw new KernwattError(
        'SHAPE',
        `${where}: range ${i} is ${JSON.stringify(range)}, expected one within 0 to ${size}`,
      );
    offset += from * tensor.stride[i]!;
    if (typeof range === 'number') return;
    shape.push(Math.ceil((to - from) / step));
    stride.push(tensor.stride[i]! * step);
  });
  if (shape.length === 0) {
    shape.push(1);
    stride.push(1);
  }
  return { offset, shape, stride };
}

/** Elements that have memory of their own: a repeated dimension (stride 0) counts once. */
export function distinctElements(shape: Shape, stride: Shape): number {
  return shape.reduce((count, n, i) => count * (stride[i] === 0 ? Math.min(n, 1) : n), 1);
}
