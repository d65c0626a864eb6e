// The operator attention_mla as TypeScript sees it; kernels/attention_mla/attention_mla.h is its contract.
import { defineOp } from '../op.js';
import { f32, flag, input, integer, optionalInput, output } from '../spec.js';
import { visiblePairs } from './attention_gqa.work.js';
import { cases } from './attention_mla.cases.js';
import { scaledCache, scaleRule } from './cache.rules.js';
import { models } from './attention_mla.models.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const f32s = ['f32'] as const;
const i32s = ['i32'] as const;
const least = [0, 2 ** 31 - 1] as const;
const [mostDim, mostLatent] = [576, 512];
/**
 * Multi-head latent attention over a paged cache of latents, absorbed: what a layer of DeepSeek-V2 or V3 computes in a step of
 * decoding. One row of the cache, the latent and the rotated part of the key side by side, is the key of all heads, and its
 * first `latent` columns are the value.
 *
 * The queries come absorbed, `[qNope Wuk, rope(qRope)]`, and `y` is in latents: a `gemm` of every head before and after
 * (docs/servers.md has the whole step). A prompt without a cache is cheaper expanded: `attentionGqa` with a `dim` of 192 and a
 * `dimV` of 128. Pages, lengths and places are as in `attentionGqaPaged`.
 *
 * A cache of `f8e4m3` takes half the memory of bf16. It has one scale, `cScale`, because a row is one key: `kvAppend` takes it as `kScale`
 * and as `vScale`. Scores and results are multiplied by it.
 *
 * | argument    | shape                          | meaning                                                              |
 * |-------------|--------------------------------|----------------------------------------------------------------------|
 * | `q`         | `[batch, lenQ, heads, dim]`    | absorbed queries; f32, bf16 or f16; dim up to 576                    |
 * | `cCache`    | `[pages, pageSize, dim]`       | latents and rotated keys; the dtype of `q` or f8e4m3                 |
 * | `pageTable` | `[batch, maxPages]`            | i32; the pages of each request, in the order of its tokens           |
 * | `lensKv`    | `[batch]`                      | i32; tokens of each request in the cache, 0 to `maxPages * pageSize` |
 * | `lensQ`     | `[batch]`                      | i32; queries of each request, up to `lenQ`                           |
 * | `cScale`    | `[one]`                        | f32, a single number; with `f8e4m3`: by what the cache has been divided |
 * | `y`         | `[batch, lenQ, heads, dimV]`   | result, in latents: `dimV` is `latent`                               |
 * | `lse`       | `[batch, heads, lenQ]`         | f32; natural logarithm of the sum of exponentials                    |
 *
 * @returns `y`, in the dtype of `q` unless `options.dtype` says otherwise, and `lse` in f32.
 * @throws {KernwattError} `SHAPE` if sizes disagree or `latent` is more than `dim`; `INDEX` if a length or a page is out of range, before
 *   the launch where the contents are known here, else from `stream.mark()`: a length then counts as the nearest that is
 *   possible, a page that is none as zeros, and other requests are right; `DTYPE`; `ARGUMENT` if `cScale` and `f8e4m3` do not come
 *   together, or tensors are on different devices, overlap, or have a strided last dimension; `UNSUPPORTED` for a `dim` beyond 576, a
 *   `latent` beyond 512 or if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see DeepSeek-V2, https://arxiv.org/abs/2405.04434, section 2.1
 */
export const attentionMla = defineOp({
  name: 'attention_mla',
  summary: 'Multi-head latent attention, absorbed, over a paged cache of latents that is keys and values at once',
  source:
    'Multi-head latent attention: DeepSeek-V2, arXiv 2405.04434, section 2.1; paged attention: arXiv 2309.06180; online softmax: arXiv 1805.02867',
  tensors: {
    /** Absorbed queries, `[batch, lenQ, heads, dim]`. */
    q: input(['batch', 'lenQ', 'heads', 'dim'], { dtype: floats }),
    /** Latents and rotated keys, `[pages, pageSize, dim]`; the dtype of `q` or `f8e4m3`. */
    cCache: input(['pages', 'pageSize', 'dim'], { dtype: { like: 'q', or: [scaledCache] } }),
    /** Pages of each request, `[batch, maxPages]`; entries past its length may hold anything. */
    pageTable: input(['batch', 'maxPages'], {
      dtype: i32s,
      holds: { kind: 'pages', of: 'pages', lengths: 'lensKv', each: 'pageSize', beyond: ['cCache'] },
    }),
    /** Tokens of each request in the cache, those of this step included, from 0 to `maxPages * pageSize`. */
    lensKv: input(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'capacity', beyond: [] } }),
    /** Queries of each request, from 0 to `lenQ`; rows beyond give 0 and an `lse` of -Infinity. */
    lensQ: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'lenQ', beyond: ['q'] } }),
    /** What the cache has been divided by, a single number; with `f8e4m3`. */
    cScale: optionalInput(['one'], { dtype: f32s }),
    /** Result, `[batch, lenQ, heads, dimV]`, with a `dimV` of `latent`; allocated unless given. */
    y: output(['batch', 'lenQ', 'heads', 'dimV'], { dtype: floats, from: 'q' }),
    /** Natural logarithm of each row's sum of exponentials, `[batch, heads, lenQ]`; allocated unless given. */
    lse: output(['batch', 'heads', 'lenQ'], { dtype: f32s }),
  },
  params: {
    /** Multiplies `q cᵀ`: `1 / sqrt(nope + rope)` of the layer, which the shapes here do not tell. */
    scale: f32(),
    /** Columns of the cache that are the value, the first ones. */
    latent: integer([1, mostLatent]),
    /** Query `i` sees the keys up to its own place, so that the last query sees all of them. */
    causal: flag(true),
    /** Parts that the keys of a request are cut into at most, to be computed side by side; 0 leaves it to the backend. */
    splits: integer(least, 0),
    /** A row's result depends neither on what else is computed nor on how many threads do it. */
    batchInvariant: flag(false),
  },
  derive: { capacity: (d) => d.maxPages * d.pageSize, dimV: (_, p) => p.latent, one: () => 1 },
  rules: (d, p, given, { cCache }) => [
    d.pageSize < 1 && ['SHAPE', `pageSize is ${d.pageSize}, expected 1 or more`],
    scaleRule('cScale', cCache, given),
    d.dim < 1 && ['SHAPE', `dim is ${d.dim}, expected 1 or more`],
    d.dim > mostDim && ['UNSUPPORTED', `dim is ${d.dim}, expected at most ${mostDim}`],
    p.latent > d.dim && ['SHAPE', `latent is ${p.latent}, expected at most dim ${d.dim}`],
  ],
  work: (d, p) => {
    const sizes = { lenQ: d.lenQ, lenKv: d.maxPages * d.pageSize };
    return {
      flops:
        2 * (d.dim + p.latent) * d.heads * d.batch * visiblePairs(sizes, { ...p, windowLeft: -1, windowRight: -1 }),
      read: { cCache: Math.min(1, (d.batch * d.maxPages) / Math.max(1, d.pages)) },
      tokens: d.batch * d.lenQ,
    };
  },
  flops:
    '2 (`dim` + `latent`) for each head and each pair of a query and a key that `causal` lets it see, every request as long as `maxPages` pages: how long they are lies in device memory',
  draw: {
    batch: [0, 1, 1, 2, 3, 5],
    lenQ: [0, 1, 1, 1, 2, 3, 4, 17],
    heads: [1, 2, 3, 8, 16, 17, 40, 128],
    dim: [1, 20, 64, 96, 176, 192, 256, 320, 576],
    pages: [1, 2, 5, 13, 40],
    pageSize: [1, 2, 3, 8, 16, 16, 17, 32, 64, 100],
    maxPages: [0, 1, 2, 3, 7, 19],
    latent: [1, 16, 33, 64, 112, 128, 256, 512],
    splits: [0, 1, 2, 3, 5, 100],
  },
  cases,
  models,
});
