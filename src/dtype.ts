// Element types: their names in wire order (kernels/core/tensor.h), their sizes, and the typed arrays that carry them.
import { KernwattError } from './errors.js';

export const dtypes = [
  'f32',
  'f16',
  'bf16',
  'f8e4m3',
  'f8e5m2',
  'i32',
  'i8',
  'u8',
  'i4',
  'u4',
  'nf4',
  'mxfp4',
] as const;
/**
 * Element type of a tensor. Of the 4-bit types, `u4` and `i4` hold whole numbers and `nf4` the codes 0 to 15 of QLoRA's sixteen values;
 * two elements lie in a byte, the even one in the low half. `mxfp4` is reserved.
 */
export type DType = (typeof dtypes)[number];

const bits: Record<DType, number> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  f8e4m3: 8,
  f8e5m2: 8,
  i32: 32,
  i8: 8,
  u8: 8,
  i4: 4,
  u4: 4,
  nf4: 4,
  mxfp4: 4,
};

/** Bits of one element. */
export const bitsOf = (dtype: DType): number => bits[dtype];
/** Bytes of so many elements without gaps; of an odd number of 4-bit ones, the last half byte is nobody's. */
export const bytesOf = (elements: number, dtype: DType): number => Math.ceil((elements * bits[dtype]) / 8);
/** Whether two elements lie in a byte. */
export const isPaired = (dtype: DType): boolean => bits[dtype] === 4;
/** Index of a dtype in the addon's list. */
export const dtypeIndex = (dtype: DType): number => dtypes.indexOf(dtype);
/** Whether elements are whole numbers to the host, as those of `nf4`, which are codes. */
export const isInteger = (dtype: DType): boolean => ranges[dtype] !== undefined;

/** Numbers as a caller may hand them over: typed arrays, or a flat list. */
export type NumericData =
  | Float32Array
  | Float64Array
  | Int32Array
  | Int8Array
  | Uint8Array
  | Uint16Array
  | readonly number[];

/** What `read()` returns: floating-point types widened to f32, integers as they are (of 4 bits: an `Int8Array`). */
export type TensorData = Float32Array | Int32Array | Int8Array | Uint8Array;
/** What `read({ raw: true })` returns: the stored bits. */
export type RawData = Float32Array | Uint16Array | Int32Array | Int8Array | Uint8Array;

const float16 = (globalThis as { Float16Array?: new (length: number) => ArrayBufferView }).Float16Array;
const isFloat16Array = (data: unknown): data is ArrayBufferView & { length: number } =>
  float16 !== undefined && data instanceof float16;

/** The dtype an array has by itself; undefined where it has none (`Uint16Array` may hold f16 or bf16). */
function dtypeOfArray(data: unknown): DType | undefined {
  if (data instanceof Float32Array || data instanceof Float64Array || Array.isArray(data)) return 'f32';
  if (data instanceof Int32Array) return 'i32';
  if (data instanceof Int8Array) return 'i8';
  if (data instanceof Uint8Array) return 'u8';
  return isFloat16Array(data) ? 'f16' : undefined;
}

/** Throws unless `data` is a typed array or a list that can fill a tensor. */
export function checkData(where: string, data: unknown): asserts data is NumericData {
  if (dtypeOfArray(data) === undefined && !(data instanceof Uint16Array))
    throw new KernwattError(
      'ARGUMENT',
      `${where}: data is ${data === null ? 'null' : typeof data === 'object' ? `a ${data.constructor?.name}` : typeof data}, ` +
        'expected an array of numbers or a typed array of up to 64-bit floats or 32-bit integers',
    );
  if (!Array.isArray(data)) return;
  const bad = data.findIndex((v) => typeof v !== 'number');
  if (bad >= 0)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: data[${bad}] is ${Array.isArray(data[bad]) ? 'a list' : String(data[bad])}, expected a flat list of numbers`,
    );
}

/** The dtype of checked data that come without one. */
export function ownDType(where: string, data: NumericData): DType {
  const own = dtypeOfArray(data);
  if (own === undefined)
    throw new KernwattError('DTYPE', `${where}: dtype is missing, expected f16 or bf16 for a Uint16Array`);
  return own;
}

/** The dtype whose stored bits an array holds as it is, without conversion. */
export function storedAs(
  where: string,
  data: unknown,
  dtype?: DType | undefined,
): { own: DType; memory: ArrayBufferView } {
  checkData(where, data);
  if (data instanceof Uint16Array && (dtype === 'f16' || dtype === 'bf16')) return { own: dtype, memory: data };
  if (dtype !== undefined && isStoredPairs(data, dtype)) return { own: dtype, memory: data };
  const own = ownDType(where, data);
  if (!ArrayBuffer.isView(data) || data instanceof Float64Array)
    throw new KernwattError(
      'DTYPE',
      `${where}: data is ${data instanceof Float64Array ? 'f64' : 'a plain array'}, expected a typed array of a tensor's element type`,
    );
  if (dtype !== undefined && dtype !== own)
    throw new KernwattError('DTYPE', `${where}: dtype is ${dtype}, expected ${own} as the array holds`);
  if (!isFloat16Array(data)) return { own, memory: data };
  return { own, memory: new Uint16Array(data.buffer, data.byteOffset, data.length) };
}

/** Whether an array holds 4-bit elements as they are stored, two to an entry. */
const isStoredPairs = (data: unknown, dtype: DType): data is Uint8Array =>
  isPaired(dtype) && data instanceof Uint8Array;
/** Elements that checked data hold for a dtype. */
export const elementsIn = (data: NumericData, dtype: DType): number =>
  isStoredPairs(data, dtype) ? 2 * data.length : data.length;
/** Entries that data have for so many elements of a dtype. */
export const entriesOf = (elements: number, data: NumericData, dtype: DType): number =>
  isStoredPairs(data, dtype) ? bytesOf(elements, dtype) : elements;

/** A new array for `read`. */
export function arrayFor(dtype: DType, size: number, raw: boolean): TensorData | RawData {
  switch (dtype) {
    case 'i4':
    case 'u4':
    case 'nf4':
      return raw ? new Uint8Array(bytesOf(size, dtype)) : new Int8Array(size);
    case 'i32':
      return new Int32Array(size);
    case 'i8':
      return new Int8Array(size);
    case 'u8':
      return new Uint8Array(size);
    case 'f16':
    case 'bf16':
      return raw ? new Uint16Array(size) : new Float32Array(size);
    case 'f8e4m3':
    case 'f8e5m2':
      return raw ? new Uint8Array(size) : new Float32Array(size);
    default:
      return new Float32Array(size);
  }
}

/** The elements of a dtype as they are stored, in memory that is there. */
export function storedArray(dtype: DType, buffer: ArrayBuffer): RawData {
  const kind = arrayFor(dtype, 0, true).constructor as new (buffer: ArrayBuffer) => RawData;
  return new kind(buffer);
}

/** Throws unless `dtype` names an element type that a plain tensor can hold. */
export function checkDType(where: string, dtype: unknown): asserts dtype is DType {
  if (!dtypes.includes(dtype as DType))
    throw new KernwattError('DTYPE', `${where}: dtype is ${String(dtype)}, expected one of ${dtypes.join(', ')}`);
  if (dtype === 'mxfp4')
    throw new KernwattError('UNSUPPORTED', `${where}: dtype is mxfp4, expected another: it is reserved`);
}

/**
 * Data in the form the addon converts from, and whether its elements are already the stored bits.
 * Plain numbers and f64 go through f32 first; integer types take only whole numbers in their range. A `Uint8Array` holds 4-bit elements
 * as they are stored.
 */
export function encode(where: string, data: NumericData, dtype: DType): { data: ArrayBufferView; raw: boolean } {
  if (isStoredPairs(data, dtype)) return { data, raw: true };
  if (isFloat16Array(data) && !isPaired(dtype)) {
    const { buffer, byteOffset, length } = data as ArrayBufferView & { length: number };
    if (dtype === 'f16') return { data: new Uint16Array(buffer, byteOffset, length), raw: true };
    return { data: Float32Array.from(data as unknown as ArrayLike<number>), raw: false };
  }
  if (data instanceof Uint16Array) {
    if (dtype === 'f16' || dtype === 'bf16') return { data, raw: true };
    throw new KernwattError(
      'DTYPE',
      `${where}: data is a Uint16Array (stored f16 or bf16), expected data for ${dtype}`,
    );
  }
  if (isInteger(dtype)) return { data: integers(where, data, dtype), raw: true };
  if (data instanceof Uint8Array && bits[dtype] === 8) return { data, raw: true };
  return { data: data instanceof Float32Array ? data : Float32Array.from(data), raw: false };
}

const ranges: Partial<Record<DType, readonly [number, number]>> = {
  i32: [-(2 ** 31), 2 ** 31 - 1],
  i8: [-128, 127],
  u8: [0, 255],
  i4: [-8, 7],
  u4: [0, 15],
  nf4: [0, 15],
};
/** Smallest and largest whole number of an integer type; of the others, those that doubles hold exactly. */
export const integerRange = (dtype: DType): readonly [low: number, high: number] =>
  ranges[dtype] ?? [-Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER];

function integers(where: string, data: Exclude<NumericData, Uint16Array>, dtype: DType): ArrayBufferView {
  if (dtypeOfArray(data) === dtype) return data as ArrayBufferView;
  const [low, high] = integerRange(dtype);
  const bad = (data as readonly number[]).findIndex((v) => !Number.isInteger(v) || v < low || v > high);
  if (bad >= 0)
    throw new KernwattError(
      'ARGUMENT',
      `${where}: data[${bad}] is ${data[bad]}, expected a whole number from ${low} to ${high} for ${dtype}`,
    );
  const out = arrayFor(dtype, data.length, true);
  if (isPaired(dtype)) for (let i = 0; i < data.length; ++i) out[i >> 1]! |= (data[i]! & 15) << (4 * (i & 1));
  else out.set(data);
  return out;
}
