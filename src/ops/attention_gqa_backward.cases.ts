// Cases that every backend of attention_gqa_backward must get right. lse is no result of a forward here, but a number: about the
// logarithm of how many keys there are, so that probabilities add up to 1 or so; or one far below every score, which makes them
// all 1, and sums of whole numbers exact.
import type { Case, Model } from '../case.js';
import {
  base,
  boundCases,
  edges,
  floats,
  headCases,
  layoutDims,
  layouts,
  lensKv,
  lensQ,
  maskDims,
  none,
  noSequence,
  packed,
  packedDims,
  paddedDims,
  qOf,
  scoreDims,
  togetherDims,
  togetherLayout,
  two,
  words,
} from './attention_gqa.base.js';
import { models as forward } from './attention_gqa.models.js';

const usual = { lse: 3 };
/** Whole numbers small enough that gradients of scores are exact in bf16. */
const whole = { values: { lse: -1e4 }, exact: true };
const wholeDims = { dimV: 4 };
const half = { scale: 0.5 };

/** Multi-head, multi-query and groups of every kind. */
const heads = [
  [0, 0],
  [1, 1],
  [3, 3],
  [8, 1],
  [6, 3],
  [7, 1],
  [17, 1],
] as const;
/** For many and for few queries. */
const headLengths = [
  [1, 40],
  [33, 50],
] as const;

/** Rectangles of every kind, rows without a visible key among them. */
const rectangles = [
  [40, 40],
  [70, 130],
  [130, 70],
  [5, 1],
] as const;
const bounds = [
  { causal: true },
  { windowLeft: 5 },
  { windowRight: 7 },
  { windowLeft: 16, windowRight: 16 },
  { windowLeft: 63, causal: true },
  { windowLeft: 0, windowRight: 0 },
];

export function cases(): Case[] {
  return [
    ...edgeCases(),
    ...dimCases(),
    ...dtypeCases(),
    ...headCases(heads, headLengths, { values: usual }),
    ...boundCases(rectangles, bounds, { values: usual }),
    ...scoreCases(),
    ...biasCases(),
    ...maskCases(),
    ...lengthCases(),
    ...layoutCases(),
    ...longCases(),
    ...togetherCases(),
  ];
}

/** Queries or keys at an edge, the others at ease. */
function edgeCases(): Case[] {
  return two.flatMap((dtype) =>
    (['lenQ', 'lenKv'] as const).flatMap((dim) =>
      edges.flatMap((size) => {
        const dims = { ...base, [dim]: size };
        return [
          {
            name: `${dtype}, ${dim} ${size}, causal`,
            dims,
            params: { causal: true },
            dtypes: qOf(dtype),
            values: usual,
          },
          {
            name: `${dtype}, ${dim} ${size}, whole numbers`,
            dims: { ...dims, ...wholeDims },
            params: half,
            dtypes: qOf(dtype),
            ...whole,
          },
        ];
      }),
    ),
  );
}

/** Head sizes with a kernel of their own, beside them, and with values of another size. */
function dimCases(): Case[] {
  const sizes = [1, 7, 8, 31, 32, 33, 64, 65, 80, 96, 100, 128, 129, 192, 255, 256];
  const pairs = [...sizes.map((n) => [n, n] as const), [192, 128], [64, 128], [256, 96], [1, 256], [40, 33]] as const;
  return floats.flatMap((dtype) =>
    pairs.map(([dim, dimV]) => ({
      name: `${dtype}, dim ${dim}, dimV ${dimV}`,
      dims: { ...base, dim, dimV },
      dtypes: qOf(dtype),
      values: usual,
    })),
  );
}

/** Every type of inputs with every type of results. */
function dtypeCases(): Case[] {
  return floats.flatMap((q) =>
    floats.flatMap((other, i): Case[] => [
      {
        name: `${q}, y and results ${other}`,
        dims: { ...base, biasBatch: 1, biasHeads: 2, sinkHeads: 2 },
        dtypes: { q, y: other, dq: other, dk: other, dv: other, dbias: other, bias: floats[(i + 1) % 3]! },
        with: ['bias', 'sink', 'dlse'],
        values: usual,
      },
      {
        name: `${q}, results ${other}, whole numbers`,
        dims: { ...base, ...wholeDims, biasBatch: 1, biasHeads: 1, sinkHeads: 2 },
        params: half,
        dtypes: { q, dq: other, dk: other, dv: other, dbias: other },
        with: ['bias', 'sink', 'dlse'],
        ...whole,
      },
    ]),
  );
}

/** What happened to scores: scale, softcap, slopes, sinks; rows that saw nothing. */
function scoreCases(): Case[] {
  const variants: Pick<Case, 'params' | 'with'>[] = [
    { params: { scale: 0 } },
    { params: { scale: -0.3 } },
    { params: { softcap: 15 } },
    { params: { softcap: 0.5, scale: 3 } },
    { params: { softcap: 2, causal: true }, with: ['bias'] },
    { with: ['alibi'] },
    { params: { causal: true, windowLeft: 8 }, with: ['sink'] },
    { params: { softcap: 10, causal: true }, with: ['alibi', 'sink', 'dlse'] },
  ];
  const extra = { biasBatch: 2, biasHeads: 4, sinkHeads: 4 };
  const seen = Array.from({ length: 2 * 4 * 70 }, (_, i) => (i % 5 === 0 ? none : 2 + (i % 3)));
  return floats.flatMap((dtype) => [
    ...variants.map((v) => {
      const said = [...Object.entries(v.params ?? {}).map(([name, value]) => `${name} ${value}`), ...(v.with ?? [])];
      const sizes = {
        ...scoreDims,
        ...(v.with?.includes('bias') ? { biasBatch: 2, biasHeads: 4 } : {}),
        ...(v.with?.includes('sink') ? { sinkHeads: 4 } : {}),
      };
      return { ...v, name: `${dtype}, ${said.join(', ')}`, dims: sizes, dtypes: qOf(dtype), values: usual };
    }),
    {
      name: `${dtype}, steep scores`,
      dims: scoreDims,
      params: { scale: 30 },
      dtypes: qOf(dtype),
      values: { lse: 400 },
    },
    {
      name: `${dtype}, rows that saw nothing`,
      dims: { ...scoreDims, ...extra },
      dtypes: qOf(dtype),
      with: ['bias', 'sink'],
      values: { lse: seen, bias: none, sink: [none, 0, 8, 1000] },
    },
  ]);
}

/** Biases with and without a batch and heads, whose gradients are sums over what shares them. */
function biasCases(): Case[] {
  const dims = { ...base, batch: 2, lenQ: 19, lenKv: 140, headsQ: 4, headsKv: 2 };
  return floats.flatMap((dtype) =>
    [1, 2].flatMap((biasBatch) =>
      [1, 4].flatMap((biasHeads): Case[] => [
        {
          name: `${dtype}, bias of ${biasBatch} x ${biasHeads}`,
          dims: { ...dims, biasBatch, biasHeads },
          params: { causal: true },
          dtypes: { q: dtype, bias: dtype },
          with: ['bias'],
          values: usual,
        },
        {
          name: `${dtype}, bias of ${biasBatch} x ${biasHeads}, ragged`,
          dims: { ...dims, biasBatch, biasHeads },
          dtypes: { q: dtype, bias: dtype },
          with: ['bias', 'lensQ', 'lensKv'],
          values: { ...usual, lensQ: [19, 7], lensKv: [90, 140] },
        },
      ]),
    ),
  );
}

/** Flags for single pairs and for blocks. */
function maskCases(): Case[] {
  const blocks = [
    [1, 1],
    [16, 16],
    [1, 64],
    [7, 5],
    [1000, 1000],
  ] as const;
  return two.flatMap((dtype): Case[] => [
    ...blocks.map(([maskBlockQ, maskBlockKv]) => ({
      name: `${dtype}, mask of ${maskBlockQ} x ${maskBlockKv}`,
      dims: maskDims,
      params: { maskBlockQ, maskBlockKv, causal: true },
      dtypes: qOf(dtype),
      with: ['mask'],
      values: usual,
    })),
    {
      name: `${dtype}, mask, shared by batches and heads`,
      dims: maskDims,
      params: { maskBlockKv: 3 },
      dtypes: qOf(dtype),
      with: ['mask'],
      broadcast: { mask: 'one', 'mask.headsQ': 'one' },
      values: usual,
    },
    {
      name: `${dtype}, mask of zeros`,
      dims: maskDims,
      dtypes: qOf(dtype),
      with: ['mask'],
      values: { mask: 0 },
      exact: true,
    },
  ]);
}

/** Padded batches and packed sequences, empty ones and rows of none among them; what lies outside is NaN. */
function lengthCases(): Case[] {
  const params = [{ causal: true }, { windowLeft: 9, windowRight: 3 }];
  const all = ['bias', 'mask', 'alibi', 'sink', 'dlse'];
  const sets = { ...packed, none: noSequence };
  return two.flatMap((dtype) => [
    ...[{ lensQ }, { lensKv }, { lensQ, lensKv }].flatMap((values) =>
      params.map((p) => ({
        name: `${dtype}, ${Object.keys(values).join(' and ')}, ${words(p)}`,
        dims: paddedDims,
        params: p,
        dtypes: qOf(dtype),
        with: Object.keys(values),
        values: { ...usual, ...values },
      })),
    ),
    {
      name: `${dtype}, lengths with everything else`,
      dims: { ...paddedDims, biasBatch: 4, biasHeads: 2, sinkHeads: 2 },
      params: { causal: true, windowLeft: 40, maskBlockQ: 16, maskBlockKv: 16 },
      dtypes: qOf(dtype),
      with: ['lensQ', 'lensKv', ...all],
      values: { ...usual, lensQ, lensKv },
    },
    ...Object.entries(sets).flatMap(([name, values]): Case[] => {
      const one = {
        dims: { ...packedDims, sequences: values.cuQ.length - 1 },
        params: { causal: true, windowLeft: 30 },
        dtypes: qOf(dtype),
        values: { ...usual, ...values },
      };
      return [
        { ...one, name: `${dtype}, packed, ${name}`, with: ['cuQ', 'cuKv'] },
        {
          ...one,
          name: `${dtype}, packed, ${name}, everything else`,
          dims: { ...one.dims, biasBatch: 1, biasHeads: name === 'none' ? 1 : 4, sinkHeads: 4 },
          with: ['cuQ', 'cuKv', ...all],
        },
      ];
    }),
  ]);
}

/** Heads before lengths, batches inside rows, odd strides and offsets. */
function layoutCases(): Case[] {
  const dims = { ...layoutDims, biasBatch: 2, biasHeads: 4, sinkHeads: 4 };
  const extra = ['bias', 'mask', 'alibi', 'sink', 'dlse', 'lensQ', 'lensKv'];
  const given = ['q', 'k', 'v', 'y', 'lse', 'dy'];
  const made = ['dq', 'dk', 'dv', 'dbias', 'dsink'];
  return two.flatMap((dtype) =>
    layouts.flatMap((layout): Case[] =>
      [given, made, [...given, ...made, ...extra]].map((names) => ({
        name: `${dtype}, ${names.length > made.length + 1 ? 'all' : names.join(' ')} ${layout}`,
        dims,
        dtypes: qOf(dtype),
        with: extra,
        layout: Object.fromEntries(names.map((name) => [name, layout])),
        values: usual,
      })),
    ),
  );
}

/** Keys and rows past several tiles of every kernel. */
function longCases(): Case[] {
  return floats.flatMap((dtype) => [
    {
      name: `${dtype}, 3 x 1300`,
      dims: { ...base, lenQ: 3, lenKv: 1300, dim: 64, dimV: 64 },
      dtypes: qOf(dtype),
      values: { lse: 7 },
    },
    {
      name: `${dtype}, 257 x 300`,
      dims: { ...base, lenQ: 257, lenKv: 300 },
      params: { causal: true },
      dtypes: qOf(dtype),
      values: { lse: 5 },
    },
  ]);
}

/** Everything at once. */
function togetherCases(): Case[] {
  return floats.map((dtype) => ({
    name: `${dtype}, everything`,
    dims: { ...togetherDims, biasBatch: 1, biasHeads: 6, sinkHeads: 6 },
    params: { causal: true, windowLeft: 50, softcap: 20, maskBlockQ: 8, maskBlockKv: 16 },
    dtypes: { q: dtype, y: 'f32' as const, dq: 'f32' as const, bias: 'f16' as const },
    with: ['bias', 'mask', 'alibi', 'sink', 'dlse', 'lensQ', 'lensKv'],
    layout: { ...togetherLayout, dk: 'crossed' as const },
    values: usual,
  }));
}

/** What trains, or could: the forward's models with as many queries as keys, lse about that of equal scores. */
export const models: readonly Model[] = forward
  .filter(({ dims }) => dims.lenQ === dims.lenKv)
  .map((m) => ({ ...m, values: { lse: Math.log(m.dims.lenKv!) } }));
