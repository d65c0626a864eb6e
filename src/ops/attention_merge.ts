// The operator attention_merge as TypeScript sees it; kernels/attention_merge/attention_merge.h is its contract.
import { defineOp } from '../op.js';
import { input, output } from '../spec.js';
import { cases, models } from './attention_merge.cases.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const f32s = ['f32'] as const;

/**
 * Merges attention over parts of the keys into attention over all of them: `y = Σ exp(lseParts - lse) yParts`, where
 * `lse = ln Σ exp(lseParts)`.
 *
 * Exact when the parts see disjoint keys. A part whose `lseParts` is -Infinity has seen none: its `yParts` is not read; a row of
 * such parts alone gives 0 and an `lse` of -Infinity. A sink counts like a key, so only one part may have it. Results may be
 * merged again. Sums are in f32, rounded once to the dtype of `y`.
 *
 * | argument   | shape                                   | meaning                                               |
 * |------------|-----------------------------------------|-------------------------------------------------------|
 * | `yParts`   | `[parts, batch, lenQ, headsQ, dimV]`    | results of `attentionGqa`; f32, bf16 or f16           |
 * | `lseParts` | `[parts, batch, headsQ, lenQ]`          | f32; their `lse`                                      |
 * | `y`        | `[batch, lenQ, headsQ, dimV]`           | result                                                |
 * | `lse`      | `[batch, headsQ, lenQ]`                 | f32; its `lse`                                        |
 *
 * @returns `y`, in the dtype of `yParts` unless `options.dtype` says otherwise, and `lse` in f32.
 * @throws {KernwattError} `SHAPE` if sizes disagree; `DTYPE`; `ARGUMENT` if tensors are on different devices, overlap, or have a
 *   strided last dimension; `UNSUPPORTED` if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Rabe and Staats 2021, https://arxiv.org/abs/2112.05682; Dao et al. 2022, https://arxiv.org/abs/2205.14135
 */
export const attentionMerge = defineOp({
  name: 'attention_merge',
  summary: 'Attention over parts of the keys, merged by their logarithms of sums of exponentials',
  source: 'Rabe and Staats 2021 (arXiv 2112.05682); Dao et al. 2022 (arXiv 2205.14135)',
  tensors: {
    /** Results for each part of the keys, `[parts, batch, lenQ, headsQ, dimV]`. */
    yParts: input(['parts', 'batch', 'lenQ', 'headsQ', 'dimV'], { dtype: floats }),
    /** Their natural logarithms of sums of exponentials, `[parts, batch, headsQ, lenQ]`. */
    lseParts: input(['parts', 'batch', 'headsQ', 'lenQ'], { dtype: f32s }),
    /** Result, `[batch, lenQ, headsQ, dimV]`; allocated unless given. */
    y: output(['batch', 'lenQ', 'headsQ', 'dimV'], { dtype: floats, from: 'yParts' }),
    /** Logarithm of the sum over all keys, `[batch, headsQ, lenQ]`; allocated unless given. */
    lse: output(['batch', 'headsQ', 'lenQ'], { dtype: f32s }),
  },
  params: {},
  work: (d) => ({
    flops: 2 * d.parts * d.batch * d.lenQ * d.headsQ * d.dimV,
    tokens: d.batch * d.lenQ,
  }),
  flops: '2 for each element of `yParts`; the weights are not counted',
  draw: { parts: [0, 1, 2, 3, 5, 8], batch: [0, 1, 1, 2, 3], headsQ: [1, 2, 3, 4, 8] },
  cases,
  models,
});
