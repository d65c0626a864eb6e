// What MCR needs to know of a plan's weights: the bits they are named after, the bytes they take with everything that has to be stored.
import { bitsOf } from '../dtype.js';
import type { Compression, KeptPerformance } from '../metrics/mcr.js';
import type { Plan } from '../plan.js';

export const toItself = 'relative to itself the ratio is 1 by definition';

/** Or why there is none: relative to the dtype of the first operand, in which the weight would be multiplied otherwise. */
export function compressionOf(plan: Plan, fidelity: KeptPerformance | undefined): Compression | string {
  const { op, dims, params, args, dtype } = plan;
  const { weights = [], withWeights = [] } = op.work(dims, params, new Set(Object.keys(args)));
  const [name] = weights;
  if (name === undefined || dtype === null) return `this operator has no weights; ${toItself}`;
  const weight = args[name]!;
  if (bitsOf(weight.dtype) >= 8) return `${name} is stored as it came, uncompressed; ${toItself}`;
  if (!fidelity)
    return `${name} is ${weight.dtype}, and a measurement does not know how close results are to those of the weight it was made from`;
  const sum = (names: readonly string[], of: 'bytes' | 'size') =>
    names.reduce((all, one) => all + (args[one]?.[of] ?? 0), 0);
  return {
    baseline: dtype,
    nominalBits: { baseline: bitsOf(dtype), stored: bitsOf(weight.dtype) },
    bytes: {
      baseline: (sum(weights, 'size') * bitsOf(dtype)) / 8,
      stored: sum([...weights, ...withWeights], 'bytes'),
    },
    fidelity,
  };
}
