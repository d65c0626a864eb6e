// Moving 4-bit elements from the arrangements of checkpoints into ours: a row of w is k elements, two to a byte, the even one low
// (kernels/gemm_int4/gemm_int4.h). In 32-bit words, little-endian, that is eight neighbours along k, the first in the lowest bits.
import type { Pieces } from './turns.js';

/** Rows and words that are done together, so that both sides of a transposition stay in the first-level cache: a line of each. */
const tile = 16;

/** Words of the source: where word `a` of a row, eight elements along k, lies for row `r`: `r * row + a * word`. */
interface Strides {
  row: number;
  word: number;
}

/** [k / 8, rows] to [rows, k / 8]: the words of GPTQ are ours, transposed. */
export function* transposeWords(source: Uint32Array, words: number, rows: number): Pieces<Uint32Array> {
  const out = new Uint32Array(source.length);
  for (let r0 = 0; r0 < rows; r0 += tile) {
    const r1 = Math.min(r0 + tile, rows);
    for (let a0 = 0; a0 < words; a0 += tile) {
      const a1 = Math.min(a0 + tile, words);
      for (let r = r0; r < r1; ++r) for (let a = a0; a < a1; ++a) out[r * words + a] = source[a * rows + r]!;
    }
    yield;
  }
  return out;
}

/** Columns in the order of `perm`, out of words along k. */
export function* gatherColumns(
  source: Uint32Array,
  { row, word }: Strides,
  words: number,
  rows: number,
  perm: Int32Array,
): Pieces<Uint32Array> {
  const out = new Uint32Array(words * rows);
  for (let r0 = 0; r0 < rows; r0 += tile) {
    const r1 = Math.min(r0 + tile, rows);
    for (let a = 0; a < words; ++a)
      for (let i = 0; i < 8; ++i) {
        const column = perm[8 * a + i]!;
        const from = (column >>> 3) * word;
        const down = 4 * (column & 7);
        const up = 4 * i;
        for (let r = r0; r < r1; ++r) out[r * words + a]! |= ((source[r * row + from]! >>> down) & 15) << up;
      }
    yield;
  }
  return out;
}

/** Nibbles of a word in the order of their elements: GPTQ, compressed-tensors. */
export const inOrder = [0, 1, 2, 3, 4, 5, 6, 7] as const;

/** Which of eight rows nibble j of a word of AWQ belongs to. */
export const awqOrder = [0, 2, 4, 6, 1, 3, 5, 7] as const;

/** AWQ's [k, rows / 8], eight rows to a word, to [rows, k / 8]: squares of 8 by 8 nibbles, transposed in three steps of halves. */
export function* transposeNibbles(source: Uint32Array, words: number, rows: number): Pieces<Uint32Array> {
  const out = new Uint32Array(source.length);
  const eighths = rows / 8;
  const x = new Uint32Array(8);
  for (let b0 = 0; b0 < eighths; b0 += tile) {
    const b1 = Math.min(b0 + tile, eighths);
    for (let a0 = 0; a0 < words; a0 += tile) {
      const a1 = Math.min(a0 + tile, words);
      for (let b = b0; b < b1; ++b)
        for (let a = a0; a < a1; ++a) {
          for (let i = 0; i < 8; ++i) x[i] = source[(8 * a + i) * eighths + b]!;
          for (let i = 0; i < 4; ++i) swapHalves(x, i, i + 4, 16, 0x0000ffff);
          for (let i = 0; i < 8; i += i & 1 ? 3 : 1) swapHalves(x, i, i + 2, 8, 0x00ff00ff);
          for (let i = 0; i < 8; i += 2) swapHalves(x, i, i + 1, 4, 0x0f0f0f0f);
          for (let j = 0; j < 8; ++j) out[(8 * b + awqOrder[j]!) * words + a] = x[j]!;
        }
    }
    yield;
  }
  return out;
}

/** The upper halves of x[i]'s fields change places with the lower halves of x[j]'s. */
function swapHalves(x: Uint32Array, i: number, j: number, shift: number, mask: number): void {
  const t = ((x[i]! >>> shift) ^ x[j]!) & mask;
  x[j]! ^= t;
  x[i]! ^= t << shift;
}

/** [rows, columns] to [columns, rows]: scales and zero points that lie beside their rows. */
export function* transposed<T extends Uint16Array | Float32Array | Uint8Array>(
  source: T,
  rows: number,
  columns: number,
): Pieces<T> {
  const out = new (source.constructor as new (length: number) => T)(source.length);
  for (let r = 0; r < rows; ++r) {
    for (let c = 0; c < columns; ++c) out[c * rows + r] = source[r * columns + c]!;
    if (r % tile === 0) yield;
  }
  return out;
}

/** Nibble i of word w is element 8 w + i of `order`'s numbering: bytes of one element each. */
export function* unpackWords(source: Uint32Array, order: readonly number[]): Pieces<Uint8Array> {
  const out = new Uint8Array(8 * source.length);
  for (let w = 0; w < source.length; ++w) {
    for (let i = 0; i < 8; ++i) out[8 * w + order[i]!] = (source[w]! >>> (4 * i)) & 15;
    if (w % 4096 === 0) yield;
  }
  return out;
}

/** Bytes of one element each, two to a byte. */
export function* packPairs(values: Uint8Array): Pieces<Uint8Array> {
  const out = new Uint8Array(Math.ceil(values.length / 2));
  for (let i = 0; i < values.length; ++i) {
    out[i >>> 1]! |= values[i]! << (4 * (i & 1));
    if (i % 32768 === 0) yield;
  }
  return out;
}

/**
 * Blocks of 32 elements of GGUF, [rows, groups]: sixteen bytes at `data` of every `stride`, byte j with element j low and j + 16 high.
 */
export function* unshuffleBlocks(source: Uint8Array, blocks: number, stride: number, data: number): Pieces<Uint8Array> {
  const out = new Uint8Array(16 * blocks);
  for (let block = 0, to = 0; block < blocks; ++block, to += 16) {
    const from = block * stride + data;
    for (let i = 0; i < 8; ++i) {
      const even = source[from + 2 * i]!;
      const odd = source[from + 2 * i + 1]!;
      out[to + i] = (even & 15) | (odd << 4);
      out[to + 8 + i] = (even >>> 4) | (odd & 0xf0);
    }
    if (block % 4096 === 0) yield;
  }
  return out;
}

/**
 * Activation order: the columns sorted by group, those of a group as they come; null where they are sorted already.
 * @returns a sentence where some group does not have `k / groups` columns.
 */
export function sortColumns(groupOf: Int32Array, groups: number): Int32Array | null | string {
  const size = groupOf.length / groups;
  const next = Int32Array.from({ length: groups }, (_, g) => g * size);
  const perm = new Int32Array(groupOf.length);
  let sorted = true;
  for (let column = 0; column < groupOf.length; ++column) {
    const g = groupOf[column]!;
    if (!(g >= 0 && g < groups)) return `is ${g} for column ${column}, expected 0 to ${groups - 1}`;
    const at = next[g]!++;
    if (at >= (g + 1) * size) return `has more than ${size} columns in group ${g}, expected ${size} in every group`;
    perm[at] = column;
    sorted &&= at === column;
  }
  return sorted ? null : perm;
}
