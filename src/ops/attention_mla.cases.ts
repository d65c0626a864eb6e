// Cases that every backend of attention_mla must get right: latents and heads of every compiled size and beside them, pages and lengths
// at and beside the edges of tiles, parts. Exact ones see one row of the cache, whatever its score.
import type { Case, Layout } from '../case.js';
import { exactly, floats, qOf, two } from './attention_gqa.base.js';

const base = { batch: 3, lenQ: 1, heads: 4, dim: 96 };
const small = { latent: 64, scale: 0.2 };
const pagesOf = (pageSize: number, tokens: number, batch = base.batch) => {
  const maxPages = Math.ceil(tokens / pageSize);
  return { pageSize, maxPages, pages: batch * maxPages };
};

export function cases(): Case[] {
  return [
    ...latentCases(),
    ...longCases(),
    ...headCases(),
    ...pageCases(),
    ...lengthCases(),
    ...stepCases(),
    ...typeCases(),
    ...splitCases(),
    ...scaledCases(),
  ];
}

/** The longest rows, in parts. */
const longCases = (): Case[] =>
  two.map((dtype) => ({
    name: `${dtype}, 512 of 576, 1100 keys in parts`,
    dims: { ...base, batch: 1, heads: 3, dim: 576, ...pagesOf(64, 1100, 1) },
    params: { latent: 512, scale: 0.05, splits: 3 },
    dtypes: qOf(dtype),
    values: { lensKv: 1100 },
  }));

/** DeepSeek's 512 + 64, the paper's eighths of its hidden sizes, and sizes with nothing to align to. */
function latentCases(): Case[] {
  const sizes = [
    [576, 512],
    [320, 256],
    [256, 192],
    [192, 128],
    [176, 112],
    [128, 128],
    [65, 1],
    [41, 40],
    [520, 500],
  ] as const;
  return two.flatMap((dtype) =>
    sizes.flatMap(([dim, latent]): Case[] => {
      const one = {
        dims: { ...base, batch: 2, heads: 5, dim, ...pagesOf(16, 70, 2) },
        params: { latent, scale: 1 / Math.sqrt(dim) },
        dtypes: qOf(dtype),
        values: { lensKv: [70, 33] },
      };
      const first = { ...one, params: { ...one.params, scale: 0.25 }, values: { lensKv: [1, 1] }, exact: exactly };
      return [
        { ...one, name: `${dtype}, ${latent} of ${dim}` },
        { ...first, name: `${dtype}, ${latent} of ${dim}, one key` },
      ];
    }),
  );
}

function headCases(): Case[] {
  return two.flatMap((dtype) =>
    [1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 128].flatMap((heads) =>
      [1, 2].map((lenQ) => ({
        name: `${dtype}, ${heads} heads, ${lenQ} queries`,
        dims: { ...base, batch: 2, heads, lenQ, ...pagesOf(16, 70, 2) },
        params: small,
        dtypes: qOf(dtype),
        values: { lensKv: [70, 3] },
      })),
    ),
  );
}

function pageCases(): Case[] {
  return two.flatMap((dtype) =>
    [1, 2, 5, 16, 17, 64, 100].flatMap((pageSize): Case[] => {
      const dims = { ...base, ...pagesOf(pageSize, 150) };
      const one = { dims, params: small, dtypes: qOf(dtype), values: { lensKv: [150, 1, 97] } };
      return [
        { ...one, name: `${dtype}, pages of ${pageSize}` },
        { ...one, name: `${dtype}, shared pages of ${pageSize}`, dims: { ...dims, pages: 2 } },
      ];
    }),
  );
}

function lengthCases(): Case[] {
  const lengths = [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 513];
  return two.flatMap((dtype): Case[] => [
    ...lengths.map((length) => ({
      name: `${dtype}, length ${length}`,
      dims: { ...base, ...pagesOf(16, 520) },
      params: small,
      dtypes: qOf(dtype),
      values: { lensKv: [length, 40, 520] },
    })),
    {
      name: `${dtype}, no pages in the table`,
      dims: { ...base, pageSize: 16, maxPages: 0, pages: 1 },
      params: small,
      dtypes: qOf(dtype),
    },
    { name: `${dtype}, no heads`, dims: { ...base, ...pagesOf(16, 40), heads: 0 }, params: small, dtypes: qOf(dtype) },
  ]);
}

function stepCases(): Case[] {
  return two.flatMap((dtype) =>
    [2, 4, 17, 70].flatMap((lenQ) =>
      [true, false].map((causal) => ({
        name: `${dtype}, ${lenQ} queries${causal ? '' : ', not causal'}`,
        dims: { ...base, ...pagesOf(16, 120), lenQ },
        params: { ...small, causal },
        dtypes: qOf(dtype),
        with: ['lensQ'],
        values: { lensQ: [lenQ, 1, Math.ceil(lenQ / 2)], lensKv: [120, 0, 30] },
      })),
    ),
  );
}

function typeCases(): Case[] {
  const names = ['q', 'cCache', 'pageTable', 'lensKv', 'lensQ', 'y', 'lse'];
  const dims = { ...base, ...pagesOf(6, 50), lenQ: 3, dim: 40 };
  return floats.flatMap((dtype) => [
    ...floats.map((y) => ({
      name: `${dtype} to ${y}`,
      dims,
      params: { latent: 24, scale: -0.3 },
      dtypes: { q: dtype, y },
    })),
    ...(['padded', 'swapped', 'crossed'] as const).map(
      (layout: Layout): Case => ({
        name: `${dtype}, all ${layout}`,
        dims,
        params: { latent: 24, scale: 0.2 },
        dtypes: qOf(dtype),
        with: ['lensQ'],
        layout: Object.fromEntries(names.map((name) => [name, layout])),
      }),
    ),
  ]);
}

function splitCases(): Case[] {
  const dims = { ...base, batch: 4, heads: 8, ...pagesOf(16, 1500, 4) };
  return two.flatMap((dtype) =>
    [{}, { splits: 1 }, { splits: 2 }, { splits: 7 }, { batchInvariant: true }].map((params) => ({
      name: `${dtype}, 1500 keys and few${Object.entries(params)
        .map(([name, value]) => `, ${name} ${value}`)
        .join('')}`,
      dims,
      params: { ...small, ...params },
      dtypes: qOf(dtype),
      values: { lensKv: [1500, 0, 3, 700] },
    })),
  );
}

/** Caches of f8e4m3, for queries of every type: latents, pages, heads and rows of every kernel, parts, layouts. */
function scaledCases(): Case[] {
  return floats.flatMap((dtype) => {
    const one = (name: string, dims: Case['dims'], lensKv: number[], rest: Partial<Case> = {}): Case => ({
      params: small,
      ...rest,
      name: `${dtype} over f8e4m3, ${name}`,
      dims,
      dtypes: { q: dtype, cCache: 'f8e4m3' },
      with: ['cScale', ...(rest.with ?? [])],
      values: { ...rest.values, lensKv },
    });
    return [
      ...(
        [
          [576, 512],
          [320, 256],
          [192, 128],
          [128, 128],
          [65, 1],
          [41, 40],
        ] as const
      ).flatMap(([dim, latent]) => {
        const [dims, scale] = [{ ...base, batch: 2, heads: 5, dim, ...pagesOf(16, 70, 2) }, 1 / Math.sqrt(dim)];
        return [
          one(`${latent} of ${dim}`, dims, [70, 33], { params: { latent, scale } }),
          one(`${latent} of ${dim}, one key`, dims, [1, 1], { params: { latent, scale: 0.25 }, exact: exactly }),
        ];
      }),
      ...[1, 5, 16, 17, 64].map((pageSize) =>
        one(`pages of ${pageSize}`, { ...base, ...pagesOf(pageSize, 150) }, [150, 1, 97]),
      ),
      ...[16, 33, 64, 128].flatMap((heads) =>
        [1, 2].map((lenQ) =>
          one(`${heads} heads, ${lenQ} queries`, { ...base, batch: 2, heads, lenQ, ...pagesOf(16, 70, 2) }, [70, 3]),
        ),
      ),
      one('17 queries', { ...base, ...pagesOf(16, 120), lenQ: 17 }, [120, 0, 30], {
        with: ['lensQ'],
        values: { lensQ: [17, 1, 9] },
      }),
      one(
        '128 heads, 576, 300 keys in parts',
        { ...base, batch: 1, heads: 128, dim: 576, ...pagesOf(64, 300, 1) },
        [300],
        {
          params: { latent: 512, scale: 0.05, splits: 2 },
        },
      ),
      ...(['padded', 'swapped', 'crossed'] as const).map((layout: Layout) =>
        one(`all ${layout}`, { ...base, ...pagesOf(6, 50), lenQ: 3, dim: 40 }, [50, 7, 12], {
          params: { latent: 24, scale: 0.2 },
          layout: Object.fromEntries(
            ['q', 'cCache', 'pageTable', 'lensKv', 'cScale', 'y', 'lse'].map((t) => [t, layout]),
          ),
        }),
      ),
    ];
  });
}
