// Cases that every backend of nsa_attend must get right: blocks of every size, rows of blocks that are full, short and empty, groups of every
// size, lengths; and the settings of the two papers for benchmarks. Exact ones see one key a row, whatever its score.
import type { Case, Model } from '../case.js';
import { edges, exactly, layouts, qOf, two } from './attention_gqa.base.js';

const base = { batch: 2, lenQ: 9, lenKv: 130, headsQ: 4, headsKv: 2, dim: 32, dimV: 32, count: 4 };
/** One block of one key, the query's own or the first. */
const one = { ...base, lenQ: 12, lenKv: 12, count: 1 };

export function cases(): Case[] {
  return [
    ...blockCases(),
    ...rowCases(),
    ...headCases(),
    ...dimCases(),
    ...lengthCases(),
    ...layoutCases(),
    ...exactCases(),
  ];
}

/** Sizes of blocks, those that do not divide the sequence and those that are longer than it among them. */
function blockCases(): Case[] {
  return [1, 2, 3, 15, 16, 17, 32, 64, 100, 129, 130, 131, 1000].flatMap((block) =>
    two.flatMap((dtype) =>
      [{}, { causal: false }].map((params) => ({
        name: `${dtype}, blocks of ${block}${'causal' in params ? ', not causal' : ''}`,
        dims: base,
        dtypes: qOf(dtype),
        params: { block, ...params },
      })),
    ),
  );
}

/** Rows of blocks: as many as there are, more than a warp takes at once, none, the same for all, ended by -1, beyond the query. */
function rowCases(): Case[] {
  const rows = { lenQ: 3, headsQ: 2, headsKv: 1, batch: 1, lenKv: 80, count: 5 };
  const blocks = [0, 1, 2, 3, 4, 2, -1, 0, 1, 2, -1, 0, 1, 2, 3];
  return two.flatMap((dtype) => [
    ...[0, 1, 9, 31, 32, 33, 64, 65].map((count) => ({
      name: `${dtype}, ${count} entries`,
      dims: { ...base, lenKv: 260, count },
      dtypes: qOf(dtype),
      params: { block: 4 },
    })),
    {
      name: `${dtype}, rows that end early`,
      dims: { ...base, ...rows },
      dtypes: qOf(dtype),
      params: { block: 16 },
      values: { blocks },
    },
    {
      name: `${dtype}, blocks after the query`,
      dims: { ...base, ...rows, lenKv: 80, lenQ: 80, count: 1 },
      dtypes: qOf(dtype),
      params: { block: 16 },
      values: { blocks: 3 },
    },
  ]);
}

/** Groups that fill a tile of rows, leave some of it empty, or take several. */
function headCases(): Case[] {
  const heads = [
    [1, 1],
    [2, 1],
    [4, 4],
    [15, 1],
    [16, 1],
    [17, 1],
    [34, 2],
    [33, 1],
    [64, 1],
  ] as const;
  return two.flatMap((dtype) => [
    ...heads.map(([headsQ, headsKv]) => ({
      name: `${dtype}, ${headsQ} heads of ${headsKv}`,
      dims: { ...base, headsQ, headsKv },
      dtypes: qOf(dtype),
      params: { block: 16 },
    })),
    ...(['batch', 'lenQ', 'lenKv'] as const).map((name) => ({
      name: `${dtype}, ${name} 0`,
      dims: { ...base, [name]: 0 },
      dtypes: qOf(dtype),
    })),
    { name: `${dtype}, no heads`, dims: { ...base, headsQ: 0, headsKv: 0 }, dtypes: qOf(dtype) },
    // More queries than one problem of the CPU has.
    {
      name: `${dtype}, 700 queries`,
      dims: { ...base, batch: 1, lenQ: 700, lenKv: 700, headsQ: 2, headsKv: 1, dim: 16, dimV: 16, count: 3 },
      dtypes: qOf(dtype),
      params: { block: 16 },
    },
    {
      name: `${dtype}, a step of 20 sequences`,
      dims: { ...base, batch: 20, lenQ: 1, lenKv: 128 },
      dtypes: qOf(dtype),
      params: { block: 16 },
    },
  ]);
}

function dimCases(): Case[] {
  const sizes = [...edges.slice(1), 191, 192, 193, 255, 256];
  return two.flatMap((dtype) =>
    sizes.flatMap((size) => [
      { name: `${dtype}, dim ${size}`, dims: { ...base, dim: size }, dtypes: qOf(dtype), params: { block: 16 } },
      { name: `${dtype}, dimV ${size}`, dims: { ...base, dimV: size }, dtypes: qOf(dtype), params: { block: 16 } },
    ]),
  );
}

/** Sequences of different length, with fewer keys than queries and with none. */
function lengthCases(): Case[] {
  return (['f32', 'bf16', 'f16'] as const).flatMap((dtype) =>
    (['f32', 'bf16', 'f16'] as const).map((y) => ({
      name: `${dtype} to ${y}, lengths`,
      dims: { ...base, batch: 5 },
      dtypes: { q: dtype, y },
      params: { block: 16 },
      with: ['lensQ', 'lensKv'],
      values: { lensQ: [9, 4, 0, 9, 1], lensKv: [130, 17, 5, 4, 0] },
    })),
  );
}

function layoutCases(): Case[] {
  return layouts.flatMap((layout) => [
    ...['q', 'k', 'v', 'blocks', 'y', 'lse'].map((name) => ({
      name: `bf16, ${name} ${layout}`,
      dims: { ...base, dim: 40, dimV: 24 },
      dtypes: qOf('bf16'),
      params: { block: 16 },
      layout: { [name]: layout },
    })),
    {
      name: `bf16, a step, k and v ${layout}`,
      dims: { ...base, lenQ: 1 },
      dtypes: qOf('bf16'),
      params: { block: 16 },
      layout: { k: layout, v: layout },
    },
  ]);
}

function exactCases(): Case[] {
  return (['f32', 'bf16', 'f16'] as const).map((dtype) => ({
    name: `${dtype}, one key`,
    dims: one,
    dtypes: qOf(dtype),
    params: { block: 1 },
    exact: exactly,
  }));
}

const bf16 = qOf('bf16');
/** The paper's 27B model (64 heads in 4 groups, keys of 192, 16 blocks of 64) and EfficientLLM's 1.5B (4 blocks of 64). */
const paper = { batch: 1, headsQ: 64, headsKv: 4, dim: 192, dimV: 128, count: 16 };
export const models: readonly Model[] = [
  ...[8192, 65536].map((len) => ({
    name: `nsa-27b selection prefill ${len}`,
    dims: { ...paper, lenQ: len, lenKv: len },
    dtypes: bf16,
  })),
  ...[8192, 65536].map((lenKv) => ({
    name: `nsa-27b selection decode ${lenKv}`,
    dims: { ...paper, lenQ: 1, lenKv },
    dtypes: bf16,
    quick: lenKv === 8192,
  })),
  {
    name: 'efficientllm-1.5b nsa selection prefill 2048',
    dims: { batch: 1, lenQ: 2048, lenKv: 2048, headsQ: 12, headsKv: 2, dim: 128, dimV: 128, count: 4 },
    dtypes: bf16,
    quick: true,
  },
];
