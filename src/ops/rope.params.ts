// The parameters that say how rope turns, for every operator that does: their declarations, and what cannot be.
import type { RuleCode } from '../solve.js';
import { choice, f32, flag, integer, type ParamValues } from '../spec.js';

/** Whatever is no finite positive number is refused here; `f32` lets any finite number pass. */
export const ropeParams = {
  interleaved: flag(false),
  dimRotary: integer([0, 2 ** 20], 0),
  theta: f32(10000),
  scaling: choice(['none', 'linear', 'llama3', 'yarn'], 'none'),
  factor: f32(1),
  lowFreqFactor: f32(1),
  highFreqFactor: f32(4),
  originalContext: integer([1, 2 ** 31 - 1], 8192),
  betaFast: f32(32),
  betaSlow: f32(1),
  attentionFactor: f32(0),
} as const;

/** Rules of heads with `dim` columns. */
export function ropeRules(
  dim: number,
  p: ParamValues<typeof ropeParams>,
): readonly (false | readonly [RuleCode, string])[] {
  const positive = (name: 'theta' | 'factor' | 'betaSlow') =>
    Math.fround(p[name]) <= 0 && (['ARGUMENT', `${name} is ${p[name]}, expected a number above 0`] as const);
  return [
    p.dimRotary > dim && ['SHAPE', `dimRotary is ${p.dimRotary}, expected at most dim ${dim}`],
    p.dimRotary % 2 !== 0 && ['ARGUMENT', `dimRotary is ${p.dimRotary}, expected an even number`],
    p.dimRotary === 0 && dim % 2 !== 0 && ['SHAPE', `dim is ${dim}, expected an even number, or an even dimRotary`],
    positive('theta'),
    positive('factor'),
    p.scaling === 'llama3' &&
      !(0 < p.lowFreqFactor && p.lowFreqFactor < p.highFreqFactor) && [
        'ARGUMENT',
        `lowFreqFactor is ${p.lowFreqFactor}, expected above 0 and below highFreqFactor ${p.highFreqFactor}`,
      ],
    p.scaling === 'yarn' && positive('betaSlow'),
    p.scaling === 'yarn' &&
      p.betaFast <= p.betaSlow && ['ARGUMENT', `betaFast is ${p.betaFast}, expected above betaSlow ${p.betaSlow}`],
    p.scaling === 'yarn' && p.theta <= 1 && ['ARGUMENT', `theta is ${p.theta}, expected above 1 with yarn`],
    p.attentionFactor < 0 && ['ARGUMENT', `attentionFactor is ${p.attentionFactor}, expected 0 or above`],
    p.attentionFactor !== 0 &&
      p.scaling !== 'yarn' && [
        'ARGUMENT',
        `attentionFactor is given with scaling ${p.scaling}, expected it with yarn alone`,
      ],
  ];
}

/** What random cases draw them from. */
export const ropeDraw = {
  dimRotary: [0, 0, 2, 8, 16, 32, 64],
  theta: [10000, 500000, 1e6, 50],
  factor: [1, 2, 8, 32],
  lowFreqFactor: [1, 0.5],
  highFreqFactor: [4, 8],
  originalContext: [1, 128, 4096, 8192],
  betaFast: [32, 16],
  betaSlow: [1, 2],
  attentionFactor: [0, 0, 1.25],
};
