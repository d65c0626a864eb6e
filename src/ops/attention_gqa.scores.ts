// Cases of attention_gqa for everything that acts on scores: scale, softcap, slopes, sinks, biases, masks, lengths, packing.
import type { BroadcastForm, Case } from '../case.js';
import {
  base,
  exactly,
  floats,
  lensKv,
  lensQ,
  maskDims,
  none,
  noSequence,
  own,
  packed,
  packedDims,
  paddedDims,
  qOf,
  scoreDims,
  two,
} from './attention_gqa.base.js';

export function scoreCases(): Case[] {
  return [...plainCases(), ...uniformCases(), ...biasCases(), ...maskCases(), ...lengthCases(), ...packedCases()];
}

/** What happens to scores: scale, softcap, slopes, sinks. */
function plainCases(): Case[] {
  const variants: Pick<Case, 'params' | 'with'>[] = [
    { params: { scale: 0 } },
    { params: { scale: -0.3 } },
    { params: { scale: 4 } },
    { params: { softcap: 15 } },
    { params: { softcap: 0.5, scale: 3 } },
    { params: { softcap: 2, causal: true }, with: ['bias'] },
    { with: ['alibi'] },
    { params: { causal: true }, with: ['alibi'] },
    { with: ['sink'] },
    { params: { causal: true, windowLeft: 8 }, with: ['sink'] },
    { params: { softcap: 10, causal: true }, with: ['alibi', 'sink'] },
  ];
  // None, ordinary, nearly all of the sum, and so much that the exponentials of the keys underflow.
  const sinks = [none, 0, 8, 1000];
  return floats.flatMap((dtype) => [
    ...variants.map((v) => {
      const said = [...Object.entries(v.params ?? {}).map(([name, value]) => `${name} ${value}`), ...(v.with ?? [])];
      return { ...v, name: `${dtype}, ${said.join(', ')}`, dims: scoreDims, dtypes: qOf(dtype) };
    }),
    ...[scoreDims, { ...scoreDims, lenQ: 1, lenKv: 300 }].map((d) => ({
      name: `${dtype}, sinks from none to all, ${d.lenQ} x ${d.lenKv}`,
      dims: d,
      dtypes: qOf(dtype),
      with: ['sink'],
      values: { sink: sinks },
    })),
    {
      name: `${dtype}, sinks of rows that see no key`,
      dims: scoreDims,
      dtypes: qOf(dtype),
      with: ['sink', 'mask'],
      values: { sink: sinks, mask: 0 },
      exact: exactly,
    },
  ]);
}

/** Equal scores and a power of two of visible keys: the mean of their values has no rounding. */
function uniformCases(): Case[] {
  const lengths = [
    [1, 64],
    [40, 120],
    [129, 200],
  ] as const;
  return floats.flatMap((dtype) => [
    ...lengths.flatMap(([lenQ, lenKv]) =>
      [2, 16, 64].map((keys) => ({
        name: `${dtype}, mean of ${keys} values, ${lenQ} x ${lenKv}`,
        dims: { ...base, lenQ, lenKv, dim: 40, dimV: 40 },
        params: { causal: true, windowLeft: keys - 1 },
        dtypes: qOf(dtype),
        values: { q: 0 },
        exact: exactly,
      })),
    ),
    {
      name: `${dtype}, mean of 3 values and a sink`,
      dims: { ...base, lenQ: 30, lenKv: 32 },
      params: { causal: true, windowLeft: 2 },
      dtypes: qOf(dtype),
      with: ['sink'],
      values: { q: 0, sink: 0 },
      exact: exactly,
    },
  ]);
}

/** Biases of every form of broadcasting, and ones that hide keys. */
function biasCases(): Case[] {
  const forms: Record<string, BroadcastForm>[] = ['full', 'one', 'shared'].flatMap((batch) =>
    ['full', 'one', 'shared'].map((heads) => ({
      'bias.batch': batch as BroadcastForm,
      'bias.headsQ': heads as BroadcastForm,
    })),
  );
  const dims = { ...base, batch: 2, lenQ: 19, lenKv: 70, headsQ: 4, headsKv: 2 };
  const hidden = Array.from({ length: 3 * 40 }, (_, i) => (i < 40 || i % 3 === 0 ? none : (i % 7) - 3));
  return two.flatMap((dtype): Case[] => [
    ...forms.map((broadcast) => ({
      name: `${dtype}, bias, ${Object.entries(broadcast)
        .map(([place, form]) => `${place.slice(5)} ${form}`)
        .join(', ')}`,
      dims,
      dtypes: { q: dtype, bias: dtype },
      with: ['bias'],
      broadcast,
    })),
    {
      name: `${dtype}, bias of -Infinity hides a row and every third key`,
      dims: { ...base, lenQ: 3, lenKv: 40 },
      dtypes: qOf(dtype),
      with: ['bias'],
      broadcast: { 'bias.headsQ': 'one' },
      values: { bias: hidden },
    },
    {
      name: `${dtype}, bias of -Infinity hides everything`,
      dims: base,
      dtypes: qOf(dtype),
      with: ['bias'],
      values: { bias: none },
      exact: true,
    },
  ]);
}

/** Flags for single pairs and for blocks, with every form of broadcasting. */
function maskCases(): Case[] {
  const blocks = [
    [1, 1],
    [16, 16],
    [1, 64],
    [64, 1],
    [7, 5],
    [32, 64],
    [128, 128],
    [1000, 1000],
  ] as const;
  const forms: Record<string, BroadcastForm>[] = [
    { mask: 'one' },
    { 'mask.headsQ': 'one' },
    { mask: 'one', 'mask.headsQ': 'one' },
    { mask: 'shared', 'mask.headsQ': 'shared' },
  ];
  return two.flatMap((dtype): Case[] => [
    ...blocks.flatMap(([maskBlockQ, maskBlockKv]) =>
      [false, true].map((causal) => ({
        name: `${dtype}, mask of ${maskBlockQ} x ${maskBlockKv}${causal ? ', causal' : ''}`,
        dims: maskDims,
        params: { maskBlockQ, maskBlockKv, causal },
        dtypes: qOf(dtype),
        with: ['mask'],
      })),
    ),
    ...forms.map((broadcast) => ({
      name: `${dtype}, mask, ${Object.entries(broadcast).flat().join(' ')}`,
      dims: maskDims,
      params: { maskBlockKv: 3 },
      dtypes: qOf(dtype),
      with: ['mask'],
      broadcast,
    })),
    {
      name: `${dtype}, mask of zeros`,
      dims: maskDims,
      dtypes: qOf(dtype),
      with: ['mask'],
      values: { mask: 0 },
      exact: true,
    },
    { name: `${dtype}, mask of 255`, dims: maskDims, dtypes: qOf(dtype), with: ['mask'], values: { mask: 255 } },
  ]);
}

/** Padded batches; what lies past a length is NaN. */
function lengthCases(): Case[] {
  const params = [{}, { causal: true }, { windowLeft: 9, windowRight: 3 }];
  const sets = [{ lensQ }, { lensKv }, { lensQ, lensKv }];
  return two.flatMap((dtype) => [
    ...sets.flatMap((values) =>
      params.map((p) => ({
        name: `${dtype}, ${Object.keys(values).join(' and ')}${Object.entries(p)
          .map(([name, value]) => `, ${name} ${value}`)
          .join('')}`,
        dims: paddedDims,
        params: p,
        dtypes: qOf(dtype),
        with: Object.keys(values),
        values,
      })),
    ),
    {
      name: `${dtype}, lengths with everything else`,
      dims: paddedDims,
      params: { causal: true, windowLeft: 40, maskBlockQ: 16, maskBlockKv: 16 },
      dtypes: qOf(dtype),
      with: ['lensQ', 'lensKv', 'bias', 'mask', 'alibi', 'sink'],
      values: { lensQ, lensKv },
    },
    {
      name: `${dtype}, lengths, own key`,
      dims: { ...paddedDims, lenQ: 30, lenKv: 30 },
      params: own,
      dtypes: qOf(dtype),
      with: ['lensQ', 'lensKv'],
      values: { lensQ: [30, 1, 0, 17], lensKv: [30, 29, 5, 17] },
      exact: exactly,
    },
  ]);
}

/** Sequences one after the other, empty ones, and rows that belong to none. */
function packedCases(): Case[] {
  const sets = {
    ...packed,
    one: { cuQ: [0, 150], cuKv: [0, 170] },
    none: noSequence,
    decodes: { cuQ: [0, 1, 2, 3, 4], cuKv: [0, 60, 61, 61, 170] },
  };
  return two.flatMap((dtype) =>
    Object.entries(sets).flatMap(([name, values]) =>
      [{}, { causal: true, windowLeft: 30 }].flatMap((params) => {
        const one = {
          dims: { ...packedDims, lenQ: name === 'decodes' ? 4 : 150, sequences: values.cuQ.length - 1 },
          params,
          dtypes: qOf(dtype),
          values,
        };
        const said = `${dtype}, packed, ${name}${params.causal ? ', causal window' : ''}`;
        return [
          { ...one, name: said, with: ['cuQ', 'cuKv'] },
          ...(name === 'three sequences'
            ? [
                {
                  ...one,
                  name: `${said}, everything else`,
                  with: ['cuQ', 'cuKv', 'bias', 'mask', 'alibi', 'sink'],
                },
              ]
            : []),
        ];
      }),
    ),
  );
}
