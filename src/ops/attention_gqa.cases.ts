// Cases that every backend of attention_gqa must get right: tile edges, head sizes and groups, dtypes, decoding, windows,
// strides; attention_gqa.scores.ts has those of the optional inputs. Exact ones see one key a row, whatever its score.
import type { Case } from '../case.js';
import {
  base,
  boundCases,
  edges,
  exactly,
  floats,
  headCases,
  layoutDims,
  layouts,
  own,
  qOf,
  togetherDims,
  togetherLayout,
  two,
} from './attention_gqa.base.js';
import { scoreCases } from './attention_gqa.scores.js';

/** Multi-head, multi-query and groups of every kind. */
const heads = [
  [0, 0],
  [1, 1],
  [3, 3],
  [2, 1],
  [8, 1],
  [8, 2],
  [6, 3],
  [7, 1],
  [14, 2],
  [17, 1],
  [40, 8],
] as const;
/** For prompts and for few queries. */
const headLengths = [
  [1, 40],
  [3, 40],
  [33, 50],
] as const;

/** Rectangles of every kind, rows without a visible key among them. */
const rectangles = [
  [40, 40],
  [70, 130],
  [130, 70],
  [129, 129],
  [5, 1],
] as const;
const bounds = [
  { causal: true },
  { windowLeft: 5 },
  { windowRight: 7 },
  { windowLeft: 16, windowRight: 16 },
  { windowLeft: 63, causal: true },
  { windowLeft: 64, causal: true },
  { windowLeft: 1, windowRight: 0 },
  { windowLeft: 200, windowRight: 200 },
  { causal: true, windowRight: 9 },
];

export function cases(): Case[] {
  return [
    ...edgeCases(),
    ...dimCases(),
    ...dtypeCases(),
    ...headCases(heads, headLengths),
    ...decodeCases(),
    ...boundCases(rectangles, bounds),
    ...layoutCases(),
    ...longCases(),
    ...togetherCases(),
    ...scoreCases(),
  ];
}

/** Queries or keys at an edge, the others at ease. */
function edgeCases(): Case[] {
  const params = [{}, { causal: true }];
  return two.flatMap((dtype) =>
    (['lenQ', 'lenKv'] as const).flatMap((dim) =>
      edges.flatMap((size) => [
        ...params.map((p) => ({
          name: `${dtype}, ${dim} ${size}${p.causal ? ', causal' : ''}`,
          dims: { ...base, [dim]: size },
          params: p,
          dtypes: qOf(dtype),
        })),
        {
          name: `${dtype}, ${dim} ${size}, own key`,
          dims: { ...base, [dim]: size },
          params: own,
          dtypes: qOf(dtype),
          exact: exactly,
        },
      ]),
    ),
  );
}

/** Head sizes with a kernel of their own, beside them, and with values of another size. */
function dimCases(): Case[] {
  const sizes = [1, 2, 7, 8, 31, 32, 33, 40, 64, 65, 80, 96, 100, 112, 128, 129, 160, 192, 200, 255, 256];
  const pairs = [
    ...sizes.map((n) => [n, n] as const),
    [192, 128],
    [64, 128],
    [128, 64],
    [256, 96],
    [1, 256],
    [40, 33],
  ] as const;
  return floats.flatMap((dtype) =>
    pairs.flatMap(([dim, dimV]) => [
      { name: `${dtype}, dim ${dim}, dimV ${dimV}`, dims: { ...base, dim, dimV }, dtypes: qOf(dtype) },
      {
        name: `${dtype}, dim ${dim}, dimV ${dimV}, own key`,
        dims: { ...base, lenQ: 5, lenKv: 18, dim, dimV },
        params: own,
        dtypes: qOf(dtype),
        exact: exactly,
      },
    ]),
  );
}

/** Every input type to every output type, with a bias of another. */
function dtypeCases(): Case[] {
  return floats.flatMap((q) =>
    floats.flatMap((y, i): Case[] => [
      { name: `${q} to ${y}`, dims: base, dtypes: { q, y } },
      { name: `${q} to ${y}, ${floats[i]} bias`, dims: base, dtypes: { q, y, bias: floats[i]! }, with: ['bias'] },
      // A wider result would show the last bit of an exponential that may be 1 but for a rounding.
      ...(q !== 'f32' && y === 'f32'
        ? []
        : [{ name: `${q} to ${y}, own key`, dims: base, params: own, dtypes: { q, y }, exact: exactly }]),
    ]),
  );
}

/** One query, or a few that were guessed ahead, and many keys. */
function decodeCases(): Case[] {
  const lengths = [1, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 513, 1025];
  const ragged = { lensKv: [0, 1, 300, 512] };
  const dims = { batch: 1, lenQ: 1, headsQ: 8, headsKv: 2, dim: 64, dimV: 64 };
  return two.flatMap((dtype) => [
    ...lengths.map((lenKv) => ({
      name: `${dtype}, decode, lenKv ${lenKv}`,
      dims: { ...dims, lenKv },
      dtypes: qOf(dtype),
    })),
    ...[2, 5, 16].map((lenQ) => ({
      name: `${dtype}, ${lenQ} queries guessed ahead`,
      dims: { ...dims, lenQ, lenKv: 300 },
      params: { causal: true },
      dtypes: qOf(dtype),
    })),
    ...[{}, { batchInvariant: true }].map((params) => ({
      name: `${dtype}, decode of 4, ragged${params.batchInvariant ? ', batch invariant' : ''}`,
      dims: { ...dims, batch: 4, lenKv: 512 },
      params,
      dtypes: qOf(dtype),
      with: ['lensKv'],
      values: ragged,
    })),
    {
      name: `${dtype}, decode in a window`,
      dims: { ...dims, lenKv: 700 },
      params: { causal: true, windowLeft: 99 },
      dtypes: qOf(dtype),
    },
    {
      name: `${dtype}, decode, own key`,
      dims: { ...dims, lenKv: 600 },
      params: own,
      dtypes: qOf(dtype),
      exact: exactly,
    },
    {
      name: `${dtype}, decode with sink, bias and mask`,
      dims: { ...dims, lenKv: 450 },
      dtypes: qOf(dtype),
      with: ['sink', 'bias', 'mask', 'alibi'],
    },
  ]);
}

/** Heads before lengths, batches inside rows, odd strides and offsets. */
function layoutCases(): Case[] {
  const extra = ['bias', 'mask', 'alibi', 'sink', 'lensQ', 'lensKv'];
  const all = ['q', 'k', 'v', 'y', 'lse', ...extra];
  return two.flatMap((dtype) =>
    layouts.flatMap((layout): Case[] => [
      ...['q', 'k', 'v', 'y', 'lse', 'bias', 'mask'].map((name) => ({
        name: `${dtype}, ${name} ${layout}`,
        dims: layoutDims,
        dtypes: qOf(dtype),
        with: ['bias', 'mask'],
        layout: { [name]: layout },
      })),
      {
        name: `${dtype}, all ${layout}`,
        dims: layoutDims,
        dtypes: qOf(dtype),
        with: extra,
        layout: Object.fromEntries(all.map((name) => [name, layout])),
      },
    ]),
  );
}

/** Many keys, and scores far apart. */
function longCases(): Case[] {
  const dims = { ...base, lenQ: 3, lenKv: 2500, dim: 64, dimV: 64 };
  return floats.flatMap((dtype) => [
    { name: `${dtype}, 2500 keys`, dims, dtypes: qOf(dtype) },
    { name: `${dtype}, 2500 keys, batch invariant`, dims, params: { batchInvariant: true }, dtypes: qOf(dtype) },
    { name: `${dtype}, steep scores`, dims: { ...base, lenKv: 130 }, params: { scale: 30 }, dtypes: qOf(dtype) },
    {
      name: `${dtype}, 257 x 300`,
      dims: { ...base, lenQ: 257, lenKv: 300 },
      params: { causal: true },
      dtypes: qOf(dtype),
    },
  ]);
}

/** Everything at once. */
function togetherCases(): Case[] {
  return floats.flatMap((dtype) =>
    [false, true].map((batchInvariant) => ({
      name: `${dtype}, everything${batchInvariant ? ', batch invariant' : ''}`,
      dims: togetherDims,
      params: { causal: true, windowLeft: 50, softcap: 20, maskBlockQ: 8, maskBlockKv: 16, batchInvariant },
      dtypes: { q: dtype, y: 'f32' as const, bias: 'f16' as const },
      with: ['bias', 'mask', 'alibi', 'sink', 'lensQ', 'lensKv'],
      layout: togetherLayout,
    })),
  );
}
