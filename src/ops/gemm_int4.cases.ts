// Cases that every backend of gemm_int4 must get right: tile edges, groups, kinds of weight, dtypes, order of activations, epilogues,
// strides, and the accuracy classes.
import type { BroadcastForm, Case } from '../case.js';
import type { DType } from '../dtype.js';

const floats = ['f32', 'bf16', 'f16'] as const;
const gated = ['swiglu', 'geglu_erf', 'geglu_tanh'] as const;
const plain = ['relu', 'gelu_erf', 'gelu_tanh', 'silu'] as const;

/** Sizes at and beside the edges of vectors (8, 16), warps and micro-tiles (32, 64) and block tiles (128, 256). */
const edges = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257];

/** The three kinds of weight. */
const kinds: readonly { kind: string; with: readonly string[]; w: DType }[] = [
  { kind: 'symmetric', with: [], w: 'u4' },
  { kind: 'asymmetric', with: ['zeros'], w: 'u4' },
  { kind: 'nf4', with: [], w: 'nf4' },
];
const whole = kinds.slice(0, 2);

export function cases(): Case[] {
  return [
    ...edgeCases(),
    ...cornerCases(),
    ...groupCases(),
    ...dtypeCases(),
    ...permCases(),
    ...batchCases(),
    ...layoutCases(),
    ...epilogueCases(),
    ...dequantCases(),
    ...int8Cases(),
    ...longSums(),
  ];
}

/** One dimension at an edge, the others at ease; both kinds of whole weight, whose rows begin in the middle of a byte of zeros. */
function edgeCases(): Case[] {
  const base = { m: 21, rowsW: 35, k: 64, groups: 2 };
  return (['f32', 'bf16'] as const).flatMap((x) =>
    whole.flatMap(({ kind, with: given }) => [
      ...(['m', 'rowsW'] as const).flatMap((dim) =>
        edges.map((size) => ({
          name: `${x}, ${kind}, ${dim} ${size}`,
          dims: { ...base, [dim]: size },
          with: given,
          dtypes: { x },
          exact: true,
        })),
      ),
      ...[0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 512, 544].map((k) => ({
        name: `${x}, ${kind}, k ${k}`,
        dims: { ...base, k, groups: Math.max(1, k / 32) },
        with: given,
        dtypes: { x },
        exact: true,
      })),
    ]),
  );
}

/** All dimensions at edges together, and some that span several blocks. */
function cornerCases(): Case[] {
  const corners = [
    [1, 1, 32, 1],
    [1, 256, 512, 4],
    [2, 129, 96, 3],
    [16, 16, 64, 1],
    [17, 17, 160, 5],
    [64, 64, 128, 2],
    [65, 63, 192, 3],
    [128, 128, 256, 2],
    [129, 129, 288, 3],
    [127, 255, 128, 1],
    [257, 129, 128, 4],
    [3, 1030, 2048, 16],
    [67, 530, 640, 5],
  ] as const;
  return floats.flatMap((x) =>
    kinds.flatMap(({ kind, with: given, w }) =>
      corners.map(([m, rowsW, k, groups]) => ({
        name: `${x}, ${kind}, ${m} x ${rowsW} x ${k}, groups of ${k / groups}`,
        dims: { m, rowsW, k, groups },
        with: given,
        dtypes: { x, w },
      })),
    ),
  );
}

/** Every size of group that 768 allows, one row and many, also with scales that are powers of two. */
function groupCases(): Case[] {
  return whole.flatMap(({ kind, with: given }) =>
    [32, 64, 96, 128, 192, 256, 384, 768].flatMap((group): Case[] => {
      const dims = { rowsW: 40, k: 768, groups: 768 / group };
      const scales = Array.from({ length: dims.groups * dims.rowsW }, (_, i) => 2 ** ((i % 7) - 3));
      const common = { with: given, dtypes: { x: 'bf16' }, exact: true } as const;
      return [
        { ...common, name: `${kind}, groups of ${group}, one row`, dims: { ...dims, m: 1 } },
        { ...common, name: `${kind}, groups of ${group}`, dims: { ...dims, m: 34 } },
        {
          ...common,
          name: `${kind}, groups of ${group}, scales of powers of two`,
          dims: { ...dims, m: 18 },
          values: { scales },
        },
      ];
    }),
  );
}

/** Every input type to every output type, with scales and epilogue operands of other types. */
function dtypeCases(): Case[] {
  const dims = { m: 33, rowsW: 40, k: 128, groups: 2 };
  return floats.flatMap((x) =>
    floats.flatMap((y) =>
      floats.map((scales, i) => ({
        name: `${x} to ${y}, scales ${scales}, epilogue of mixed types`,
        dims,
        dtypes: { x, y, scales, bias: floats[(i + 1) % 3]!, residual: floats[(i + 2) % 3]! },
        with: ['zeros', 'bias', 'residual'],
        exact: true,
      })),
    ),
  );
}

/** Columns of x in another order, some of them twice and some not at all. */
function permCases(): Case[] {
  const dims = { rowsW: 66, k: 256, groups: 8 };
  return floats.flatMap((x) => [
    ...kinds.flatMap(({ kind, with: given, w }) =>
      [1, 19, 130].map((m) => ({
        name: `${x}, ${kind}, perm, m ${m}`,
        dims: { ...dims, m },
        with: [...given, 'perm'],
        dtypes: { x, w },
        ...(w === 'u4' ? { exact: true } : {}),
      })),
    ),
    {
      name: `${x}, perm backwards`,
      dims: { ...dims, m: 5 },
      with: ['perm'],
      dtypes: { x },
      values: { perm: Array.from({ length: dims.k }, (_, i) => dims.k - 1 - i) },
      exact: true,
    },
    {
      name: `${x}, perm of a batch with padded rows`,
      dims: { ...dims, batch: 2, m: 7 },
      with: ['perm'],
      dtypes: { x },
      layout: { x: 'padded' },
      exact: true,
    },
  ]);
}

/** Every way a batch can be there or not. */
function batchCases(): Case[] {
  const dims = { batch: 3, m: 18, rowsW: 34, k: 64, groups: 1 };
  const forms: Record<string, BroadcastForm>[] = [
    {},
    { x: 'shared', residual: 'full' },
    { x: 'one', residual: 'full' },
    { x: 'absent', residual: 'full' },
    { residual: 'absent' },
    { residual: 'shared' },
    { residual: 'one' },
  ];
  return (['f32', 'bf16'] as const).flatMap((x) => [
    ...forms.map((broadcast) => {
      const words = Object.entries(broadcast).map(([name, form]) => `${name} ${form}`);
      return {
        name: `${x}, batch of 3${words.length ? `, ${words.join(', ')}` : ''}`,
        dims,
        broadcast,
        with: 'residual' in broadcast ? ['zeros', 'residual'] : ['zeros'],
        dtypes: { x },
        exact: true,
      };
    }),
    { name: `${x}, batch of 0`, dims: { ...dims, batch: 0 }, dtypes: { x } },
    { name: `${x}, batch of 1`, dims: { ...dims, batch: 1 }, dtypes: { x }, exact: true },
    { name: `${x}, batch of 17 rows`, dims: { ...dims, batch: 17, m: 1 }, dtypes: { x }, exact: true },
  ]);
}

/** Sub-views with odd strides and offsets, batches stored inside rows, and y over the residual. */
function layoutCases(): Case[] {
  const all = ['x', 'scales', 'residual', 'y'] as const;
  const given = ['zeros', 'bias', 'residual'];
  const dims = { m: 37, rowsW: 43, k: 96, groups: 3 };
  return floats.flatMap((x): Case[] => {
    const common = { dims, dtypes: { x, residual: x }, exact: true };
    return [
      ...all.map(
        (name): Case => ({ ...common, name: `${x}, ${name} padded`, with: given, layout: { [name]: 'padded' } }),
      ),
      {
        ...common,
        name: `${x}, all padded`,
        with: given,
        layout: Object.fromEntries(all.map((name) => [name, 'padded'])),
      },
      {
        ...common,
        name: `${x}, batch inside rows`,
        dims: { ...dims, batch: 3 },
        with: given,
        layout: { x: 'swapped', residual: 'swapped', y: 'swapped' },
      },
      { ...common, name: `${x}, y over residual`, with: ['residual'], inPlace: 'residual' },
      {
        ...common,
        name: `${x}, y over residual, gated`,
        dims: { ...dims, rowsW: 68 },
        params: { activation: 'swiglu' },
        with: ['residual'],
        inPlace: 'residual',
        exact: false,
      },
    ];
  });
}

/** Each activation alone and with everything around it. */
function epilogueCases(): Case[] {
  const everything = ['zeros', 'perm', 'bias', 'residual'];
  const values = { scales: 0.0625 };
  return (['f32', 'bf16'] as const).flatMap((x) => [
    ...plain.flatMap((activation) => [
      {
        name: `${x}, ${activation}`,
        dims: { m: 17, rowsW: 33, k: 32, groups: 1 },
        params: { activation },
        dtypes: { x },
        values,
      },
      {
        name: `${x}, ${activation}, everything`,
        dims: { m: 34, rowsW: 65, k: 128, groups: 2 },
        params: { activation },
        with: everything,
        dtypes: { x },
        values,
      },
    ]),
    ...gated.flatMap((activation) => [
      ...[0, 2, 14, 32, 66, 130, 258].map((rowsW) => ({
        name: `${x}, ${activation}, rowsW ${rowsW}`,
        dims: { m: 18, rowsW, k: 64, groups: 2 },
        params: { activation },
        dtypes: { x },
        values,
      })),
      {
        name: `${x}, ${activation}, everything`,
        dims: { m: 67, rowsW: 138, k: 128, groups: 1 },
        params: { activation },
        with: everything,
        dtypes: { x },
        values,
      },
      {
        name: `${x}, ${activation}, one row`,
        dims: { m: 1, rowsW: 130, k: 256, groups: 2 },
        params: { activation },
        with: ['residual'],
        dtypes: { x },
        values,
      },
    ]),
    {
      name: `${x}, relu, exact`,
      dims: { m: 40, rowsW: 66, k: 96, groups: 3 },
      params: { activation: 'relu' },
      with: everything,
      dtypes: { x },
      exact: true,
    },
  ]);
}

/** All of the weight first. */
function dequantCases(): Case[] {
  const params = { mode: 'dequant' } as const;
  return floats.flatMap((x) => [
    ...kinds.flatMap(({ kind, with: given, w }) =>
      [1, 16, 130].map((m) => ({
        name: `${x}, ${kind}, dequant, m ${m}`,
        dims: { m, rowsW: 70, k: 192, groups: 3 },
        params,
        with: given,
        dtypes: { x, w },
        ...(w === 'u4' ? { exact: true } : {}),
      })),
    ),
    {
      name: `${x}, dequant, everything`,
      dims: { batch: 2, m: 19, rowsW: 66, k: 128, groups: 4 },
      params: { ...params, activation: 'swiglu' },
      with: ['zeros', 'perm', 'bias', 'residual'],
      dtypes: { x },
      values: { scales: 0.125 },
    },
  ]);
}

/** x in eight bits: each size of block, rows of zeros, and rows with NaN and infinity in one block. */
function int8Cases(): Case[] {
  const params = { accuracy: 'int8' } as const;
  const odd = (value: number) => Array.from({ length: 3 * 128 }, (_, i) => (i === 130 ? value : ((i * 37) % 19) - 9));
  return floats.flatMap((x) => [
    ...kinds.flatMap(({ kind, with: given, w }) =>
      [32, 64, 96, 384].flatMap((group) =>
        [1, 17, 66].map((m) => ({
          name: `${x}, ${kind}, int8, groups of ${group}, m ${m}`,
          dims: { m, rowsW: 50, k: 384, groups: 384 / group },
          params,
          with: given,
          dtypes: { x, w },
        })),
      ),
    ),
    {
      name: `${x}, int8, everything`,
      dims: { batch: 2, m: 9, rowsW: 66, k: 256, groups: 2 },
      params: { ...params, activation: 'swiglu' },
      with: ['zeros', 'perm', 'bias', 'residual'],
      dtypes: { x },
      values: { scales: 0.125 },
    },
    {
      name: `${x}, int8, x of zeros`,
      dims: { m: 3, rowsW: 20, k: 128, groups: 1 },
      params,
      with: ['bias'],
      dtypes: { x },
      values: { x: 0 },
      exact: true,
    },
    ...[Number.NaN, Number.POSITIVE_INFINITY].map((value) => ({
      name: `${x}, int8, ${value} in the second row`,
      dims: { m: 3, rowsW: 20, k: 128, groups: 2 },
      params,
      dtypes: { x },
      values: { x: odd(value) },
    })),
  ]);
}

/** Many terms, where the order of summation and the width of the accumulator show. */
function longSums(): Case[] {
  return floats.flatMap((x) => [
    ...kinds.map(({ kind, with: given, w }) => ({
      name: `${x}, ${kind}, k 8192, one row`,
      dims: { m: 1, rowsW: 16, k: 8192, groups: 64 },
      with: given,
      dtypes: { x, w },
    })),
    {
      name: `${x}, k 4096, batch invariant`,
      dims: { m: 3, rowsW: 70, k: 4096, groups: 32 },
      params: { batchInvariant: true },
      dtypes: { x },
    },
    {
      name: `${x}, k 1536, batch invariant, int8`,
      dims: { m: 3, rowsW: 70, k: 1536, groups: 12 },
      params: { batchInvariant: true, accuracy: 'int8' },
      dtypes: { x },
    },
    { name: `${x}, k 2048, exact`, dims: { m: 9, rowsW: 17, k: 2048, groups: 16 }, dtypes: { x }, exact: true },
  ]);
}
