// What the cases of attention_gqa and of attention_gqa_backward have in common.
import type { Case } from '../case.js';
import type { DType } from '../dtype.js';

export const floats = ['f32', 'bf16', 'f16'] as const;
export const two = ['f32', 'bf16'] as const;
export const none = Number.NEGATIVE_INFINITY;
export const layouts = ['padded', 'swapped', 'crossed'] as const;
/** Sizes at and beside the edges of vectors, warps and tiles. */
export const edges = [0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129];

export const base = { batch: 1, lenQ: 21, lenKv: 37, headsQ: 2, headsKv: 1, dim: 32, dimV: 32 };
const groups = { headsQ: 4, headsKv: 2 };
/** Where something happens to scores, where a mask does, padded batches, packed sequences, odd strides, and everything at once. */
export const scoreDims = { ...base, ...groups, batch: 2, lenQ: 70, lenKv: 67 };
export const maskDims = { ...scoreDims, lenKv: 140 };
export const paddedDims = { ...base, batch: 4, lenQ: 66, lenKv: 90 };
export const packedDims = { ...base, ...groups, lenQ: 150, lenKv: 170 };
export const layoutDims = { ...base, ...groups, batch: 2, lenQ: 18, lenKv: 35, dim: 40, dimV: 24 };
export const togetherDims = { batch: 2, lenQ: 67, lenKv: 131, headsQ: 6, headsKv: 2, dim: 80, dimV: 72 };
export const togetherLayout = { q: 'crossed', k: 'padded', v: 'swapped' } as const;

/** Every query sees the key at its own place alone: its value is the result, whatever the score. */
export const own = { windowLeft: 0, windowRight: 0 };
/** The logarithm of a sum is never exact. */
export const exactly = ['y'];
export const qOf = (q: DType) => ({ q });
export const words = (params: NonNullable<Case['params']>): string => Object.entries(params).flat().join(' ');

/** Lengths of padded batches. */
export const lensQ = [66, 1, 0, 33];
export const lensKv = [64, 90, 17, 0];
/** Packed sequences: empty ones, rows that belong to none, and no sequence at all. */
export const packed = {
  'three sequences': { cuQ: [0, 65, 82, 150], cuKv: [0, 65, 100, 170] },
  'empty ones among them': { cuQ: [0, 0, 60, 60, 61, 150], cuKv: [0, 40, 40, 90, 155, 170] },
  'rows of none': { cuQ: [5, 70, 140], cuKv: [3, 90, 160] },
};
export const noSequence = { cuQ: [0], cuKv: [170] };

/** Every input type with each of these heads, for each of these lengths; `more` goes into every case. */
export const headCases = (
  heads: readonly (readonly [number, number])[],
  lengths: readonly (readonly [number, number])[],
  more: Pick<Case, 'values'> = {},
): Case[] =>
  two.flatMap((dtype) =>
    heads.flatMap(([headsQ, headsKv]) =>
      lengths.map(([lenQ, lenKv]) => ({
        name: `${dtype}, ${headsQ} heads of ${headsKv}, ${lenQ} x ${lenKv}`,
        dims: { ...base, batch: 2, lenQ, lenKv, headsQ, headsKv },
        params: { causal: true },
        dtypes: qOf(dtype),
        ...more,
      })),
    ),
  );

/** Causal and windows, each on each of these rectangles. */
export const boundCases = (
  lengths: readonly (readonly [number, number])[],
  bounds: readonly NonNullable<Case['params']>[],
  more: Pick<Case, 'values'> = {},
): Case[] =>
  two.flatMap((dtype) =>
    lengths.flatMap(([lenQ, lenKv]) =>
      bounds.map((params) => ({
        name: `${dtype}, ${lenQ} x ${lenKv}, ${words(params)}`,
        dims: { ...base, lenQ, lenKv },
        params,
        dtypes: qOf(dtype),
        ...more,
      })),
    ),
  );
