// The operator peak as TypeScript sees it; kernels/peak/peak.h is its contract.
import { defineOp } from '../op.js';
import { choice, input, integer, optionalInput, output } from '../spec.js';
import { cases } from './peak.cases.js';

const floats = ['f32', 'f16', 'bf16'] as const;
/** Columns that `multiply` and `spin` take at most. */
const mostColumns = 16;

const multiplies = (load: string): boolean => load === 'multiply' || load === 'spin';

/**
 * A load that keeps one part of the device busy and has a result that can be checked: what measured ceilings and `calibrate()`
 * are made of.
 *
 * `read` sums each row of `x`; `copy` copies it; `multiply` computes `Σ (-1)ᵗ x wᵀ` over `t` from 0 to `rounds` - 1 out of
 * registers, on the unit that the dtype decides: f32 by multiply-adds (use 1 column), f16 and bf16 by tensor cores or dot product
 * instructions where there are any (use 16); `spin` computes the same in one chain of dependent additions for each row, which
 * keeps the device awake with hardly any work. An odd number of rounds gives `x wᵀ`, an even one 0. Sums are in f32.
 *
 * | argument | shape               | meaning                                                      |
 * |----------|---------------------|--------------------------------------------------------------|
 * | `x`      | `[rows, columns]`   | f32, f16 or bf16; at most 16 columns to `multiply` or `spin` |
 * | `w`      | `[width, columns]`  | of `multiply` and `spin`; the dtype of `x`                   |
 * | `y`      | `[rows, outputs]`   | f32; outputs: 1 for `read`, columns for `copy`, else width   |
 *
 * @returns `y`.
 * @throws {KernwattError} `SHAPE` if sizes disagree or `multiply` has more than 16 columns; `DTYPE`; `ARGUMENT` if `w` is missing or
 *   not wanted, `rounds` is not 1 for `read` or `copy`, or tensors are on different devices, overlap, or have a strided last
 *   dimension; `UNSUPPORTED` if the backend declines; `OUT_OF_MEMORY`; `DISPOSED`.
 * @see Choi et al. 2013, A roofline model of energy, https://doi.org/10.1109/IPDPS.2013.77
 */
export const peak = defineOp({
  name: 'peak',
  summary: 'A load on memory or arithmetic with a defined result, for measured ceilings and calibration',
  source: 'loads of this kind calibrate the roofline of energy of Choi et al. 2013 (IPDPS)',
  tensors: {
    /** What is read, or the left operand: `[rows, columns]`. */
    x: input(['rows', 'columns'], { dtype: floats }),
    /** The right operand of `multiply` and `spin`, `[width, columns]`; the dtype of `x`. */
    w: optionalInput(['width', 'columns'], { dtype: { like: 'x' } }),
    /** Result, `[rows, outputs]`; allocated unless given. */
    y: output(['rows', 'outputs'], { dtype: ['f32'] }),
  },
  params: {
    /** Which part of the device works. */
    load: choice(['read', 'copy', 'multiply', 'spin'], 'read'),
    /** How often `multiply` and `spin` add their products, with alternating sign. */
    rounds: integer([1, 2 ** 31 - 1], 1),
  },
  derive: { outputs: (d, p) => (p.load === 'read' ? 1 : p.load === 'copy' ? d.columns : d.width) },
  rules: (d, p, given) => [
    multiplies(p.load) && !given.has('w') && ['ARGUMENT', `w is missing, expected a tensor with load ${p.load}`],
    !multiplies(p.load) && given.has('w') && ['ARGUMENT', `w is given, expected none with load ${p.load}`],
    !multiplies(p.load) && p.rounds !== 1 && ['ARGUMENT', `rounds is ${p.rounds}, expected 1 with load ${p.load}`],
    multiplies(p.load) &&
      d.columns > mostColumns && [
        'SHAPE',
        `x has columns ${d.columns}, expected at most ${mostColumns} with load ${p.load}`,
      ],
  ],
  work: (d, p) => ({
    flops: multiplies(p.load)
      ? 2 * d.rows * d.width * d.columns * p.rounds
      : p.load === 'read'
        ? d.rows * d.columns
        : 0,
  }),
  flops: '2 rows width columns rounds of `multiply` and `spin`; rows columns of `read`',
  draw: {
    rows: [0, 1, 2, 11, 12, 13, 40, 63, 64, 65, 130],
    columns: [0, 1, 1, 2, 5, 8, 15, 16, 16, 16, 33, 257],
    rounds: [1, 2, 3, 5, 8],
  },
  cases,
  models: [],
  synthetic: true,
});
