// The operator attention_gqa_backward as TypeScript sees it; kernels/attention_gqa_backward/attention_gqa_backward.h is its contract.
import { defineOp } from '../op.js';
import { input, optionalInput, output } from '../spec.js';
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
import { cases, models } from './attention_gqa_backward.cases.js';

/**
 * The gradients of `attentionGqa`: of a loss by `q`, `k`, `v`, `bias` and `sink`, from its gradient `dy` by the result (and `dlse` by
 * the logarithms), the result `y` and the logarithms `lse`.
 *
 * Probabilities are computed again from `lse`, so that nothing of size `lenQ` x `lenKv` is kept between the two. All arguments that
 * `attentionGqa` was given have to be given again; `alibi` gets no gradient. Gradients of a key/value head are sums over its group.
 * Rows that see no key, and keys that nobody sees, get 0. The same inputs give the same bits, whatever the number of threads.
 * Sums are in f32; probabilities and gradients of scores are rounded to the dtype of `q` before they multiply, results once.
 * It does five products where the forward does two: on the CPU, 16 heads of 64 or 128 and 1024 tokens of f32 or bf16 took 2.6 to 2.8
 * times as long as their forward (`compare()`, two cores, AVX-512). `examples/attention-gradients.mjs` is a training step with it.
 *
 * | argument         | shape                                          | meaning                                              |
 * |------------------|------------------------------------------------|------------------------------------------------------|
 * | `q`              | `[batch, lenQ, headsQ, dim]`                   | queries; f32, bf16 or f16; dim up to 256             |
 * | `k`              | `[batch, lenKv, headsKv, dim]`                 | keys; the dtype of `q`                               |
 * | `v`              | `[batch, lenKv, headsKv, dimV]`                | values; the dtype of `q`; dimV up to 256             |
 * | `y`              | `[batch, lenQ, headsQ, dimV]`                  | the result of `attentionGqa`                         |
 * | `lse`            | `[batch, headsQ, lenQ]`                        | f32; its logarithms                                  |
 * | `dy`             | `[batch, lenQ, headsQ, dimV]`                  | gradient by `y`; the dtype of `q`                    |
 * | `dlse`           | `[batch, headsQ, lenQ]`                        | f32; gradient by `lse`; 0 when absent                |
 * | `bias`           | `[biasBatch, biasHeads, lenQ, lenKv]`          | as given there; `biasBatch` is 1 or `batch`, `biasHeads` 1 or `headsQ` |
 * | `mask`           | `[batch or 1, headsQ or 1, blocksQ, blocksKv]` | u8; as given there                                   |
 * | `alibi`          | `[headsQ]`                                     | f32; as given there                                  |
 * | `sink`           | `[sinkHeads]`                                  | f32; as given there; `sinkHeads` is `headsQ`         |
 * | `lensQ`, `lensKv` | `[batch]`                                     | i32; as given there                                  |
 * | `cuQ`, `cuKv`    | `[sequences + 1]`                              | i32; as given there                                  |
 * | `dq`             | `[batch, lenQ, headsQ, dim]`                   | gradient by `q`                                      |
 * | `dk`             | `[batch, lenKv, headsKv, dim]`                 | gradient by `k`                                      |
 * | `dv`             | `[batch, lenKv, headsKv, dimV]`                | gradient by `v`                                      |
 * | `dbias`          | `[biasBatch, biasHeads, lenQ, lenKv]`          | gradient by `bias`; without elements when there is none |
 * | `dsink`          | `[sinkHeads]`                                  | f32; gradient by `sink`; without elements when there is none |
 *
 * @example
 * const { y, lse } = attentionGqa({ q, k, v, causal: true });
 * const { dq, dk, dv } = attentionGqaBackward({ q, k, v, y, lse, dy, causal: true });
 * @returns `dq`, `dk`, `dv` and `dbias`, in the dtype of `q` unless `options.dtype` says otherwise, and `dsink` in f32.
 * @throws {KernwattError} `SHAPE` if sizes disagree, those of `y` or `lse` among them, or `headsKv` does not divide `headsQ`;
 *   `INDEX` if a length is out of range or offsets decrease; `DTYPE`; `ARGUMENT` if tensors are on different devices, overlap, or have
 *   a strided last dimension, or arguments exclude each other; `UNSUPPORTED` for a `dim` beyond 256 or if the backend declines;
 *   `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Dao et al. 2022, https://arxiv.org/abs/2205.14135; Dao 2023, https://arxiv.org/abs/2307.08691
 */
export const attentionGqaBackward = defineOp({
  name: 'attention_gqa_backward',
  summary: 'Gradients of grouped-query, multi-query and multi-head attention by q, k, v, bias and sink',
  source: 'Attention with recomputation: arXiv 2205.14135; arXiv 2307.08691',
  tensors: {
    ...operands,
    /** Result of `attentionGqa`, `[batch, lenQ, headsQ, dimV]`. */
    y: input(['batch', 'lenQ', 'headsQ', 'dimV'], { dtype: floats }),
    /** Its logarithms of sums of exponentials, `[batch, headsQ, lenQ]`. */
    lse: input(['batch', 'headsQ', 'lenQ'], { dtype: f32s }),
    /** Gradient by `y`, `[batch, lenQ, headsQ, dimV]`; the dtype of `q`. */
    dy: input(['batch', 'lenQ', 'headsQ', 'dimV'], { dtype: { like: 'q' } }),
    /** Gradient by `lse`, `[batch, headsQ, lenQ]`, for a loss that depends on it, such as one of merged parts. */
    dlse: optionalInput(['batch', 'headsQ', 'lenQ'], { dtype: f32s }),
    /** Added to the scores after `scale` and `softcap`: `[1 or batch, 1 or headsQ, lenQ, lenKv]`. */
    bias: optionalInput(['biasBatch', 'biasHeads', 'lenQ', 'lenKv'], { dtype: floats }),
    ...flags,
    /** Logit of each query head that joins the sum of exponentials. */
    sink: optionalInput(['sinkHeads'], { dtype: f32s }),
    /** Queries of each batch, from 0 to `lenQ`; rows beyond get 0. */
    lensQ: optionalInput(['batch'], {
      dtype: i32s,
      holds: { kind: 'lengths', of: 'lenQ', beyond: ['q', 'y', 'lse', 'dy', 'dlse'] },
    }),
    ...keyLengths,
    /** Packed: sequence `n` has the rows `cuQ[n]` to `cuQ[n + 1]` of `q`, whose batch is 1. Goes with `cuKv`, not with lengths. */
    cuQ: optionalInput(['sequences + 1'], {
      dtype: i32s,
      holds: { kind: 'offsets', of: 'lenQ', beyond: ['q', 'y', 'lse', 'dy', 'dlse'] },
    }),
    ...keyOffsets,
    /** Gradient by `q`, `[batch, lenQ, headsQ, dim]`; allocated unless given. */
    dq: output(['batch', 'lenQ', 'headsQ', 'dim'], { dtype: floats, from: 'q' }),
    /** Gradient by `k`, `[batch, lenKv, headsKv, dim]`; allocated unless given. */
    dk: output(['batch', 'lenKv', 'headsKv', 'dim'], { dtype: floats, from: 'q' }),
    /** Gradient by `v`, `[batch, lenKv, headsKv, dimV]`; allocated unless given. */
    dv: output(['batch', 'lenKv', 'headsKv', 'dimV'], { dtype: floats, from: 'q' }),
    /** Gradient by `bias`, in its shape, summed over what it is shared by; allocated unless given. */
    dbias: output(['biasBatch', 'biasHeads', 'lenQ', 'lenKv'], { dtype: floats, from: 'q' }),
    /** Gradient by `sink`, in its shape; allocated unless given. */
    dsink: output(['sinkHeads'], { dtype: f32s }),
  },
  params: scoring,
  derive: {
    blocksQ: (d, p) => Math.ceil(d.lenQ / p.maskBlockQ),
    blocksKv: (d, p) => Math.ceil(d.lenKv / p.maskBlockKv),
  },
  rules: (d, p, given) => [
    ...lengthRules(d, p, given),
    dimRule('dim', d.dim),
    dimRule('dimV', d.dimV),
    given.has('bias') &&
      d.biasBatch !== 1 &&
      d.biasBatch !== d.batch && [
        'SHAPE',
        `bias has batch ${d.biasBatch}, but q has ${d.batch}; expected ${d.batch === 1 ? '1' : `${d.batch} or 1`}`,
      ],
    given.has('bias') &&
      d.biasHeads !== 1 &&
      d.biasHeads !== d.headsQ && [
        'SHAPE',
        `bias has headsQ ${d.biasHeads}, but q has ${d.headsQ}; expected ${d.headsQ === 1 ? '1' : `${d.headsQ} or 1`}`,
      ],
    given.has('sink') && d.sinkHeads !== d.headsQ && ['SHAPE', `sink has headsQ ${d.sinkHeads}, but q has ${d.headsQ}`],
  ],
  work: (d, p, given) => workOf(d, p, given, 2 * (3 * d.dim + 2 * d.dimV)),
  flops:
    '6 `dim` + 4 `dimV` for each query head and each pair of a query and a key that `causal` and the window let it see, five products where the forward has two; `mask`, lengths and packed sequences count as in `attention_gqa`',
  draw: {
    ...draw,
    biasBatch: [1, 1, 1, 2, 3],
    headsQ: [1, 2, 3, 4, 6, 8],
    biasHeads: [1, 1, 1, 2, 3, 4],
    sinkHeads: [1, 2, 3, 4, 6, 8],
  },
  cases,
  models,
});
