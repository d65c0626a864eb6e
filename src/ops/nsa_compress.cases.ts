// Cases that every backend of nsa_compress must get right, and the shapes of the two papers for benchmarks.
import type { Case, Layout, Model } from '../case.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const base = { batch: 2, len: 100, heads: 3, dim: 24 };

export function cases(): Case[] {
  return [...edgeCases(), ...windowCases(), ...dtypeCases(), ...lengthCases(), ...layoutCases(), ...exactCases()];
}

/** One dimension at an edge, the others at ease. */
function edgeCases(): Case[] {
  const edges = {
    batch: [0, 1, 5],
    len: [0, 1, 31, 32, 33, 47, 48, 49, 64],
    heads: [0, 1, 2, 17],
    dim: [0, 1, 7, 8, 9, 15, 16, 17, 63, 64, 65, 128, 129],
  };
  return Object.entries(edges).flatMap(([name, sizes]) =>
    sizes.map((size, i) => ({
      name: `${name} ${size}`,
      dims: { ...base, [name]: size },
      dtypes: { x: floats[i % 3]! },
      with: i % 2 ? ['position'] : [],
    })),
  );
}

/** Windows that overlap, touch, are one token, or are the whole. */
function windowCases(): Case[] {
  const windows = [
    [1, 1],
    [2, 1],
    [3, 2],
    [4, 4],
    [5, 3],
    [31, 16],
    [33, 16],
    [64, 32],
    [99, 1],
    [100, 100],
    [101, 1],
  ];
  return windows.flatMap(([block, stride]) =>
    [[], ['position']].map((given) => ({
      name: `block ${block}, stride ${stride}${given.length > 0 ? ', position' : ''}`,
      dims: base,
      dtypes: { x: 'bf16' as const },
      with: given,
      params: { block: block!, stride: stride! },
    })),
  );
}

function dtypeCases(): Case[] {
  return floats.flatMap((x) =>
    floats.flatMap((y) =>
      floats.map((position) => ({
        name: `${x} and ${position} to ${y}`,
        dims: { ...base, dim: 40 },
        dtypes: { x, position, y },
        with: ['position'],
      })),
    ),
  );
}

/** Sequences of different length: windows past an end are 0, and tokens there are NaN. */
function lengthCases(): Case[] {
  const lens = [0, 31, 32, 48, 63, 64, 100];
  return floats.map((x) => ({
    name: `lengths, ${x}`,
    dims: { ...base, batch: lens.length },
    dtypes: { x },
    with: ['lens'],
    values: { lens },
  }));
}

function layoutCases(): Case[] {
  const tensors = ['x', 'position', 'y'];
  return (['padded', 'swapped', 'crossed'] as const).flatMap((layout: Layout): Case[] => [
    ...tensors.map(
      (name): Case => ({
        name: `${name} ${layout}`,
        dims: { ...base, dim: 32 },
        dtypes: { x: 'bf16' },
        with: ['position'],
        layout: { [name]: layout },
      }),
    ),
    ...(['full', 'shared', 'one'] as const).map((form) => ({
      name: `position ${form}, all ${layout}`,
      dims: { ...base, dim: 16 },
      with: ['position', 'lens'],
      layout: { x: layout, y: layout },
      broadcast: { 'position.heads': form },
    })),
  ]);
}

/** Windows of a power of two tokens, of whole numbers. */
function exactCases(): Case[] {
  const dims = { ...base, dim: 64 };
  return floats.flatMap((x) => [
    { name: `${x}, whole numbers`, dims, dtypes: { x, y: 'f32' }, exact: true },
    {
      name: `${x}, whole numbers, position and lengths`,
      dims,
      dtypes: { x, y: 'f32' },
      params: { block: 16, stride: 8 },
      with: ['position', 'lens'],
      exact: true,
    },
  ]);
}

const bf16 = { x: 'bf16' } as const;
/** The setting of the NSA paper (4 heads, keys of 192), and what EfficientLLM sets for its 1.5B model (2 heads, block 64, stride 32). */
export const models: readonly Model[] = [
  ...[8192, 65536].map((len) => ({
    name: `nsa-27b keys ${len}`,
    dims: { batch: 1, len, heads: 4, dim: 192 },
    dtypes: bf16,
    quick: len === 8192,
  })),
  {
    name: 'efficientllm-1.5b nsa keys 2048',
    dims: { batch: 8, len: 2048, heads: 2, dim: 128 },
    params: { block: 64, stride: 32 },
    dtypes: bf16,
  },
];
