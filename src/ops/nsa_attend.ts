// The operator nsa_attend as TypeScript sees it; kernels/nsa_attend/nsa_attend.h is its contract.
import { defineOp } from '../op.js';
import { f32, flag, input, integer, optionalInput, output } from '../spec.js';
import { dimRule, f32s, floats, i32s, operands } from './attention_gqa.rules.js';
import { visiblePairs } from './attention_gqa.work.js';
import { cases, models } from './nsa_attend.cases.js';

/**
 * Native sparse attention, selection: every query attends to blocks of `block` keys that `blocks` names for it, the same for the query
 * heads of a group. Blocks that a query does not name are not touched: a call costs what its rows see, however long the sequence is.
 *
 * Query `i` stands at place `i + lensKv[b] - lensQ[b]` among the keys. With every block named it is `attentionGqa`.
 *
 * | argument  | shape                              | meaning                                                                     |
 * |-----------|------------------------------------|-----------------------------------------------------------------------------|
 * | `q`       | `[batch, lenQ, headsQ, dim]`       | queries; f32, bf16 or f16; dim up to 256                                    |
 * | `k`       | `[batch, lenKv, headsKv, dim]`     | keys; the dtype of `q`                                                      |
 * | `v`       | `[batch, lenKv, headsKv, dimV]`    | values; the dtype of `q`; dimV up to 256                                    |
 * | `blocks`  | `[batch, lenQ, headsKv, count]`    | i32; for each query and key head the blocks it sees, ascending, -1 from some entry on |
 * | `lensQ`   | `[batch]`                          | i32; queries of each sequence, up to `lenQ`                                 |
 * | `lensKv`  | `[batch]`                          | i32; keys of each sequence, up to `lenKv`                                   |
 * | `y`       | `[batch, lenQ, headsQ, dimV]`      | result                                                                      |
 * | `lse`     | `[batch, headsQ, lenQ]`            | f32; natural logarithm of the sum of exponentials                           |
 *
 * @returns `y`, in the dtype of `q` unless `options.dtype` says otherwise, and `lse` in f32. A row that sees no key gives 0 and -Infinity.
 * @throws {KernwattError} `SHAPE` if sizes disagree or `headsKv` does not divide `headsQ`; `INDEX` if a length is out of range, or an entry
 *   of `blocks` before the first -1 is not above the one before it and below `ceil(lenKv / block)`, before the launch where the contents
 *   are known here, else from `stream.mark()`: a length then counts as the nearest that is possible, and the row ends before such an entry,
 *   `blocks[37, 3]` being entry 3 of row 37 over batch, query and key head; `DTYPE`; `ARGUMENT` if tensors are on different devices, overlap,
 *   or have a strided last dimension; `UNSUPPORTED` for a `dim` beyond 256 or if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Yuan et al. 2025, https://arxiv.org/abs/2502.11089
 */
export const nsaAttend = defineOp({
  name: 'nsa_attend',
  summary: 'Native sparse attention: each query attends to blocks of keys that are named for it',
  source: 'Yuan et al. 2025 (arXiv 2502.11089), section 3.3.2; online softmax: arXiv 1805.02867',
  tensors: {
    ...operands,
    /** Blocks that each query sees, by key head, `[batch, lenQ, headsKv, count]`: ascending, and -1 from some entry on. */
    blocks: input(['batch', 'lenQ', 'headsKv', 'count'], {
      dtype: i32s,
      holds: { kind: 'selection', of: 'reach', lengths: 'lensQ' },
    }),
    /** Queries of each sequence, from 0 to `lenQ`; rows beyond give 0 and an `lse` of -Infinity. */
    lensQ: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'lenQ', beyond: ['q'] } }),
    /** Keys of each sequence, from 0 to `lenKv`. */
    lensKv: optionalInput(['batch'], { dtype: i32s, holds: { kind: 'lengths', of: 'lenKv', beyond: ['k', 'v'] } }),
    /** Result, `[batch, lenQ, headsQ, dimV]`; allocated unless given. */
    y: output(['batch', 'lenQ', 'headsQ', 'dimV'], { dtype: floats, from: 'q' }),
    /** Natural logarithm of each row's sum of exponentials, `[batch, headsQ, lenQ]`; allocated unless given. */
    lse: output(['batch', 'headsQ', 'lenQ'], { dtype: f32s }),
  },
  params: {
    /** Multiplies `q kᵀ`. */
    scale: f32((d) => 1 / Math.sqrt(d.dim!), '`1 / sqrt(dim)`'),
    /** Keys of a block. */
    block: integer([1, 2 ** 31 - 1], 64),
    /** Query `i` sees the keys up to its own place, so that the last query sees all of those it names. */
    causal: flag(true),
  },
  derive: { reach: (d, p) => Math.ceil(d.lenKv / p.block) },
  rules: (d) => [
    (d.headsKv === 0 ? d.headsQ !== 0 : d.headsQ % d.headsKv !== 0) && [
      'SHAPE',
      `headsKv ${d.headsKv} does not divide headsQ ${d.headsQ}`,
    ],
    dimRule('dim', d.dim),
    dimRule('dimV', d.dimV),
  ],
  work: (d, p) => {
    const most = d.count * p.block;
    const seen = p.causal
      ? most === 0
        ? 0
        : visiblePairs(d, { causal: true, windowLeft: most - 1, windowRight: -1 })
      : d.lenQ * Math.min(d.lenKv, most);
    const read = d.lenKv === 0 ? 0 : Math.min(1, (d.lenQ * most) / d.lenKv);
    return {
      flops: Math.round(2 * (d.dim + d.dimV) * d.headsQ * d.batch * seen),
      read: { k: read, v: read },
      tokens: d.batch * d.lenQ,
    };
  },
  flops:
    '2 (`dim` + `dimV`) for each query head and each pair of a query and a key, of which a query sees `count` `block`, or all before it where these are fewer: what `blocks` holds lies in device memory',
  draw: {
    batch: [0, 1, 1, 2, 3],
    lenQ: [0, 1, 1, 2, 3, 17, 40],
    lenKv: [0, 1, 15, 16, 17, 64, 65, 100, 257, 600],
    headsQ: [1, 2, 3, 4, 6, 8, 17, 34],
    headsKv: { divides: 'headsQ' },
    count: [0, 1, 2, 3, 5, 16, 33, 40],
    block: [1, 2, 3, 8, 16, 16, 17, 32, 64, 100],
  },
  cases,
  models,
});
