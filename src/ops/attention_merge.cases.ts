// Cases that every backend of attention_merge must get right: sizes at edges, dtypes, layouts, parts that have seen no key; and
// the merges that serving needs, for benchmarks.
import type { Case, Layout, Model } from '../case.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const base = { parts: 3, batch: 2, lenQ: 5, headsQ: 4, dimV: 40 };
const edges = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257];

export function cases(): Case[] {
  return [...edgeCases(), ...dtypeCases(), ...layoutCases(), ...unseenCases(), ...spreadCases()];
}

/** One dimension at an edge, the others at ease. */
function edgeCases(): Case[] {
  const small = [0, 1, 2, 3, 7, 8, 9, 31, 32, 33, 65];
  return floats.flatMap((yParts) => [
    ...edges.map((dimV) => ({ name: `${yParts}, dimV ${dimV}`, dims: { ...base, dimV }, dtypes: { yParts } })),
    ...(['parts', 'batch', 'lenQ', 'headsQ'] as const).flatMap((dim) =>
      small.map((size) => ({ name: `${yParts}, ${dim} ${size}`, dims: { ...base, [dim]: size }, dtypes: { yParts } })),
    ),
  ]);
}

function dtypeCases(): Case[] {
  return floats.flatMap((yParts) =>
    floats.map((y) => ({ name: `${yParts} to ${y}`, dims: base, dtypes: { yParts, y } })),
  );
}

function layoutCases(): Case[] {
  const tensors = ['yParts', 'lseParts', 'y', 'lse'];
  return (['padded', 'swapped', 'crossed'] as const).flatMap((layout: Layout): Case[] => [
    ...tensors.map((name) => ({ name: `f32, ${name} ${layout}`, dims: base, layout: { [name]: layout } })),
    {
      name: `bf16, all ${layout}`,
      dims: { ...base, dimV: 33 },
      dtypes: { yParts: 'bf16' },
      layout: Object.fromEntries(tensors.map((name) => [name, layout])),
    },
  ]);
}

/** Rows that some, all but one, or all parts have seen no key for; what is not read is NaN. */
function unseenCases(): Case[] {
  const none = Number.NEGATIVE_INFINITY;
  const dims = { parts: 4, batch: 1, lenQ: 1, headsQ: 3, dimV: 8 };
  const lse = (...rows: number[][]) => rows.flat();
  /** A row of `value` for each head, NaN where its part has seen nothing. */
  const values = (list: readonly number[]) =>
    list.flatMap((seen, i) => new Array<number>(8).fill(seen === none ? Number.NaN : (i % 9) - 4));
  const some = lse([1, none, none], [none, 2, none], [0.5, none, none], [none, 1.5, none]);
  const one = lse([none, none, 3], [none, 2, none], [-100, none, none], [none, none, none]);
  const never = lse([none, none, none], [none, none, none], [none, none, none], [none, none, none]);
  return floats.flatMap((yParts) => [
    {
      name: `${yParts}, some parts have seen no key`,
      dims,
      dtypes: { yParts },
      values: { lseParts: some, yParts: values(some) },
    },
    {
      name: `${yParts}, one part has seen keys`,
      dims,
      dtypes: { yParts },
      values: { lseParts: one, yParts: values(one) },
      exact: true,
    },
    {
      name: `${yParts}, no part has seen a key`,
      dims,
      dtypes: { yParts },
      values: { lseParts: never, yParts: values(never) },
      exact: true,
    },
    { name: `${yParts}, one part`, dims: { ...base, parts: 1 }, dtypes: { yParts }, exact: true },
  ]);
}

/** Logarithms so large, so low or so far apart that their exponentials have no place in f32. */
function spreadCases(): Case[] {
  const dims = { parts: 3, batch: 1, lenQ: 1, headsQ: 1, dimV: 16 };
  const lists = { high: [1000, 1001, 999], low: [-1000, -1001, -999], apart: [-300, 0, 300], mixed: [88, 87.5, -200] };
  return Object.entries(lists).map(([name, lseParts]) => ({
    name: `f32, logarithms ${name}`,
    dims,
    values: { lseParts },
  }));
}

/** Llama 3 8B: splits of one long decode, a prefix shared by a batch, and a chunk of a prompt after those before it. */
const heads = { headsQ: 32, dimV: 128 };
export const models: readonly Model[] = [
  { name: 'llama-3-8b decode in 8 parts', dims: { parts: 8, batch: 1, lenQ: 1, ...heads }, quick: true },
  { name: 'llama-3-8b shared prefix of 32', dims: { parts: 2, batch: 32, lenQ: 1, ...heads } },
  { name: 'llama-3-8b chunk of 512', dims: { parts: 2, batch: 1, lenQ: 512, ...heads }, quick: true },
].map((model) => ({ ...model, dtypes: { yParts: 'bf16' as const } }));
