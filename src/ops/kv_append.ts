// The operator kv_append as TypeScript sees it; kernels/kv_append/kv_append.h is its contract.
import { defineOp } from '../op.js';
import { flag, input, optionalInput, updated } from '../spec.js';
import { scaledCache, scaleRule } from './cache.rules.js';
import { cases, models } from './kv_append.cases.js';
import { ropeDraw, ropeParams, ropeRules } from './rope.params.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const f32s = ['f32'] as const;
const i32s = ['i32'] as const;

/**
 * Writes keys and values of new tokens into the pages of a cache, with keys turned by `rope` on the way where asked for.
 *
 * Token `t` of request `b` is slot `t % pageSize` of page `pageTable[b, t / pageSize]`. `lensKv[b]` tokens are in the cache after the
 * call, those of this step included, so that `attentionGqaPaged` of the same step takes the same tensors: row `i` of `k` and `v` stands
 * at place `i + lensKv[b] - lensQ[b]`, and is not there where that is below 0, as in a slot of a batch that is empty. All other
 * elements of the caches stay as they are. No two rows may stand at one place.
 *
 * A cache of `f8e4m3` takes half the memory of bf16: elements are divided by the scale of their head and rounded to nearest even, with
 * values beyond 448 times the scale cut off; whoever reads the cache multiplies by the scale, as `attentionGqaPaged` and `attentionMla` do
 * with the same `kScale` and `vScale`.
 *
 * | argument    | shape                                | meaning                                                            |
 * |-------------|--------------------------------------|--------------------------------------------------------------------|
 * | `k`         | `[batch, len, headsKv, dim]`         | keys; f32, bf16 or f16                                             |
 * | `v`         | `[batch, len, headsKv, dimV]`        | values; the dtype of `k`                                           |
 * | `pageTable` | `[batch, maxPages]`                  | i32; the pages of each request, in the order of its tokens         |
 * | `lensKv`    | `[batch]`                            | i32; tokens of each request, these included, 0 to `maxPages * pageSize` |
 * | `lensQ`     | `[batch]`                            | i32; rows of each request that count, up to `len`                  |
 * | `kScale`    | `[headsKv]`                          | f32; with `f8e4m3`                                                 |
 * | `vScale`    | `[headsKv]`                          | f32; with `f8e4m3`                                                 |
 * | `kCache`    | `[pages, pageSize, headsKv, dim]`    | updated in place; f32, bf16, f16 or f8e4m3; pages of any size      |
 * | `vCache`    | `[pages, pageSize, headsKv, dimV]`   | updated in place; the dtype of `kCache`                            |
 *
 * @returns `kCache` and `vCache`, as given.
 * @throws {KernwattError} `SHAPE` if sizes disagree; `INDEX` if a length or a page is out of range, before the launch where the contents
 *   are known here, else from `stream.mark()`: nothing of such a request or row is then written, and others are right; `DTYPE`;
 *   `ARGUMENT` if scales and `f8e4m3` do not come together, parameters do not fit together, or tensors are on different devices, overlap,
 *   or have a strided last dimension; `UNSUPPORTED` if the backend declines; `DISPOSED`.
 * @see Kwon et al. 2023, https://arxiv.org/abs/2309.06180
 */
export const kvAppend = defineOp({
  name: 'kv_append',
  summary: 'New keys and values into a paged cache, as they are or as f8e4m3, with rotary embedding on the way',
  source:
    'Kwon et al. 2023 (arXiv 2309.06180); Su et al. 2021 (arXiv 2104.09864); Micikevicius et al. 2022 (arXiv 2209.05433)',
  tensors: {
    /** Keys of new tokens, `[batch, len, headsKv, dim]`. */
    k: input(['batch', 'len', 'headsKv', 'dim'], { dtype: floats }),
    /** Their values, `[batch, len, headsKv, dimV]`; the dtype of `k`. */
    v: input(['batch', 'len', 'headsKv', 'dimV'], { dtype: { like: 'k' } }),
    /** Pages of each request, `[batch, maxPages]`; entries past its length may hold anything. */
    pageTable: input(['batch', 'maxPages'], {
      dtype: i32s,
      holds: { kind: 'pages', of: 'pages', each: 'pageSize', lengths: 'lensKv' },
    }),
    /** Tokens of each request in the cache after the call, from 0 to `maxPages * pageSize`. */
    lensKv: input(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'capacity', beyond: [] } }),
    /** Rows of each request that count, from 0 to `len`. */
    lensQ: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'len', beyond: ['k', 'v'] } }),
    /** What keys of each head are divided by, `[headsKv]`; with `f8e4m3`. */
    kScale: optionalInput(['headsKv'], { dtype: f32s }),
    /** What values of each head are divided by, `[headsKv]`; with `f8e4m3`. */
    vScale: optionalInput(['headsKv'], { dtype: f32s }),
    /** Keys of all pages, `[pages, pageSize, headsKv, dim]`. */
    kCache: updated(['pages', 'pageSize', 'headsKv', 'dim'], { dtype: [...floats, scaledCache] }),
    /** Values of all pages, `[pages, pageSize, headsKv, dimV]`; the dtype of `kCache`. */
    vCache: updated(['pages', 'pageSize', 'headsKv', 'dimV'], { dtype: { like: 'kCache' } }),
  },
  params: {
    /** Whether keys are turned, each at its place in the cache; the other parameters are those of `rope`. */
    rope: flag(false),
    /** Whether pairs are neighbouring columns instead of a column of each half. */
    interleaved: ropeParams.interleaved,
    /** Columns that turn, an even number; 0: all. */
    dimRotary: ropeParams.dimRotary,
    /** Base of the frequencies. */
    theta: ropeParams.theta,
    /** How frequencies are lowered for longer contexts. */
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
    /** yarn: what turned keys are multiplied by; 0: `0.1 ln(factor) + 1`. */
    attentionFactor: ropeParams.attentionFactor,
  },
  derive: { capacity: (d) => d.maxPages * d.pageSize },
  rules: (d, { rope, ...p }, given, { kCache }) => [
    d.pageSize === 0 && ['SHAPE', 'pageSize is 0, expected at least 1'],
    scaleRule('kScale', kCache, given),
    scaleRule('vScale', kCache, given),
    ...(rope ? ropeRules(d.dim, p) : []),
  ],
  work: (d, { rope, dimRotary }) => {
    const tokens = d.batch * d.len;
    const share = tokens / Math.max(1, d.pages * d.pageSize);
    return {
      flops: rope ? 3 * tokens * d.headsKv * (dimRotary || d.dim) : 0,
      read: { kCache: share, vCache: share },
      tokens,
    };
  },
  flops: '6 for each pair that turns; the angles and the scales are not counted',
  draw: {
    batch: [0, 1, 2, 3],
    len: [0, 1, 1, 2, 5, 17],
    headsKv: [1, 2, 3, 8],
    dim: [0, 2, 16, 30, 64, 72, 128],
    dimV: [0, 1, 16, 31, 64, 128],
    pages: [12, 13, 16],
    maxPages: [0, 1, 2, 4],
    pageSize: [1, 1, 2, 3, 7, 16],
    ...ropeDraw,
  },
  cases,
  models,
});
