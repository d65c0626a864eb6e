// Cases that every backend of kv_append must get right, and shapes of served models for benchmarks.
import type { Case, Layout, Model, ParamValue } from '../case.js';
import type { DType } from '../dtype.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const caches = ['f32', 'bf16', 'f16', 'f8e4m3'] as const;
const base = { batch: 2, len: 3, headsKv: 2, dim: 16, dimV: 24, pages: 9, maxPages: 4, pageSize: 4 };
/** With scales for the caches that need them. */
const scaled = (kCache: DType) => (kCache === 'f8e4m3' ? { with: ['kScale', 'vScale'] } : {});
/** Powers of two: quotients of whole numbers stay exact. */
const scales = { kScale: [0.5, 2], vScale: [4, 0.25] };
const turned: Readonly<Record<string, Readonly<Record<string, ParamValue>>>> = {
  halves: { rope: true },
  interleaved: { rope: true, interleaved: true, theta: 500 },
  part: { rope: true, dimRotary: 6, theta: 500 },
  'part, interleaved': { rope: true, dimRotary: 6, interleaved: true },
  linear: { rope: true, scaling: 'linear', factor: 2 },
  llama3: { rope: true, scaling: 'llama3', factor: 8, originalContext: 16 },
  yarn: { rope: true, scaling: 'yarn', factor: 4, originalContext: 16 },
};

export function cases(): Case[] {
  return [...dtypeCases(), ...edgeCases(), ...lengthCases(), ...ropeCases(), ...layoutCases()];
}

/** Every type to every type: copied, or rounded once. */
function dtypeCases(): Case[] {
  return floats.flatMap((k) =>
    caches.flatMap((kCache): Case[] => [
      { name: `${k} to ${kCache}`, dims: base, dtypes: { k, kCache }, ...scaled(kCache) },
      {
        name: `${k} to ${kCache}, whole numbers`,
        dims: base,
        dtypes: { k, kCache },
        ...scaled(kCache),
        ...(kCache === 'f8e4m3' ? { values: scales } : {}),
        exact: true,
      },
    ]),
  );
}

/** One dimension at an edge, the others at ease. */
function edgeCases(): Case[] {
  const edges = {
    batch: [0, 1, 3],
    len: [0, 1, 17],
    headsKv: [0, 1, 8, 9],
    dim: [0, 1, 8, 15, 64, 130],
    dimV: [0, 1, 8, 17, 128],
    pageSize: [1, 2, 3, 16, 33],
    maxPages: [0, 1, 2],
  };
  return Object.entries(edges).flatMap(([name, sizes]) =>
    sizes.flatMap((size): Case[] => {
      const dims = { ...base, pages: 13, [name]: size };
      return [
        { name: `${name} ${size}`, dims, exact: true },
        {
          name: `${name} ${size}, bf16 to f8e4m3`,
          dims,
          dtypes: { k: 'bf16', kCache: 'f8e4m3' },
          ...scaled('f8e4m3'),
        },
      ];
    }),
  );
}

/** Requests that are full, that end with a page, that bring nothing, that have less than they bring. */
function lengthCases(): Case[] {
  const lists: Readonly<Record<string, { lensKv: number[]; lensQ?: number[] }>> = {
    full: { lensKv: [16, 16] },
    'at the end of a page': { lensKv: [8, 4] },
    'across pages': { lensKv: [9, 6] },
    'nothing of one': { lensKv: [7, 7], lensQ: [0, 3] },
    'fewer than rows': { lensKv: [1, 0] },
    'fewer than rows that count': { lensKv: [2, 1], lensQ: [3, 2] },
  };
  return Object.entries(lists).flatMap(([name, values]): Case[] => {
    const given = values.lensQ ? ['lensQ'] : [];
    return [
      { name: `lengths ${name}`, dims: base, with: given, values, exact: true },
      {
        name: `lengths ${name}, turned to f8e4m3`,
        dims: base,
        dtypes: { k: 'bf16', kCache: 'f8e4m3' },
        with: [...given, 'kScale', 'vScale'],
        values: { ...values, ...scales },
        params: { rope: true },
      },
    ];
  });
}

function ropeCases(): Case[] {
  return Object.entries(turned).flatMap(([way, params]) =>
    caches.map((kCache) => ({
      name: `turned in ${way}, to ${kCache}`,
      dims: { ...base, batch: 3, maxPages: 3, dim: 32 },
      dtypes: { k: kCache === 'f8e4m3' ? ('bf16' as const) : kCache, kCache },
      with: kCache === 'f8e4m3' ? ['lensQ', 'kScale', 'vScale'] : ['lensQ'],
      params,
    })),
  );
}

function layoutCases(): Case[] {
  const tensors = ['k', 'v', 'pageTable', 'kCache', 'vCache'];
  return (['padded', 'swapped', 'crossed'] as const).flatMap((layout: Layout): Case[] => [
    ...tensors.map((name) => ({ name: `${name} ${layout}`, dims: base, layout: { [name]: layout }, exact: true })),
    {
      name: `all ${layout}, turned, bf16`,
      dims: base,
      dtypes: { k: 'bf16', kCache: 'bf16' },
      layout: Object.fromEntries(tensors.map((name) => [name, layout])),
      params: { rope: true },
    },
  ]);
}

/** Llama 3.1 8B: a step of 64 requests, and a piece of a prompt, turned on the way, into bf16 and into f8e4m3. */
const llama = { rope: true, scaling: 'llama3', factor: 8, theta: 500000 };
const heads = { headsKv: 8, dim: 128, dimV: 128 };
const phases = [
  ['decode 64', { batch: 64, len: 1, pages: 1024, maxPages: 16, pageSize: 16 }, { lensKv: 255 }],
  ['prefill 2048', { batch: 1, len: 2048, pages: 256, maxPages: 256, pageSize: 16 }, { lensKv: 4096 }],
] as const;
export const models: readonly Model[] = phases.flatMap(([phase, dims, values]) =>
  (['bf16', 'f8e4m3'] as const).map((kCache) => ({
    name: `llama-3.1-8b ${phase}${kCache === 'bf16' ? '' : ` to ${kCache}`}`,
    dims: { ...heads, ...dims },
    dtypes: { k: 'bf16' as const, kCache },
    ...scaled(kCache),
    values: { ...values, ...(kCache === 'bf16' ? {} : { kScale: 0.125, vScale: 0.125 }) },
    params: llama,
    quick: kCache === 'bf16',
  })),
);
