// The operator gemm_int4 as TypeScript sees it; kernels/gemm_int4/gemm_int4.h is its contract.
import { defineOp } from '../op.js';
import { choice, flag, input, optionalInput, output } from '../spec.js';
import { cases } from './gemm_int4.cases.js';
import { models } from './gemm_int4.models.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const isGated = (activation: string): boolean => activation === 'swiglu' || activation.startsWith('geglu');

/**
 * Matrix multiply with 4-bit weights that are never stored in full: `y = act(x Ŵᵀ + bias) + residual`, where
 * `ŵ[r, i] = (w[r, i] - zeros[g, r]) scales[g, r]`, and `g` is the group of `k / groups` neighbours along `k` that `i` is in.
 *
 * Without `zeros` they are 8 everywhere. A weight of dtype `nf4` holds codes of QLoRA's sixteen values instead of `w - zeros`.
 * A group is a multiple of 32 and divides `k`; one group is a scale for each row. With `perm`, column `i` of `w` meets column `perm[i]`
 * of `x`: how weights quantised in the order of activations are stored, sorted by group. Gated activations take `rowsW = 2 n` rows, the
 * gate's first; otherwise `rowsW = n`. `x`, `residual` and `y` may have any strides with a contiguous last dimension. Sums and epilogue
 * are in f32, rounded once to the dtype of `y`.
 *
 * A weight that is used again and again is faster packed once, on the CPU: `gemmInt4.prepack({ w })`, and the same of `scales` and
 * `zeros`, give tensors to pass in their place.
 *
 * | argument     | shape              | meaning                                                                           |
 * |--------------|--------------------|-----------------------------------------------------------------------------------|
 * | `x`          | `[batch?, m, k]`   | activations; f32, bf16 or f16                                                     |
 * | `w`          | `[rowsW, k]`       | weight; u4, or nf4                                                                |
 * | `scales`     | `[groups, rowsW]`  | one for each group of a row; f32, bf16 or f16                                     |
 * | `zeros`      | `[groups, rowsW]`  | u4; what stands for zero in each group                                            |
 * | `perm`       | `[k]`              | i32, from 0 to `k - 1`; the column of `x` that each column of `w` meets           |
 * | `bias`       | `[rowsW]`          | added to every row before the activation                                          |
 * | `residual`   | `[batch?, m, n]`   | added after the activation                                                        |
 * | `y`          | `[batch?, m, n]`   | result; may be exactly `residual`                                                 |
 *
 * @returns `y`, in the dtype of `x` unless `options.dtype` says otherwise.
 * @throws {KernwattError} `SHAPE` if sizes disagree, the groups do not divide `k` into multiples of 32, or a gated activation meets an
 *   odd `rowsW`; `DTYPE`; `INDEX` for a `perm` beyond `k`, at once where the host wrote it, else from the stream; `ARGUMENT` for zeros of
 *   an nf4 weight, and if tensors are on different devices, overlap, or have a strided last dimension; `UNSUPPORTED` if the backend
 *   declines, and for weights of i8 and f8, which are reserved; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Frantar et al. 2022 (GPTQ), https://arxiv.org/abs/2210.17323; Dettmers et al. 2023 (NF4), https://arxiv.org/abs/2305.14314
 */
export const gemmInt4 = defineOp({
  name: 'gemm_int4',
  summary:
    'Matrix multiply with 4-bit weights and a fused epilogue: y = act(x Ŵᵀ + bias) + residual, Ŵ = (w - zeros) scales',
  source: 'GPTQ: arXiv 2210.17323; AWQ: arXiv 2306.00978; NF4: arXiv 2305.14314; Marlin: arXiv 2408.11743',
  tensors: {
    /** Activations, `[batch?, m, k]`. */
    x: input(['batch?', 'm', 'k'], { dtype: floats }),
    /** Weight, `[rowsW, k]`: whole numbers 0 to 15, or codes of NF4. */
    w: input(['rowsW', 'k'], { dtype: ['u4', 'nf4'], reserved: ['i8', 'f8e4m3', 'f8e5m2'] }),
    /** One for each group of a row, `[groups, rowsW]`. */
    scales: input(['groups', 'rowsW'], { dtype: floats }),
    /** What stands for zero in each group, `[groups, rowsW]`; 8 when absent. Not with nf4. */
    zeros: optionalInput(['groups', 'rowsW'], { dtype: ['u4'] }),
    /** The column of `x` that each column of `w` meets, `[k]`; in order when absent. */
    perm: optionalInput(['k'], { dtype: ['i32'], holds: { kind: 'indices', of: 'k' } }),
    /** Added to every row before the activation: `[rowsW]`. */
    bias: optionalInput(['rowsW'], { dtype: floats }),
    /** Added after the activation: `[batch?, m, n]`. */
    residual: optionalInput(['batch?', 'm', 'n'], { dtype: floats }),
    /** Result, `[batch?, m, n]`; allocated unless given. May be exactly the same view as `residual`. */
    y: output(['batch?', 'm', 'n'], { dtype: floats, from: 'x', inPlace: ['residual'] }),
  },
  params: {
    /** Applied before `residual` is added. */
    activation: choice(['none', 'relu', 'gelu_erf', 'gelu_tanh', 'silu', 'swiglu', 'geglu_erf', 'geglu_tanh'], 'none'),
    /** `fused`: weights widen on their way into the product. `dequant`: all of Ŵ first, rounded to the dtype of `x`, then as `gemm`. */
    mode: choice(['fused', 'dequant'], 'fused'),
    /** `int8`: `x` is rounded to eight bits in blocks of up to 128 along `k`, an accuracy class of its own. */
    accuracy: choice(['exact', 'int8'], 'exact'),
    /** A row of `y` has the same bits whatever `m` and `batch` are and however many threads work. */
    batchInvariant: flag(false),
  },
  derive: { n: (d, p) => (isGated(p.activation) ? d.rowsW / 2 : d.rowsW) },
  rules: (d, p, given, dtypes) => [
    d.groups < 1 && ['SHAPE', `scales has groups ${d.groups}, expected at least 1`],
    (d.k / d.groups) % 32 !== 0 && [
      'SHAPE',
      `scales has groups ${d.groups} for k ${d.k}, expected groups of a multiple of 32 that divide k`,
    ],
    isGated(p.activation) &&
      d.rowsW % 2 !== 0 && ['SHAPE', `w has rowsW ${d.rowsW}, expected an even number with activation ${p.activation}`],
    dtypes.w === 'nf4' && given.has('zeros') && ['ARGUMENT', 'zeros is given, expected none with w of nf4'],
  ],
  work: (d) => ({
    flops: 2 * d.batch * d.m * d.rowsW * d.k,
    tokens: d.batch * d.m,
    weights: ['w'],
    withWeights: ['scales', 'zeros', 'perm'],
  }),
  flops: '2 batch m rowsW k for the product; widening the weights and the epilogue are not counted',
  draw: { k: [0, 32, 64, 96, 128, 160, 192, 256, 320, 384, 512, 768], groups: { divides: 'k' } },
  cases,
  models,
});
