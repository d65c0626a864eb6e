// Cases that every backend of gemm must get right: tile edges, dtypes, transpositions, batches, strides, epilogues, aliasing.
import type { BroadcastForm, Case, Layout } from '../case.js';
import type { DType } from '../dtype.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const gated = ['swiglu', 'geglu_erf', 'geglu_tanh'] as const;
const plain = ['relu', 'gelu_erf', 'gelu_tanh', 'silu'] as const;

/** Sizes at and beside the edges of vectors (8, 16), warps and micro-tiles (32, 64) and block tiles (128, 256). */
const edges = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257];

export function cases(): Case[] {
  return [
    ...edgeCases(),
    ...cornerCases(),
    ...dtypeCases(),
    ...transposeCases(),
    ...batchCases(),
    ...layoutCases(),
    ...scaleCases(),
    ...epilogueCases(),
    ...inPlaceCases(),
    ...longSums(),
  ];
}

const xOf = (dtype: DType) => ({ x: dtype });

/** One dimension at an edge, the others at ease. */
function edgeCases(): Case[] {
  const base = { m: 21, rowsW: 35, k: 40 };
  return floats.slice(0, 2).flatMap((dtype) =>
    (['m', 'rowsW', 'k'] as const).flatMap((dim) =>
      edges.map((size) => ({
        name: `${dtype}, ${dim} ${size}`,
        dims: { ...base, [dim]: size },
        dtypes: xOf(dtype),
        exact: true,
      })),
    ),
  );
}

/** All dimensions at edges together, and two that span several cache blocks. */
function cornerCases(): Case[] {
  const corners = [
    [1, 1, 1],
    [1, 256, 512],
    [2, 129, 65],
    [16, 16, 16],
    [17, 17, 17],
    [64, 64, 64],
    [65, 63, 66],
    [128, 128, 32],
    [129, 129, 33],
    [127, 255, 65],
    [257, 129, 97],
    [3, 1030, 2060],
    [67, 1030, 530],
  ] as const;
  return floats.flatMap((dtype) =>
    corners.map(([m, rowsW, k]) => ({
      name: `${dtype}, ${m} x ${rowsW} x ${k}`,
      dims: { m, rowsW, k },
      dtypes: xOf(dtype),
    })),
  );
}

/** Every input type to every output type, with epilogue operands of other types. */
function dtypeCases(): Case[] {
  return floats.flatMap((x) =>
    floats.flatMap((y, i) => {
      const dims = { m: 33, rowsW: 40, k: 50 };
      const dtypes = { x, y, c: floats[i]!, bias: floats[(i + 1) % 3]!, residual: floats[(i + 2) % 3]! };
      return [
        { name: `${x} to ${y}`, dims, dtypes: { x, y }, exact: true },
        { name: `${x} to ${y}, epilogue of mixed types`, dims, dtypes, with: ['c', 'bias', 'residual'] },
      ];
    }),
  );
}

function transposeCases(): Case[] {
  const flags = [
    { name: 'x transposed', params: { transX: true } },
    { name: 'w transposed', params: { transW: true } },
    { name: 'both transposed', params: { transX: true, transW: true } },
  ];
  const shapes = [
    { m: 1, rowsW: 1, k: 1 },
    { m: 1, rowsW: 70, k: 33 },
    { m: 33, rowsW: 70, k: 41 },
    { m: 65, rowsW: 130, k: 17 },
    { m: 64, rowsW: 128, k: 64 },
  ];
  return floats.flatMap((dtype) =>
    flags.flatMap(({ name, params }) =>
      shapes.map((dims) => ({
        name: `${dtype}, ${name}, ${dims.m} x ${dims.rowsW} x ${dims.k}`,
        dims,
        params,
        dtypes: xOf(dtype),
        exact: true,
      })),
    ),
  );
}

/** Every way a batch can be there or not. */
function batchCases(): Case[] {
  const dims = { batch: 3, m: 18, rowsW: 34, k: 20 };
  const forms: Record<string, BroadcastForm>[] = [
    {},
    { x: 'absent' },
    { w: 'absent' },
    { x: 'shared' },
    { w: 'shared' },
    { x: 'one' },
    { w: 'one' },
    { x: 'one', w: 'absent', c: 'full' },
    { x: 'absent', w: 'absent', c: 'absent', residual: 'full' },
    { c: 'absent', residual: 'shared' },
    { c: 'shared', residual: 'one' },
    { x: 'one', w: 'absent', c: 'absent', residual: 'absent' },
  ];
  return (['f32', 'bf16'] as const).flatMap((dtype) => [
    ...forms.map((broadcast) => {
      const extra = ['c', 'residual'].filter((name) => name in broadcast);
      const words = Object.entries(broadcast).map(([name, form]) => `${name} ${form}`);
      return {
        name: `${dtype}, batch of 3${words.length ? `, ${words.join(', ')}` : ''}`,
        dims,
        broadcast,
        with: extra,
        dtypes: xOf(dtype),
        exact: true,
      };
    }),
    { name: `${dtype}, batch of 0`, dims: { ...dims, batch: 0 }, dtypes: xOf(dtype) },
    { name: `${dtype}, batch of 1`, dims: { ...dims, batch: 1 }, dtypes: xOf(dtype), exact: true },
    {
      name: `${dtype}, batch of 17 small products`,
      dims: { batch: 17, m: 3, rowsW: 5, k: 4 },
      dtypes: xOf(dtype),
      exact: true,
    },
    // More matrices than any GPU has multiprocessors: blocks go from tile to tile. With one w they would be rows of one product.
    ...[
      { batch: 280, m: 1, rowsW: 4, k: 72 },
      { batch: 280, m: 1, rowsW: 8, k: 40 },
    ].map((dims) => ({
      name: `${dtype}, batch of 280 rows, each with a w of ${dims.rowsW} x ${dims.k}`,
      dims,
      dtypes: xOf(dtype),
      exact: true,
    })),
  ]);
}

/** Sub-views with odd strides and offsets, and batches stored inside rows. */
function layoutCases(): Case[] {
  const all = ['x', 'w', 'c', 'residual', 'y'];
  const everywhere = (layout: Layout) => Object.fromEntries(all.map((name) => [name, layout]));
  const withAll = ['c', 'bias', 'residual'];
  return floats.flatMap((dtype): Case[] => {
    const dims = { m: 37, rowsW: 43, k: 51 };
    const common = { dims, dtypes: xOf(dtype), exact: true };
    return [
      { ...common, name: `${dtype}, x padded`, layout: { x: 'padded' } },
      { ...common, name: `${dtype}, w padded`, layout: { w: 'padded' } },
      { ...common, name: `${dtype}, y padded`, layout: { y: 'padded' } },
      { ...common, name: `${dtype}, all padded`, layout: everywhere('padded'), with: withAll },
      {
        ...common,
        name: `${dtype}, all padded, both transposed`,
        layout: everywhere('padded'),
        params: { transX: true, transW: true },
      },
      {
        ...common,
        name: `${dtype}, batch inside rows`,
        dims: { ...dims, batch: 3 },
        layout: everywhere('swapped'),
        with: withAll,
      },
      {
        ...common,
        name: `${dtype}, batch of padded matrices`,
        dims: { ...dims, batch: 2 },
        layout: everywhere('padded'),
        with: withAll,
      },
    ];
  });
}

/** alpha and beta, zero included: then the operand is not read, so it holds NaN. */
function scaleCases(): Case[] {
  const scales = [
    { alpha: 0.5, beta: 2 },
    { alpha: -1, beta: -0.25 },
    { alpha: 0, beta: 1 },
    { alpha: 1, beta: 0 },
    { alpha: 0, beta: 0 },
  ];
  return (['f32', 'bf16'] as const).flatMap((dtype) => [
    ...scales.map((params) => ({
      name: `${dtype}, alpha ${params.alpha}, beta ${params.beta}`,
      dims: { m: 19, rowsW: 36, k: 24 },
      params,
      with: ['c', 'bias'],
      dtypes: xOf(dtype),
      exact: true,
    })),
    {
      name: `${dtype}, k 0 with epilogue`,
      dims: { m: 5, rowsW: 18, k: 0 },
      with: ['c', 'bias', 'residual'],
      dtypes: xOf(dtype),
      exact: true,
    },
    {
      name: `${dtype}, alpha 0.3, beta 1.7`,
      dims: { m: 40, rowsW: 70, k: 90 },
      params: { alpha: 0.3, beta: 1.7 },
      with: ['c'],
      dtypes: xOf(dtype),
    },
  ]);
}

/** Each activation alone and with everything around it. */
function epilogueCases(): Case[] {
  const everything = ['c', 'bias', 'residual'];
  return (['f32', 'bf16'] as const).flatMap((dtype) => [
    ...plain.flatMap((activation) => [
      {
        name: `${dtype}, ${activation}`,
        dims: { m: 17, rowsW: 33, k: 32 },
        params: { activation },
        dtypes: xOf(dtype),
      },
      {
        name: `${dtype}, ${activation}, everything`,
        dims: { m: 34, rowsW: 65, k: 48 },
        params: { activation },
        with: everything,
        dtypes: xOf(dtype),
      },
    ]),
    ...gated.flatMap((activation) => [
      ...[0, 2, 14, 32, 66, 130, 258].map((rowsW) => ({
        name: `${dtype}, ${activation}, rowsW ${rowsW}`,
        dims: { m: 18, rowsW, k: 24 },
        params: { activation },
        dtypes: xOf(dtype),
      })),
      {
        name: `${dtype}, ${activation}, everything`,
        dims: { m: 67, rowsW: 138, k: 40 },
        params: { activation, alpha: 0.5, beta: 0.5 },
        with: everything,
        dtypes: xOf(dtype),
      },
      {
        name: `${dtype}, ${activation}, transposed batch`,
        dims: { batch: 2, m: 9, rowsW: 46, k: 31 },
        params: { activation, transX: true, transW: true },
        with: everything,
        broadcast: { w: 'absent' },
        dtypes: xOf(dtype),
      },
    ]),
    { name: `${dtype}, bias`, dims: { m: 20, rowsW: 66, k: 24 }, with: ['bias'], dtypes: xOf(dtype), exact: true },
    {
      name: `${dtype}, residual`,
      dims: { m: 20, rowsW: 66, k: 24 },
      with: ['residual'],
      dtypes: xOf(dtype),
      exact: true,
    },
    {
      name: `${dtype}, relu, exact`,
      dims: { m: 40, rowsW: 66, k: 72 },
      params: { activation: 'relu' },
      with: everything,
      dtypes: xOf(dtype),
      exact: true,
    },
  ]);
}

function inPlaceCases(): Case[] {
  return floats.flatMap((dtype): Case[] => {
    const dims = { m: 35, rowsW: 67, k: 24 };
    const dtypes = { x: dtype, c: dtype, residual: dtype };
    return [
      { name: `${dtype}, y over c`, dims, dtypes, with: ['c'], inPlace: 'c', exact: true },
      { name: `${dtype}, y over residual`, dims, dtypes, with: ['residual'], inPlace: 'residual', exact: true },
      {
        name: `${dtype}, y over residual, gated`,
        dims: { ...dims, rowsW: 68 },
        dtypes,
        params: { activation: 'swiglu' },
        with: ['residual'],
        inPlace: 'residual',
      },
      {
        name: `${dtype}, y over padded c in a batch`,
        dims: { ...dims, batch: 2 },
        dtypes,
        with: ['c', 'bias'],
        layout: { c: 'padded' },
        inPlace: 'c',
        exact: true,
      },
    ];
  });
}

/** Many terms, where the order of summation and the width of the accumulator show. */
function longSums(): Case[] {
  return floats.flatMap((dtype) => [
    { name: `${dtype}, k 4099`, dims: { m: 3, rowsW: 5, k: 4099 }, dtypes: xOf(dtype) },
    { name: `${dtype}, k 8192, one row`, dims: { m: 1, rowsW: 16, k: 8192 }, dtypes: xOf(dtype) },
    {
      name: `${dtype}, k 1500, batch invariant`,
      dims: { m: 2, rowsW: 70, k: 1500 },
      params: { batchInvariant: true },
      dtypes: xOf(dtype),
    },
    { name: `${dtype}, k 2048, exact`, dims: { m: 9, rowsW: 17, k: 2048 }, dtypes: xOf(dtype), exact: true },
  ]);
}
