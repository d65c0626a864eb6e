// The operator nsa_compress as TypeScript sees it; kernels/nsa_compress/nsa_compress.h is its contract.
import { defineOp } from '../op.js';
import { input, integer, optionalInput, output } from '../spec.js';
import { cases, models } from './nsa_compress.cases.js';

const floats = ['f32', 'bf16', 'f16'] as const;

/**
 * Native sparse attention, compression: the mean of every window of `block` neighbouring tokens, `stride` tokens apart, of keys or of
 * values. What queries meet in place of the whole sequence, and what says which parts of it are worth a closer look.
 *
 * Windows that end past a length are 0. A sequence shorter than `block` has no window. Sums are in f32, rounded once to the
 * dtype of `y`.
 *
 * | argument   | shape                           | meaning                                                                  |
 * |------------|---------------------------------|--------------------------------------------------------------------------|
 * | `x`        | `[batch, len, heads, dim]`      | keys or values; f32, bf16 or f16                                         |
 * | `position` | `[window, heads or 1, dim]`     | added to each token by its place in the window; `window` is `block`      |
 * | `lens`     | `[batch]`                       | i32; tokens of each sequence, up to `len`                                |
 * | `y`        | `[batch, blocks, heads, dim]`   | result; `blocks` is `floor((len - block) / stride) + 1`, 0 where `len` is less than `block` |
 *
 * @returns `y`, in the dtype of `x` unless `options.dtype` says otherwise.
 * @throws {KernwattError} `SHAPE` if sizes disagree; `ARGUMENT` if `stride` is more than `block`, or tensors are on different
 *   devices, overlap, or have a strided last dimension; `INDEX` if a length is out of range, before the launch where the contents are known
 *   here, else from `stream.mark()`: it then counts as the nearest that is possible; `DTYPE`; `UNSUPPORTED` if the backend declines;
 *   `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Yuan et al. 2025, https://arxiv.org/abs/2502.11089
 */
export const nsaCompress = defineOp({
  name: 'nsa_compress',
  summary: 'Native sparse attention: means of overlapping windows of keys or values',
  source: 'Yuan et al. 2025 (arXiv 2502.11089), section 3.3.1',
  tensors: {
    /** Keys or values, `[batch, len, heads, dim]`. */
    x: input(['batch', 'len', 'heads', 'dim'], { dtype: floats }),
    /** Added to each token of a window, by its place there, `[window, heads or 1, dim]`. */
    position: optionalInput(['window', 'heads or 1', 'dim'], { dtype: floats }),
    /** Tokens of each sequence, from 0 to `len`. */
    lens: optionalInput(['batch'], { dtype: ['i32'], holds: { kind: 'lengths', of: 'len', beyond: ['x'] } }),
    /** Result, `[batch, blocks, heads, dim]`; allocated unless given. */
    y: output(['batch', 'blocks', 'heads', 'dim'], { dtype: floats, from: 'x' }),
  },
  params: {
    /** Tokens of a window. */
    block: integer([1, 2 ** 31 - 1], 32),
    /** Tokens from the beginning of a window to that of the next. */
    stride: integer([1, 2 ** 31 - 1], 16),
  },
  derive: {
    window: (_, p) => p.block,
    blocks: (d, p) => (d.len < p.block ? 0 : Math.floor((d.len - p.block) / p.stride) + 1),
  },
  rules: (_, p) => [p.stride > p.block && ['ARGUMENT', `stride is ${p.stride}, expected at most block ${p.block}`]],
  work: (d, p, given) => ({
    flops: (given.has('position') ? 2 : 1) * d.batch * d.blocks * d.heads * d.dim * p.block,
    read: { x: d.blocks === 0 ? 0 : ((d.blocks - 1) * p.stride + p.block) / d.len },
    tokens: d.batch * d.len,
  }),
  flops: '1 for each element of a window, 2 with `position`, every sequence as long as `len`',
  draw: {
    batch: [0, 1, 1, 2, 3],
    heads: [1, 2, 3, 4, 8],
    len: [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 100, 257],
    block: [1, 2, 3, 8, 16, 32, 32, 64],
    stride: [1, 2, 3, 8, 16, 16, 32],
  },
  cases,
  models,
});
