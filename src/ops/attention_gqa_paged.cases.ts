// Cases that every backend of attention_gqa_paged must get right: pages of every size, lengths at and beside the edges of pages and
// tiles, shared pages, requests without keys, decoding and pieces of prompts. Exact ones see one key a row, whatever its score.
import type { Case, Layout } from '../case.js';
import { exactly, floats, qOf, two } from './attention_gqa.base.js';

const base = { batch: 3, lenQ: 1, headsQ: 4, headsKv: 2, dim: 32, dimV: 32 };
const own = { windowLeft: 0 };
/** Capacity for `tokens` in pages of that size, each request with pages of its own. */
const pagesOf = (pageSize: number, tokens: number, batch = base.batch) => {
  const maxPages = Math.ceil(tokens / pageSize);
  return { pageSize, maxPages, pages: batch * maxPages };
};

export function cases(): Case[] {
  return [
    ...pageCases(),
    ...lengthCases(),
    ...stepCases(),
    ...headCases(),
    ...dimCases(),
    ...boundCases(),
    ...layoutCases(),
    ...splitCases(),
    ...scaledCases(),
  ];
}

/** Page sizes, requests with their own pages and with pages of each other. */
function pageCases(): Case[] {
  return [1, 2, 3, 5, 8, 15, 16, 17, 32, 64, 100, 128, 256].flatMap((pageSize) =>
    two.flatMap((dtype): Case[] => {
      const dims = { ...base, ...pagesOf(pageSize, 150) };
      const one = { dims, dtypes: qOf(dtype), values: { lensKv: [150, 1, 97] } };
      return [
        { ...one, name: `${dtype}, pages of ${pageSize}` },
        { ...one, name: `${dtype}, shared pages of ${pageSize}`, dims: { ...dims, pages: 2 } },
        { ...one, name: `${dtype}, pages of ${pageSize}, own key`, params: own, exact: exactly },
      ];
    }),
  );
}

/** Lengths at the edges of tiles, none and full among them; a table without entries. */
function lengthCases(): Case[] {
  const lengths = [0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 256, 257, 511, 512, 513];
  return two.flatMap((dtype) => [
    ...lengths.map((length) => ({
      name: `${dtype}, length ${length}`,
      dims: { ...base, ...pagesOf(16, 520) },
      dtypes: qOf(dtype),
      values: { lensKv: [length, 40, 520] },
    })),
    {
      name: `${dtype}, no pages in the table`,
      dims: { ...base, pageSize: 16, maxPages: 0, pages: 1 },
      dtypes: qOf(dtype),
    },
    { name: `${dtype}, no requests`, dims: { ...base, ...pagesOf(16, 40), batch: 0, pages: 3 }, dtypes: qOf(dtype) },
    { name: `${dtype}, no queries`, dims: { ...base, ...pagesOf(16, 40), lenQ: 0 }, dtypes: qOf(dtype) },
    { name: `${dtype}, no heads`, dims: { ...base, ...pagesOf(16, 40), headsQ: 0, headsKv: 0 }, dtypes: qOf(dtype) },
    {
      name: `${dtype}, forty requests`,
      dims: { ...base, batch: 40, ...pagesOf(8, 64, 40) },
      dtypes: qOf(dtype),
    },
  ]);
}

/** Queries of a step: one, a few, and pieces of prompts, with more queries than keys among them. */
function stepCases(): Case[] {
  return two.flatMap((dtype) =>
    [2, 4, 5, 16, 33, 70, 129].flatMap((lenQ) =>
      [{}, { causal: false }, { windowLeft: 20 }].map((params) => ({
        name: `${dtype}, ${lenQ} queries${Object.entries(params)
          .map(([name, value]) => `, ${name} ${value}`)
          .join('')}`,
        dims: { ...base, ...pagesOf(16, 200), lenQ },
        params,
        dtypes: qOf(dtype),
        with: ['lensQ'],
        values: { lensQ: [lenQ, 1, Math.ceil(lenQ / 2)], lensKv: [200, 0, 30] },
      })),
    ),
  );
}

function headCases(): Case[] {
  const heads = [
    [1, 1],
    [3, 3],
    [8, 1],
    [14, 2],
    [17, 1],
    [40, 8],
  ] as const;
  return two.flatMap((dtype) =>
    heads.flatMap(([headsQ, headsKv]) =>
      [1, 3].map((lenQ) => ({
        name: `${dtype}, ${headsQ} heads of ${headsKv}, ${lenQ} queries`,
        dims: { ...base, ...pagesOf(16, 80), lenQ, headsQ, headsKv },
        dtypes: qOf(dtype),
      })),
    ),
  );
}

/** Head sizes with a kernel of their own, beside them, and with values of another size; every result type. */
function dimCases(): Case[] {
  const pairs = [
    ...[1, 7, 33, 64, 80, 96, 128, 192, 255, 256].map((n) => [n, n] as const),
    [192, 128],
    [64, 128],
    [256, 96],
    [40, 33],
  ] as const;
  return floats.flatMap((dtype) => [
    ...pairs.map(([dim, dimV]) => ({
      name: `${dtype}, dim ${dim}, dimV ${dimV}`,
      dims: { ...base, ...pagesOf(16, 70), dim, dimV },
      dtypes: qOf(dtype),
    })),
    ...floats.map((y) => ({ name: `${dtype} to ${y}`, dims: { ...base, ...pagesOf(3, 70) }, dtypes: { q: dtype, y } })),
  ]);
}

/** Windows, softcap, sinks, steep scores. */
function boundCases(): Case[] {
  const params = [
    { windowLeft: 5 },
    { windowLeft: 64 },
    { softcap: 3 },
    { scale: 30 },
    { causal: false, windowLeft: 9 },
  ];
  return two.flatMap((dtype) =>
    params.flatMap((p) =>
      [1, 20].map((lenQ) => ({
        name: `${dtype}, ${lenQ} queries, ${Object.entries(p).flat().join(' ')}, sink`,
        dims: { ...base, ...pagesOf(16, 300), lenQ },
        params: p,
        dtypes: qOf(dtype),
        with: ['sink'],
      })),
    ),
  );
}

function layoutCases(): Case[] {
  const dims = { ...base, ...pagesOf(6, 50), lenQ: 3, dim: 40, dimV: 24 };
  const names = ['q', 'kCache', 'vCache', 'pageTable', 'lensKv', 'lensQ', 'sink', 'y', 'lse'];
  return two.flatMap((dtype) =>
    (['padded', 'swapped', 'crossed'] as const).map(
      (layout: Layout): Case => ({
        name: `${dtype}, all ${layout}`,
        dims,
        dtypes: qOf(dtype),
        with: ['lensQ', 'sink'],
        layout: Object.fromEntries(names.map((name) => [name, layout])),
      }),
    ),
  );
}

/** Long and short requests together, in parts, and independent of each other. */
function splitCases(): Case[] {
  const dims = { ...base, batch: 4, headsQ: 8, dim: 64, dimV: 64, ...pagesOf(16, 1500, 4) };
  const values = { lensKv: [1500, 0, 3, 700] };
  return two.flatMap((dtype) =>
    [{}, { splits: 1 }, { splits: 2 }, { splits: 7 }, { batchInvariant: true }, { windowLeft: 600 }].map((params) => ({
      name: `${dtype}, 1500 keys and few${Object.entries(params)
        .map(([name, value]) => `, ${name} ${value}`)
        .join('')}`,
      dims,
      params,
      dtypes: qOf(dtype),
      values,
    })),
  );
}

/** Caches of f8e4m3, for queries of every type: pages, windows, sinks, heads, several rows, parts, sizes with nothing to align to. */
function scaledCases(): Case[] {
  const many = { ...base, lenQ: 33, headsQ: 8 };
  return floats.flatMap((dtype) => {
    const scaled = { dtypes: { q: dtype, kCache: 'f8e4m3' as const }, with: ['kScale', 'vScale'] };
    const one = (name: string, dims: Case['dims'], lensKv: number[], rest: Partial<Case> = {}): Case => ({
      ...scaled,
      ...rest,
      with: [...scaled.with, ...(rest.with ?? [])],
      name: `${dtype} over f8e4m3, ${name}`,
      dims,
      values: { ...rest.values, lensKv },
    });
    return [
      ...[1, 5, 16, 17, 64].flatMap((pageSize) => {
        const [dims, lengths] = [{ ...base, ...pagesOf(pageSize, 150) }, [150, 1, 97]];
        return [
          one(`pages of ${pageSize}`, dims, lengths),
          one(`shared pages of ${pageSize}, 33 queries`, { ...dims, ...many, pages: 2 }, lengths),
          one(`pages of ${pageSize}, own key`, dims, lengths, { params: own, exact: exactly }),
        ];
      }),
      ...[1, 20].map((lenQ) =>
        one(`${lenQ} queries, window, softcap, sink`, { ...base, ...pagesOf(16, 300), lenQ }, [300, 40, 7], {
          params: { windowLeft: 64, softcap: 3 },
          with: ['sink', 'lensQ'],
          values: { lensQ: [lenQ, 1, Math.ceil(lenQ / 2)] },
        }),
      ),
      ...(
        [
          [14, 2],
          [17, 1],
          [40, 8],
        ] as const
      ).map(([headsQ, headsKv]) =>
        one(`${headsQ} heads of ${headsKv}`, { ...base, ...pagesOf(16, 80), headsQ, headsKv }, [80, 0, 33]),
      ),
      ...(
        [
          [7, 33],
          [64, 64],
          [128, 128],
          [192, 128],
          [256, 96],
          [255, 255],
        ] as const
      ).map(([dim, dimV]) => one(`dim ${dim}, dimV ${dimV}`, { ...base, ...pagesOf(16, 70), dim, dimV }, [70, 3, 16])),
      one('1500 keys and few, splits 3', { ...base, batch: 4, dim: 64, ...pagesOf(16, 1500, 4) }, [1500, 0, 3, 700], {
        params: { splits: 3 },
      }),
      ...(['padded', 'swapped', 'crossed'] as const).map((layout: Layout) =>
        one(`all ${layout}`, { ...base, ...pagesOf(6, 50), lenQ: 3, dim: 40, dimV: 24 }, [50, 7, 12], {
          layout: Object.fromEntries(
            ['q', 'kCache', 'vCache', 'pageTable', 'lensKv', 'kScale', 'vScale', 'y', 'lse'].map((t) => [t, layout]),
          ),
        }),
      ),
    ];
  });
}
