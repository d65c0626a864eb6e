// The operator rope as TypeScript sees it; kernels/rope/rope.h is its contract.
import { defineOp } from '../op.js';
import { input, integer, optionalInput, output } from '../spec.js';
import { cases, models } from './rope.cases.js';
import { ropeDraw, ropeParams, ropeRules } from './rope.params.js';

const floats = ['f32', 'bf16', 'f16'] as const;

/**
 * Rotary position embedding: turns pairs of columns of every head by angles that grow with the position of the token, so that
 * products of queries and keys depend on how far apart these are.
 *
 * The pairs are a column of the first half and one of the second (GPT-NeoX, Llama, Qwen), or neighbours where `interleaved`
 * (GPT-J, DeepSeek). With `dimRotary` only the first columns turn, and the others are copied. Positions are any 32-bit numbers, and
 * angles are exact to 2^-32 turns up to a position of a million. Sums are in f32, rounded once to the dtype of `y`.
 *
 * | argument    | shape                         | meaning                                                          |
 * |-------------|-------------------------------|------------------------------------------------------------------|
 * | `x`         | `[batch, len, heads, dim]`    | queries or keys; f32, bf16 or f16                                |
 * | `positions` | `[batch, len]`                | i32; of each token; without it, token `i` stands at `position + i` |
 * | `y`         | `[batch, len, heads, dim]`    | result; may be exactly `x`                                       |
 *
 * @returns `y`, in the dtype of `x` unless `options.dtype` says otherwise.
 * @throws {KernwattError} `SHAPE` if sizes disagree; `DTYPE`; `ARGUMENT` if parameters do not fit together, or tensors are on
 *   different devices, overlap, or have a strided last dimension; `UNSUPPORTED` if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Su et al. 2021, https://arxiv.org/abs/2104.09864; YaRN: Peng et al. 2023, https://arxiv.org/abs/2309.00071
 */
export const rope = defineOp({
  name: 'rope',
  summary: 'Rotary position embedding, in halves or interleaved, with linear, Llama 3 and YaRN scaling',
  source: 'Su et al. 2021 (arXiv 2104.09864); Peng et al. 2023 (arXiv 2309.00071)',
  tensors: {
    /** Queries or keys, `[batch, len, heads, dim]`. */
    x: input(['batch', 'len', 'heads', 'dim'], { dtype: floats }),
    /** Position of each token, `[batch, len]`. */
    positions: optionalInput(['batch', 'len'], { dtype: ['i32'] }),
    /** Result, `[batch, len, heads, dim]`; allocated unless given. */
    y: output(['batch', 'len', 'heads', 'dim'], { dtype: floats, from: 'x', inPlace: ['x'] }),
  },
  params: {
    /** Of the first token, without `positions`. */
    position: integer([-(2 ** 31), 2 ** 31 - 1], 0),
    /** Whether pairs are neighbouring columns instead of a column of each half. */
    interleaved: ropeParams.interleaved,
    /** Columns that turn, an even number; 0: all. */
    dimRotary: ropeParams.dimRotary,
    /** Base of the frequencies. */
    theta: ropeParams.theta,
    /** How frequencies are lowered for contexts longer than those of the training: not at all, all alike, or the low ones more. */
    scaling: ropeParams.scaling,
    /** By how much. */
    factor: ropeParams.factor,
    /** llama3: wavelengths above `originalContext / lowFreqFactor` are scaled in full. */
    lowFreqFactor: ropeParams.lowFreqFactor,
    /** llama3: those below `originalContext / highFreqFactor` not at all. */
    highFreqFactor: ropeParams.highFreqFactor,
    /** llama3, yarn: tokens of the contexts of the training. */
    originalContext: ropeParams.originalContext,
    /** yarn: pairs that turn more often than this within the original context are not scaled. */
    betaFast: ropeParams.betaFast,
    /** yarn: those that turn less often than this are scaled in full. */
    betaSlow: ropeParams.betaSlow,
    /** yarn: what the result is multiplied by; 0: `0.1 ln(factor) + 1`. */
    attentionFactor: ropeParams.attentionFactor,
  },
  rules: (d, p, given) => [
    ...ropeRules(d.dim, p),
    given.has('positions') &&
      p.position !== 0 && ['ARGUMENT', `position is ${p.position}, expected 0 or none beside positions`],
  ],
  work: (d, p) => ({
    flops: 3 * d.batch * d.len * d.heads * (p.dimRotary || d.dim),
    tokens: d.batch * d.len,
  }),
  flops: '6 for each pair that turns; the angles are not counted',
  draw: {
    batch: [0, 1, 1, 2, 3],
    heads: [1, 2, 3, 7, 8, 9, 17],
    dim: [0, 2, 8, 16, 30, 64, 66, 96, 128, 192, 256],
    position: [0, 0, 1, 4095, 1_000_000, -7],
    ...ropeDraw,
  },
  cases,
  models,
});
