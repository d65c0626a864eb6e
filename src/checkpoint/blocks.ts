// GGUF's blocks of 32 neighbours along a row: Q4_0 with a scale d, weight = d (q - 8); Q4_1 with d and a minimum m, weight = d q + m.
// Byte j of a block holds element j in its low half and element j + 16 in its high half. d and m are f16 and stand before the codes.
// Source: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
import type { StoredTensor } from './checkpoint.js';
import { type Int4Weight, type Layer, packZeros } from './int4.js';
import { unshuffleBlocks } from './repack.js';
import { inTurns, type Pieces } from './turns.js';

/** Elements of a block. */
const length = 32;
const layouts = { Q4_0: { bytes: 18, codes: 2 }, Q4_1: { bytes: 20, codes: 4 } } as const;
export type BlockType = keyof typeof layouts;

export const isBlockType = (dtype: string): dtype is BlockType => Object.hasOwn(layouts, dtype);

/** The value of stored f16. */
function half(bits: number): number {
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits >>> 15 ? -1 : 1;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25));
}

const u16 = (bytes: Uint8Array, at: number): number => bytes[at]! | (bytes[at + 1]! << 8);

/** Scales [groups, rows] from blocks [rows, groups], and zero points where every m is d times a whole number from -15 to 0. */
function* readScales(
  bytes: Uint8Array,
  rows: number,
  groups: number,
  type: BlockType,
): Pieces<{ data: Uint16Array; zeros: Uint8Array; inexact: string | undefined }> {
  const data = new Uint16Array(rows * groups);
  const zeros = new Uint8Array(rows * groups).fill(8);
  for (let r = 0; r < rows; ++r) {
    for (let g = 0; g < groups; ++g) {
      const at = (r * groups + g) * layouts[type].bytes;
      data[g * rows + r] = u16(bytes, at);
      if (type === 'Q4_0') continue;
      const d = half(u16(bytes, at));
      const m = half(u16(bytes, at + 2));
      const zero = d === 0 && m === 0 ? 8 : -m / d;
      // Exact in doubles: d and m have 11 bits.
      if (!(zero >= 0 && zero <= 15 && Number.isInteger(zero) && zero * d === -m))
        return { data, zeros, inexact: `d = ${d}, m = ${m} in row ${r}, columns ${g * length} on` };
      zeros[g * rows + r] = zero;
    }
    if (r % 16 === 0) yield;
  }
  return { data, zeros, inexact: undefined };
}

export async function readBlocks(layer: Layer, type: BlockType, signal?: AbortSignal): Promise<Int4Weight> {
  const [rows, k] = layer.matrix(layer.tensor('weight'));
  const groups = k / length;
  const bytes = await layer.bytes('weight');
  const { data, zeros: values, inexact } = await inTurns(readScales(bytes, rows, groups, type), signal);
  if (inexact)
    layer.refuse(
      'UNSUPPORTED',
      'weight',
      `is Q4_1 with ${inexact}: no whole zero point gives that, expected m = -d z; read it with loadTensor(..., { dequantize: 'f32' }) and quantize again`,
    );
  const zeros = await inTurns(packZeros(values), signal);
  const { bytes: stride, codes } = layouts[type];
  const w = await inTurns(unshuffleBlocks(bytes, rows * groups, stride, codes), signal);
  return { w, scales: { data, dtype: 'f16' }, ...zeros, rows, k, group: length, source: layer.source(type) };
}

/** The weights of whole blocks in f32, each rounded once. */
export function* dequantizeBlocks(bytes: Uint8Array, { dtype }: Pick<StoredTensor, 'dtype'>): Pieces<Float32Array> {
  const type = dtype as BlockType;
  const { bytes: stride, codes } = layouts[type];
  const blocks = bytes.length / stride;
  const out = new Float32Array(blocks * length);
  for (let block = 0; block < blocks; ++block) {
    const at = block * stride;
    const d = half(u16(bytes, at));
    // Adding -0 changes nothing, zeros of either sign included.
    const [zero, m] = type === 'Q4_0' ? [8, -0] : [0, half(u16(bytes, at + 2))];
    for (let j = 0; j < 16; ++j) {
      const pair = bytes[at + codes + j]!;
      out[block * length + j] = d * ((pair & 15) - zero) + m;
      out[block * length + 16 + j] = d * ((pair >>> 4) - zero) + m;
    }
    if (block % 2048 === 0) yield;
  }
  return out;
}
