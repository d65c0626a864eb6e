// Decode steps of served models over paged caches: the shapes of attention_gqa's models, every request as long as said; some over
// caches of f8e4m3 as well.
import type { Model } from '../case.js';
import { models as contiguous } from './attention_gqa.models.js';
import { overScaled } from './cache.rules.js';

const paged = ({ name, dims, params, dtypes, quick }: Model, pageSize: number): Model => {
  const { lenKv, ...sizes } = dims as Record<'lenKv' | 'batch', number>;
  const maxPages = Math.ceil(lenKv / pageSize);
  return {
    name: `${name}, pages of ${pageSize}`,
    dims: { ...sizes, pageSize, maxPages, pages: sizes.batch * maxPages },
    values: { lensKv: lenKv },
    ...(params ? { params } : {}),
    ...(dtypes ? { dtypes } : {}),
    ...(quick ? { quick } : {}),
  };
};

const decoding = contiguous.filter(({ name }) => / decode /.test(name));
const llama = decoding.filter(({ name }) => name.startsWith('llama-3-8b '));
const trained = decoding.filter(({ name }) => /^efficientllm-\S+ gqa decode 2048$/.test(name));

export const models: readonly Model[] = [
  ...decoding.map((model) => paged(model, 64)),
  ...llama.map(({ quick: _, ...model }) => paged(model, 16)),
  ...[...llama, ...trained].map((model) => overScaled(paged(model, 64), ['kCache', 'vCache'], ['kScale', 'vScale'])),
];
