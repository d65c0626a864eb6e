// MCR, model compression rate: (size / size') * (performance' / performance)   (EfficientLLM eq. 9).
// The paper's tables use nominal bits (16 / 4 = 4) and ignore scales, zero points and padding. Here: that number, and beside it
// the ratio of true stored bytes; both times the same fidelity, whose kind is named.
import { known, missing, type Quantity } from '../measure/quantity.js';

export interface Mcr {
  paper: { MCR: Quantity };
  honest: { MCR: Quantity };
}

export interface Compression {
  /** What the weights are relative to, e.g. 'bf16'. */
  baseline: string;
  nominalBits: { baseline: number; stored: number };
  /** Bytes with everything that has to be stored: scales, zero points, padding. */
  bytes: { baseline: number; stored: number };
  fidelity: KeptPerformance;
}

/** performance' / performance and how it was taken, e.g. '1 - relative error of y'. */
export interface KeptPerformance {
  value: number;
  kind: string;
}

/** A sentence in its place says why there is no number. */
export function mcr(compression: Compression | string): Mcr {
  if (typeof compression === 'string') {
    const none = missing('1', compression);
    return { paper: { MCR: none }, honest: { MCR: none } };
  }
  const { baseline, nominalBits, bytes, fidelity } = compression;
  const times = `times ${fidelity.kind}, relative to ${baseline}`;
  return {
    paper: {
      MCR: known((nominalBits.baseline / nominalBits.stored) * fidelity.value, '1', `nominal bits ${times}`),
    },
    honest: { MCR: known((bytes.baseline / bytes.stored) * fidelity.value, '1', `stored bytes ${times}`) },
  };
}
