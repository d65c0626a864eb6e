// What attention_gqa and attention_gqa_backward declare alike: tensors, parameters, rules on sizes, and the cost of a call.
import type { RuleCode } from '../solve.js';
import { f32, flag, type Given, input, integer, optionalInput } from '../spec.js';
import { type Bounds, keysRead, visiblePairs } from './attention_gqa.work.js';

/** Sizes with a kernel of their own. */
const compiled = [32, 64, 96, 128, 192, 256];
const most = Math.max(...compiled);
export const noBound = [-1, 2 ** 31 - 1] as const;
const block = [1, 2 ** 31 - 1] as const;
/** What random cases use. */
export const bounds = [-1, 0, 1, 7, 31, 32, 63, 64, 65, 100, 300];
const blocks = [1, 1, 1, 2, 3, 7, 16, 32, 64, 65, 128, 1000];

export const floats = ['f32', 'bf16', 'f16'] as const;
export const f32s = ['f32'] as const;
export const i32s = ['i32'] as const;

export const operands = {
  /** Queries, `[batch, lenQ, headsQ, dim]`. */
  q: input(['batch', 'lenQ', 'headsQ', 'dim'], { dtype: floats }),
  /** Keys, `[batch, lenKv, headsKv, dim]`; the dtype of `q`. */
  k: input(['batch', 'lenKv', 'headsKv', 'dim'], { dtype: { like: 'q' } }),
  /** Values, `[batch, lenKv, headsKv, dimV]`; the dtype of `q`. */
  v: input(['batch', 'lenKv', 'headsKv', 'dimV'], { dtype: { like: 'q' } }),
};

export const flags = {
  /** Which keys are visible, one flag for each block of queries and keys: `[batch or 1, headsQ or 1, blocksQ, blocksKv]`. */
  mask: optionalInput(['batch or 1', 'headsQ or 1', 'blocksQ', 'blocksKv'], {
    dtype: ['u8'],
    holds: { kind: 'flags' },
  }),
  /** Slope of each query head, which times the distance between the place of a query and a key is taken from their score. */
  alibi: optionalInput(['headsQ'], { dtype: f32s }),
};

export const keyLengths = {
  /** Keys of each batch, from 0 to `lenKv`. */
  lensKv: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'lenKv', beyond: ['k', 'v'] } }),
};
export const keyOffsets = {
  /** Packed: sequence `n` has the keys `cuKv[n]` to `cuKv[n + 1]`. */
  cuKv: optionalInput(['sequences + 1'], {
    dtype: i32s,
    holds: { kind: 'offsets', of: 'lenKv', beyond: ['k', 'v'] },
  }),
};

export const scoring = {
  /** Multiplies `q kᵀ`. */
  scale: f32((d) => 1 / Math.sqrt(d.dim!), '`1 / sqrt(dim)`'),
  /** Scores become `softcap tanh(score / softcap)`; 0 is off. */
  softcap: f32(0),
  /** Query `i` sees the keys up to `i + lenKv - lenQ`, so that the last query sees all of them. */
  causal: flag(false),
  /** Keys that a query sees before its own place; -1 is all. */
  windowLeft: integer(noBound, -1),
  /** Keys that a query sees after its own place; -1 is all. */
  windowRight: integer(noBound, -1),
  /** Queries that share a flag of `mask`. */
  maskBlockQ: integer(block, 1),
  /** Keys that share a flag of `mask`. */
  maskBlockKv: integer(block, 1),
};

/** Of random cases. */
export const draw = {
  batch: [0, 1, 1, 1, 1, 1, 2, 2, 3, 3],
  sequences: [0, 1, 2, 3, 5],
  headsKv: { divides: 'headsQ' },
  windowLeft: bounds,
  windowRight: bounds,
  maskBlockQ: blocks,
  maskBlockKv: blocks,
} as const;

interface Sizes {
  batch: number;
  sequences: number;
  lenQ: number;
  lenKv: number;
  headsQ: number;
  headsKv: number;
}

interface Params extends Bounds {
  softcap: number;
  maskBlockQ: number;
  maskBlockKv: number;
}

type Rule = false | readonly [RuleCode, string];

export const dimRule = (name: string, size: number): Rule =>
  (size < 1 || size > most) && [
    'UNSUPPORTED',
    `${name} is ${size}, expected 1 to ${most}: kernels exist for ${compiled.join(', ')}, and pad other sizes with zeros`,
  ];

/** Heads, lengths, masks and factors. */
export function lengthRules(d: Sizes, p: Params, given: Given): Rule[] {
  const padded = given.has('lensQ') ? 'lensQ' : given.has('lensKv') ? 'lensKv' : undefined;
  const packed = given.has('cuQ') ? 'cuQ' : given.has('cuKv') ? 'cuKv' : undefined;
  const other = packed === 'cuQ' ? 'cuKv' : 'cuQ';
  return [
    (d.headsKv === 0 ? d.headsQ !== 0 : d.headsQ % d.headsKv !== 0) && [
      'SHAPE',
      `headsKv ${d.headsKv} does not divide headsQ ${d.headsQ}`,
    ],
    packed !== undefined && !given.has(other) && ['ARGUMENT', `${other} is missing, expected with ${packed}`],
    packed !== undefined &&
      padded !== undefined && ['ARGUMENT', `${padded} is given with ${packed}, expected lengths or packed sequences`],
    packed !== undefined && d.batch !== 1 && ['SHAPE', `q has batch ${d.batch}, expected 1 with ${packed}`],
    p.softcap < 0 && ['ARGUMENT', `softcap is ${p.softcap}, expected 0 or more`],
    ...(['maskBlockQ', 'maskBlockKv'] as const).map(
      (name) =>
        p[name] !== 1 && !given.has('mask') && (['ARGUMENT', `${name} is ${p[name]}, but mask is missing`] as const),
    ),
  ];
}

/** `pairFlops` for each head and visible pair. Packed sequences count as equally long: their lengths are in device memory. */
export function workOf(d: Sizes, p: Bounds, given: Given, pairFlops: number) {
  const packed = given.has('cuQ');
  const sequences = packed ? d.sequences : d.batch;
  const shape = packed ? { lenQ: d.lenQ / Math.max(1, d.sequences), lenKv: d.lenKv / Math.max(1, d.sequences) } : d;
  const read = packed ? 1 : keysRead(shape, p);
  return {
    flops: Math.round(pairFlops * d.headsQ * sequences * visiblePairs(shape, p)),
    read: { k: read, v: read },
    tokens: d.batch * d.lenQ,
  };
}
