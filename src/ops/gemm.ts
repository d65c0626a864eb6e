// The operator gemm as TypeScript sees it; kernels/gemm/gemm.h is its contract.
import { defineOp } from '../op.js';
import { choice, f32, flag, input, optionalInput, output } from '../spec.js';
import { cases } from './gemm.cases.js';
import { models } from './gemm.models.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const isGated = (activation: string): boolean => activation === 'swiglu' || activation.startsWith('geglu');

/**
 * General matrix multiply with a fused epilogue: `y = act(alpha x Wᵀ + beta c + bias) + residual`.
 *
 * The gated activations (`swiglu`, `geglu_erf`, `geglu_tanh`) take a weight of `rowsW = 2 n` rows, the gate's first, and give
 * `y = gate(s[.., :n]) s[.., n:] + residual`; otherwise `rowsW = n`. Any strides with a contiguous last dimension; a batch
 * that is absent or 1 is shared by all. Sums and epilogue are in f32, rounded once to the dtype of `y`.
 *
 * A weight that is used again and again is faster packed once, on the CPU: `gemm.prepack({ w })` gives a tensor to pass as `w`.
 *
 * | argument     | shape                                                  | meaning                                         |
 * |--------------|--------------------------------------------------------|-------------------------------------------------|
 * | `x`          | `[batch?, m, k]`, with `transX` `[batch?, k, m]`       | activations; f32, bf16 or f16                   |
 * | `w`          | `[batch?, rowsW, k]`, with `transW` `[batch?, k, rowsW]` | weight; the dtype of `x`                      |
 * | `c`          | `[batch?, m, rowsW]`                                   | added before the activation, times `beta`       |
 * | `bias`       | `[rowsW]`                                              | added to every row before the activation        |
 * | `residual`   | `[batch?, m, n]`                                       | added after the activation                      |
 * | `y`          | `[batch?, m, n]`                                       | result; may be exactly `c` or `residual`        |
 *
 * @returns `y`, in the dtype of `x` unless `options.dtype` says otherwise.
 * @throws {KernwattError} `SHAPE` if sizes disagree or a gated activation meets an odd `rowsW`; `DTYPE`; `ARGUMENT` if tensors
 *   are on different devices, overlap, or have a strided last dimension; `UNSUPPORTED` if the backend declines;
 *   `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Dongarra et al. 1990 (BLAS level 3); Shazeer 2020, https://arxiv.org/abs/2002.05202
 */
export const gemm = defineOp({
  name: 'gemm',
  summary: 'General matrix multiply with a fused epilogue: y = act(alpha x Wᵀ + beta c + bias) + residual',
  source: 'BLAS level 3 (Dongarra et al. 1990); gated units: arXiv 2002.05202; GELU: arXiv 1606.08415',
  tensors: {
    /** Activations, `[batch?, m, k]`, or `[batch?, k, m]` with `transX`. */
    x: input(['batch?', 'm', 'k'], { dtype: floats, transpose: 'transX' }),
    /** Weight, `[batch?, rowsW, k]`, or `[batch?, k, rowsW]` with `transW`; the dtype of `x`. */
    w: input(['batch?', 'rowsW', 'k'], { dtype: { like: 'x' }, transpose: 'transW' }),
    /** Added before the activation, times `beta`: `[batch?, m, rowsW]`. */
    c: optionalInput(['batch?', 'm', 'rowsW'], { dtype: floats }),
    /** Added to every row before the activation: `[rowsW]`. */
    bias: optionalInput(['rowsW'], { dtype: floats }),
    /** Added after the activation: `[batch?, m, n]`. */
    residual: optionalInput(['batch?', 'm', 'n'], { dtype: floats }),
    /** Result, `[batch?, m, n]`; allocated unless given. May be exactly the same view as `c` or `residual`. */
    y: output(['batch?', 'm', 'n'], { dtype: floats, from: 'x', inPlace: ['c', 'residual'] }),
  },
  params: {
    /** Multiplies `x Wᵀ`; with 0 neither is read. */
    alpha: f32(1),
    /** Multiplies `c`; with 0 it is not read. */
    beta: f32((_, given) => (given.has('c') ? 1 : 0), '1 with `c`, else 0'),
    /** Applied before `residual` is added. */
    activation: choice(['none', 'relu', 'gelu_erf', 'gelu_tanh', 'silu', 'swiglu', 'geglu_erf', 'geglu_tanh'], 'none'),
    /** `x` is stored `[batch?, k, m]`. */
    transX: flag(false),
    /** `w` is stored `[batch?, k, rowsW]`. */
    transW: flag(false),
    /** A row of `y` has the same bits whatever `m` and `batch` are and however many threads work. */
    batchInvariant: flag(false),
  },
  derive: { n: (d, p) => (isGated(p.activation) ? d.rowsW / 2 : d.rowsW) },
  rules: (d, p, given) => [
    isGated(p.activation) &&
      d.rowsW % 2 !== 0 && ['SHAPE', `w has rowsW ${d.rowsW}, expected an even number with activation ${p.activation}`],
    p.beta !== 0 && !given.has('c') && ['ARGUMENT', `beta is ${p.beta}, but c is missing`],
  ],
  work: (d, p) => ({
    flops: p.alpha === 0 ? 0 : 2 * d.batch * d.m * d.rowsW * d.k,
    unread: [...(p.alpha === 0 ? ['x', 'w'] : []), ...(p.beta === 0 ? ['c'] : [])],
    tokens: d.batch * d.m,
    weights: ['w'],
  }),
  flops: '2 batch m rowsW k for the product; the epilogue is not counted',
  cases,
  models,
});
