// The operator attention_gqa as TypeScript sees it; kernels/attention_gqa/attention_gqa.h is its contract.
import { defineOp } from '../op.js';
import { flag, optionalInput, output } from '../spec.js';
import { cases } from './attention_gqa.cases.js';
import { models } from './attention_gqa.models.js';
import {
  dimRule,
  draw,
  f32s,
  flags,
  floats,
  i32s,
  keyLengths,
  keyOffsets,
  lengthRules,
  operands,
  scoring,
  workOf,
} from './attention_gqa.rules.js';

/**
 * Grouped-query attention: `y = softmax(scale q kᵀ + bias) v`, where each group of `headsQ / headsKv` query heads reads one
 * key/value head. Multi-query attention is `headsKv = 1`, multi-head attention `headsKv = headsQ`.
 *
 * The queries are the last of the keys: query `i` stands at place `p = i + lenKv - lenQ`, and `causal` lets it see the keys up
 * to there. `windowLeft` and `windowRight` bound how far it sees, `mask` names the keys that it sees, one flag for a block of
 * `maskBlockQ` x `maskBlockKv`. A row that sees no key gives 0 and an `lse` of -Infinity. Sequences of different length are
 * padded (`lensQ`, `lensKv`) or packed one after the other in one batch (`cuQ`, `cuKv`): their own lengths then count in all
 * this, and padding is never read. Sums are in f32; probabilities are rounded to the dtype of `q` before they multiply `v`, the
 * result once to that of `y`.
 *
 * | argument         | shape                                          | meaning                                              |
 * |------------------|------------------------------------------------|------------------------------------------------------|
 * | `q`              | `[batch, lenQ, headsQ, dim]`                   | queries; f32, bf16 or f16; dim up to 256             |
 * | `k`              | `[batch, lenKv, headsKv, dim]`                 | keys; the dtype of `q`                               |
 * | `v`              | `[batch, lenKv, headsKv, dimV]`                | values; the dtype of `q`; dimV up to 256             |
 * | `bias`           | `[batch or 1, headsQ or 1, lenQ, lenKv]`       | added to the scores                                  |
 * | `mask`           | `[batch or 1, headsQ or 1, blocksQ, blocksKv]` | u8; 0 hides a block of keys from a block of queries  |
 * | `alibi`, `sink`  | `[headsQ]`                                     | f32; slopes on the distance; logits of a key without value |
 * | `lensQ`, `lensKv` | `[batch]`                                      | i32; lengths within the padded `lenQ` and `lenKv`    |
 * | `cuQ`, `cuKv`    | `[sequences + 1]`                              | i32; where each packed sequence begins, and the end  |
 * | `y`              | `[batch, lenQ, headsQ, dimV]`                  | result                                               |
 * | `lse`            | `[batch, headsQ, lenQ]`                        | f32; natural logarithm of the sum of exponentials    |
 *
 * @returns `y`, in the dtype of `q` unless `options.dtype` says otherwise, and `lse` in f32, with which `attentionMerge` joins
 *   the results of parts of the keys.
 * @throws {KernwattError} `SHAPE` if sizes disagree, `headsKv` does not divide `headsQ` or `bias` does not broadcast; `INDEX` if
 *   a length is out of range or offsets decrease (before the launch where the contents are known here, else from
 *   `stream.mark()`); `DTYPE`; `ARGUMENT` if tensors are on different devices, overlap, or have a strided last dimension, or
 *   arguments exclude each other; `UNSUPPORTED` for a `dim` beyond 256 or if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Ainslie et al. 2023, https://arxiv.org/abs/2305.13245; Shazeer 2019, https://arxiv.org/abs/1911.02150
 */
export const attentionGqa = defineOp({
  name: 'attention_gqa',
  summary: 'Grouped-query, multi-query and multi-head attention: y = softmax(scale q kᵀ + bias) v',
  source:
    'Grouped-query attention: arXiv 2305.13245; multi-query: arXiv 1911.02150; online softmax: arXiv 1805.02867; ALiBi: arXiv 2108.12409; sinks: arXiv 2309.17453',
  tensors: {
    ...operands,
    /** Added to the scores after `scale` and `softcap`: `[batch or 1, headsQ or 1, lenQ, lenKv]`. */
    bias: optionalInput(['batch or 1', 'headsQ or 1', 'lenQ', 'lenKv'], { dtype: floats }),
    ...flags,
    /** Logit of each query head that joins the sum of exponentials, as a key with a value of zeros would. */
    sink: optionalInput(['headsQ'], { dtype: f32s }),
    /** Queries of each batch, from 0 to `lenQ`; rows beyond give 0 and an `lse` of -Infinity. */
    lensQ: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'lenQ', beyond: ['q'] } }),
    ...keyLengths,
    /** Packed: sequence `n` has the rows `cuQ[n]` to `cuQ[n + 1]` of `q`, whose batch is 1. Goes with `cuKv`, not with lengths. */
    cuQ: optionalInput(['sequences + 1'], { dtype: i32s, holds: { kind: 'offsets', of: 'lenQ', beyond: ['q'] } }),
    ...keyOffsets,
    /** Result, `[batch, lenQ, headsQ, dimV]`; allocated unless given. */
    y: output(['batch', 'lenQ', 'headsQ', 'dimV'], { dtype: floats, from: 'q' }),
    /** Natural logarithm of each row's sum of exponentials, `[batch, headsQ, lenQ]`; allocated unless given. */
    lse: output(['batch', 'headsQ', 'lenQ'], { dtype: f32s }),
  },
  params: {
    ...scoring,
    /** A row's result depends neither on what else is computed nor on how many threads do it. */
    batchInvariant: flag(false),
  },
  derive: {
    blocksQ: (d, p) => Math.ceil(d.lenQ / p.maskBlockQ),
    blocksKv: (d, p) => Math.ceil(d.lenKv / p.maskBlockKv),
  },
  rules: (d, p, given) => [...lengthRules(d, p, given), dimRule('dim', d.dim), dimRule('dimV', d.dimV)],
  work: (d, p, given) => workOf(d, p, given, 2 * (d.dim + d.dimV)),
  flops:
    '2 (`dim` + `dimV`) for each query head and each pair of a query and a key that `causal` and the window let it see; what `mask` and the lengths hide counts too, since they lie in device memory, and packed sequences count as equally long',
  draw: {
    ...draw,
    headsQ: [1, 2, 3, 4, 6, 8, 17],
  },
  cases,
  models,
});
