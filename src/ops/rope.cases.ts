// Cases that every backend of rope must get right, and shapes of served models for benchmarks.
import type { Case, Layout, Model, ParamValue } from '../case.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const base = { batch: 2, len: 3, heads: 3, dim: 32 };
type Params = Readonly<Record<string, ParamValue>>;

/** Every way to turn, as served models do: Llama 3.1, Qwen 2.5, DeepSeek, GPT-NeoX. */
const ways: Readonly<Record<string, Params>> = {
  plain: {},
  interleaved: { interleaved: true },
  'a quarter': { dimRotary: 8 },
  'a quarter, interleaved': { dimRotary: 8, interleaved: true },
  'odd parts': { dimRotary: 22 },
  'odd parts, interleaved': { dimRotary: 22, interleaved: true },
  linear: { scaling: 'linear', factor: 4 },
  llama3: { scaling: 'llama3', factor: 8, theta: 500000 },
  'llama3 of a short context': { scaling: 'llama3', factor: 32, originalContext: 64, lowFreqFactor: 0.5 },
  yarn: { scaling: 'yarn', factor: 4, originalContext: 4096, theta: 1e6 },
  'yarn, interleaved': { scaling: 'yarn', factor: 40, originalContext: 4096, interleaved: true },
  'yarn with one bound': { scaling: 'yarn', factor: 4, originalContext: 1, attentionFactor: 0.75 },
};

export function cases(): Case[] {
  return [...edgeCases(), ...wayCases(), ...positionCases(), ...layoutCases(), ...exactCases()];
}

/** One dimension at an edge, the others at ease. */
function edgeCases(): Case[] {
  const edges = { dim: [0, 2, 14, 16, 18, 30, 34, 62, 64, 128, 256, 512], heads: [0, 1, 7, 8, 9, 17], len: [0, 1, 33] };
  return Object.entries({ ...edges, batch: [0, 1, 5] }).flatMap(([name, sizes]) =>
    sizes.map((size, i) => ({
      name: `${name} ${size}`,
      dims: { ...base, [name]: size },
      dtypes: { x: floats[i % 3]! },
      params: { interleaved: i % 2 === 1, position: 10 },
    })),
  );
}

function wayCases(): Case[] {
  return Object.entries(ways).flatMap(([way, params]) => [
    ...floats.flatMap((x) =>
      floats.map((y) => ({
        name: `${way}, ${x} to ${y}`,
        dims: base,
        dtypes: { x, y },
        params: { ...params, position: 77 },
      })),
    ),
    { name: `${way}, in place`, dims: base, inPlace: 'x', params: { ...params, position: 5 } },
    { name: `${way}, bf16 in place`, dims: base, dtypes: { x: 'bf16' as const }, inPlace: 'x', params },
  ]);
}

/** Far from the beginning, before it, and anywhere. */
function positionCases(): Case[] {
  const far = [-1, 4095, 131_072, 1_000_000, 2 ** 24 + 1, 2 ** 31 - 1, -(2 ** 31)];
  const dims = { batch: 2, len: 4, heads: 2, dim: 64 };
  const values = { positions: [0, 1_000_000, -5, 7, 131_071, 2 ** 31 - 1, -(2 ** 31), 3] };
  return [
    ...far.map((position) => ({ name: `position ${position}`, dims, params: { position } })),
    ...far.map((position) => ({ name: `position ${position}, theta 1e6`, dims, params: { position, theta: 1e6 } })),
    ...Object.entries(ways).map(([way, params]) => ({
      name: `positions, ${way}`,
      dims,
      with: ['positions'],
      values,
      params,
    })),
  ];
}

function layoutCases(): Case[] {
  const tensors = ['x', 'positions', 'y'];
  return (['padded', 'swapped', 'crossed'] as const).flatMap((layout: Layout): Case[] => [
    ...tensors.map((name) => ({
      name: `${name} ${layout}`,
      dims: { ...base, len: 5 },
      with: ['positions'],
      layout: { [name]: layout },
    })),
    {
      name: `bf16, x in place ${layout}`,
      dims: base,
      dtypes: { x: 'bf16' },
      layout: { x: layout },
      inPlace: 'x',
      params: { interleaved: true },
    },
  ]);
}

/** At position 0 nothing turns, and what does not turn is copied to the bit. */
function exactCases(): Case[] {
  const dims = { batch: 3, len: 1, heads: 9, dim: 64 };
  return Object.entries(ways)
    .filter(([, { scaling }]) => scaling !== 'yarn')
    .flatMap(([way, params]) =>
      floats.map((x) => ({ name: `${way}, ${x}, position 0`, dims, dtypes: { x }, params, exact: true })),
    );
}

const bf16 = { x: 'bf16' } as const;
const llama = { scaling: 'llama3', factor: 8, theta: 500000 };
/** Queries of Llama 3.1 8B, prefill and decode; queries and keys of the body of which the paper compares positional encodings. */
export const models: readonly Model[] = [
  {
    name: 'llama-3.1-8b prefill 2048',
    dims: { batch: 1, len: 2048, heads: 32, dim: 128 },
    params: llama,
    dtypes: bf16,
    quick: true,
  },
  { name: 'llama-3.1-8b decode 64', dims: { batch: 64, len: 1, heads: 32, dim: 128 }, params: llama, dtypes: bf16 },
  ...(['rope', 'rope-interleaved'] as const).flatMap((label) =>
    (
      [
        ['prefill 2048', 1, 2048],
        ['decode 64', 64, 1],
      ] as const
    ).map(([phase, batch, len]) => ({
      name: `efficientllm-1.5b ${label} ${phase}`,
      // 12 heads of queries and 2 of keys.
      dims: { batch, len, heads: 14, dim: 128 },
      params: { theta: 1e6, interleaved: label !== 'rope', ...(len === 1 ? { position: 2047 } : {}) },
      dtypes: bf16,
    })),
  ),
];
