// What attention_gqa and attention_gqa_backward declare alike: bounds of parameters, rules on sizes, and the cost of a call.
import type { RuleCode } from '../solve.js';
import type { Given } from '../spec.js';
import { type Bounds, keysRead, visiblePairs } from './attention_gqa.work.js';

/** Sizes with a kernel of their own. */
const compiled = [32, 64, 96, 128, 192, 256];
const most = Math.max(...compiled);
export const noBound = [-1, 2 ** 31 - 1] as const;
export const block = [1, 2 ** 31 - 1] as const;
/** What random cases use. */
export const bounds = [-1, 0, 1, 7, 31, 32, 63, 64, 65, 100, 300];
export const blocks = [1, 1, 1, 2, 3, 7, 16, 32, 64, 65, 128, 1000];

interface Sizes {
  batch: number;
  sequences: number;
  lenQ: number;
  lenKv: number;
  headsQ: number;
  headsKv: number;
}

interface Params extends Bounds {
  softcap: number;
  maskBlockQ: number;
  maskBlockKv: number;
}

type Rule = false | readonly [RuleCode, string];

export const dimRule = (name: string, size: number): Rule =>
  (size < 1 || size > most) && [
    'UNSUPPORTED',
    `${name} is ${size}, expected 1 to ${most}: kernels exist for ${compiled.join(', ')}, and pad other sizes with zeros`,
  ];

/** Heads, lengths, masks and factors. */
export function lengthRules(d: Sizes, p: Params, given: Given): Rule[] {
  const padded = given.has('lensQ') ? 'lensQ' : given.has('lensKv') ? 'lensKv' : undefined;
  const packed = given.has('cuQ') ? 'cuQ' : given.has('cuKv') ? 'cuKv' : undefined;
  const other = packed === 'cuQ' ? 'cuKv' : 'cuQ';
  return [
    (d.headsKv === 0 ? d.headsQ !== 0 : d.headsQ % d.headsKv !== 0) && [
      'SHAPE',
      `headsKv ${d.headsKv} does not divide headsQ ${d.headsQ}`,
    ],
    packed !== undefined && !given.has(other) && ['ARGUMENT', `${other} is missing, expected with ${packed}`],
    packed !== undefined &&
      padded !== undefined && ['ARGUMENT', `${padded} is given with ${packed}, expected lengths or packed sequences`],
    packed !== undefined && d.batch !== 1 && ['SHAPE', `q has batch ${d.batch}, expected 1 with ${packed}`],
    p.softcap < 0 && ['ARGUMENT', `softcap is ${p.softcap}, expected 0 or more`],
    ...(['maskBlockQ', 'maskBlockKv'] as const).map(
      (name) =>
        p[name] !== 1 && !given.has('mask') && (['ARGUMENT', `${name} is ${p[name]}, but mask is missing`] as const),
    ),
  ];
}

/** `pairFlops` for each head and visible pair. Packed sequences count as equally long: their lengths are in device memory. */
export function workOf(d: Sizes, p: Bounds, given: Given, pairFlops: number) {
  const packed = given.has('cuQ');
  const sequences = packed ? d.sequences : d.batch;
  const shape = packed ? { lenQ: d.lenQ / Math.max(1, d.sequences), lenKv: d.lenKv / Math.max(1, d.sequences) } : d;
  const read = packed ? 1 : keysRead(shape, p);
  return {
    flops: Math.round(pairFlops * d.headsQ * sequences * visiblePairs(shape, p)),
    read: { k: read, v: read },
    tokens: d.batch * d.lenQ,
  };
}
