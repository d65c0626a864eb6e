// The operator attention_gqa_paged as TypeScript sees it; kernels/attention_gqa_paged/attention_gqa_paged.h is its contract.
import { defineOp } from '../op.js';
import { f32, flag, input, integer, optionalInput, output } from '../spec.js';
import { scaledCache, scaleRule } from './cache.rules.js';
import { bounds, dimRule, noBound } from './attention_gqa.rules.js';
import { keysRead, visiblePairs } from './attention_gqa.work.js';
import { cases } from './attention_gqa_paged.cases.js';
import { models } from './attention_gqa_paged.models.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const f32s = ['f32'] as const;
const i32s = ['i32'] as const;
const least = [0, 2 ** 31 - 1] as const;
/**
 * Grouped-query attention over a paged cache of keys and values, for a step of many requests: one query each (decoding), a few
 * that were guessed ahead, or a piece of a prompt.
 *
 * Token `j` of request `b` is slot `j % pageSize` of page `pageTable[b, j / pageSize]`. `lensKv[b]` tokens are in the cache, those of
 * this step included, and the queries are the last of them: query `i` stands at place `i + lensKv[b] - lensQ[b]`. Everything else
 * is as in `attentionGqa`, whose result on gathered keys this is. Requests may share pages, and pages may have any size; slots past a
 * length, pages that no entry names and table entries past a length are never read.
 *
 * A cache of `f8e4m3`, as `kvAppend` writes it, takes half the memory of bf16, and half the time where reading it is what takes time. Its
 * elements are converted up when they are read, and count times the scale of their head: scores are multiplied by `kScale`, results by
 * `vScale`.
 *
 * | argument      | shape                              | meaning                                                             |
 * |---------------|------------------------------------|---------------------------------------------------------------------|
 * | `q`           | `[batch, lenQ, headsQ, dim]`       | queries; f32, bf16 or f16; dim up to 256                            |
 * | `kCache`      | `[pages, pageSize, headsKv, dim]`  | keys; the dtype of `q` or f8e4m3                                    |
 * | `vCache`      | `[pages, pageSize, headsKv, dimV]` | values; the dtype of `kCache`; dimV up to 256                       |
 * | `pageTable`   | `[batch, maxPages]`                | i32; the pages of each request, in the order of its tokens          |
 * | `lensKv`      | `[batch]`                          | i32; tokens of each request in the cache, 0 to `maxPages * pageSize` |
 * | `lensQ`       | `[batch]`                          | i32; queries of each request, up to `lenQ`                          |
 * | `sink`        | `[headsQ]`                         | f32; logits of a key without value                                  |
 * | `kScale`      | `[headsKv]`                        | f32; with `f8e4m3`: by what keys of each head have been divided     |
 * | `vScale`      | `[headsKv]`                        | f32; with `f8e4m3`: by what values of each head have been divided   |
 * | `y`           | `[batch, lenQ, headsQ, dimV]`      | result                                                              |
 * | `lse`         | `[batch, headsQ, lenQ]`            | f32; natural logarithm of the sum of exponentials                   |
 *
 * @returns `y`, in the dtype of `q` unless `options.dtype` says otherwise, and `lse` in f32, with which `attentionMerge` joins the
 *   results of parts of the keys.
 * @throws {KernwattError} `SHAPE` if sizes disagree or `headsKv` does not divide `headsQ`; `INDEX` if a length or a page is out of
 *   range, before the launch where the contents are known here, else from `stream.mark()`: a length then counts as the nearest
 *   that is possible, a page that is none as zeros, and other requests are right; `DTYPE`; `ARGUMENT` if scales and `f8e4m3`
 *   do not come together, or tensors are on different devices, overlap, or have a strided last dimension; `UNSUPPORTED` for a `dim`
 *   beyond 256 or if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Kwon et al. 2023, https://arxiv.org/abs/2309.06180
 */
export const attentionGqaPaged = defineOp({
  name: 'attention_gqa_paged',
  summary: 'Grouped-query attention over a paged key/value cache, for decoding, speculation and pieces of prompts',
  source:
    'Paged attention: arXiv 2309.06180; grouped-query attention: arXiv 2305.13245; online softmax: arXiv 1805.02867',
  tensors: {
    /** Queries, `[batch, lenQ, headsQ, dim]`. */
    q: input(['batch', 'lenQ', 'headsQ', 'dim'], { dtype: floats }),
    /** Keys, `[pages, pageSize, headsKv, dim]`; the dtype of `q` or `f8e4m3`. */
    kCache: input(['pages', 'pageSize', 'headsKv', 'dim'], { dtype: { like: 'q', or: [scaledCache] } }),
    /** Values, `[pages, pageSize, headsKv, dimV]`; the dtype of `kCache`. */
    vCache: input(['pages', 'pageSize', 'headsKv', 'dimV'], { dtype: { like: 'kCache' } }),
    /** Pages of each request, `[batch, maxPages]`; entries past its length may hold anything. */
    pageTable: input(['batch', 'maxPages'], {
      dtype: i32s,
      holds: { kind: 'pages', of: 'pages', lengths: 'lensKv', each: 'pageSize', beyond: ['kCache', 'vCache'] },
    }),
    /** Tokens of each request in the cache, those of this step included, from 0 to `maxPages * pageSize`. */
    lensKv: input(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'capacity', beyond: [] } }),
    /** Queries of each request, from 0 to `lenQ`; rows beyond give 0 and an `lse` of -Infinity. */
    lensQ: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'lenQ', beyond: ['q'] } }),
    /** Logit of each query head that joins the sum of exponentials, as a key with a value of zeros would. */
    sink: optionalInput(['headsQ'], { dtype: f32s }),
    /** What keys of each head have been divided by, `[headsKv]`; with `f8e4m3`. */
    kScale: optionalInput(['headsKv'], { dtype: f32s }),
    /** What values of each head have been divided by, `[headsKv]`; with `f8e4m3`. */
    vScale: optionalInput(['headsKv'], { dtype: f32s }),
    /** Result, `[batch, lenQ, headsQ, dimV]`; allocated unless given. */
    y: output(['batch', 'lenQ', 'headsQ', 'dimV'], { dtype: floats, from: 'q' }),
    /** Natural logarithm of each row's sum of exponentials, `[batch, headsQ, lenQ]`; allocated unless given. */
    lse: output(['batch', 'headsQ', 'lenQ'], { dtype: f32s }),
  },
  params: {
    /** Multiplies `q kᵀ`. */
    scale: f32((d) => 1 / Math.sqrt(d.dim!), '`1 / sqrt(dim)`'),
    /** Scores become `softcap tanh(score / softcap)`; 0 is off. */
    softcap: f32(0),
    /** Query `i` sees the keys up to its own place, so that the last query sees all of them. */
    causal: flag(true),
    /** Keys that a query sees before its own place; -1 is all. */
    windowLeft: integer(noBound, -1),
    /** Parts that the keys of a request are cut into at most, to be computed side by side; 0 leaves it to the backend. */
    splits: integer(least, 0),
    /** A row's result depends neither on what else is computed nor on how many threads do it. */
    batchInvariant: flag(false),
  },
  derive: { capacity: (d) => d.maxPages * d.pageSize },
  rules: (d, p, given, { kCache }) => [
    (d.headsKv === 0 ? d.headsQ !== 0 : d.headsQ % d.headsKv !== 0) && [
      'SHAPE',
      `headsKv ${d.headsKv} does not divide headsQ ${d.headsQ}`,
    ],
    p.softcap < 0 && ['ARGUMENT', `softcap is ${p.softcap}, expected 0 or more`],
    d.pageSize < 1 && ['SHAPE', `pageSize is ${d.pageSize}, expected 1 or more`],
    scaleRule('kScale', kCache, given),
    scaleRule('vScale', kCache, given),
    dimRule('dim', d.dim),
    dimRule('dimV', d.dimV),
  ],
  work: (d, p) => {
    const sizes = { lenQ: d.lenQ, lenKv: d.maxPages * d.pageSize };
    const seen = { ...p, windowRight: -1 };
    const read = Math.min(1, (d.batch * d.maxPages) / Math.max(1, d.pages)) * keysRead(sizes, seen);
    return {
      flops: Math.round(2 * (d.dim + d.dimV) * d.headsQ * d.batch * visiblePairs(sizes, seen)),
      read: { kCache: read, vCache: read },
      tokens: d.batch * d.lenQ,
    };
  },
  flops:
    '2 (`dim` + `dimV`) for each query head and each pair of a query and a key that `causal` and the window let it see, every request as long as `maxPages` pages: how long they are lies in device memory',
  draw: {
    batch: [0, 1, 1, 2, 3, 5],
    lenQ: [0, 1, 1, 1, 2, 3, 4, 17, 40],
    headsQ: [1, 2, 3, 4, 6, 8, 17],
    headsKv: { divides: 'headsQ' },
    pages: [1, 2, 5, 13, 40, 101],
    pageSize: [1, 2, 3, 8, 16, 16, 17, 32, 64, 100, 256],
    maxPages: [0, 1, 2, 3, 7, 19, 40],
    windowLeft: bounds,
    splits: [0, 1, 2, 3, 5, 100],
  },
  cases,
  models,
});
