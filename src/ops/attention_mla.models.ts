// Decode steps of models with latent attention over paged caches: DeepSeek-V2 Lite and V3, whole and as one of several GPUs has them,
// and the bodies that EfficientLLM (arXiv 2505.13840) trains, whose latent is an eighth of the hidden size, without a rotated part. Some
// over caches of f8e4m3 as well.
import type { Model } from '../case.js';
import { overScaled } from './cache.rules.js';

interface Body {
  model: string;
  heads: number;
  dim: number;
  latent: number;
  /** Of queries and keys before they are absorbed. */
  headDim: number;
}

const deepseek = { dim: 576, latent: 512, headDim: 192 };
const trained = (size: string, heads: number, latent: number): Body => ({
  model: `efficientllm-${size} mla`,
  heads,
  dim: latent,
  latent,
  headDim: 128,
});
const bodies: Body[] = [
  { model: 'deepseek-v2-lite', heads: 16, ...deepseek },
  { model: 'deepseek-v3', heads: 128, ...deepseek },
  { model: 'deepseek-v3, a quarter of its heads', heads: 32, ...deepseek },
  trained('0.5b', 14, 112),
  trained('1.5b', 12, 192),
  trained('3b', 16, 256),
];
const pageSize = 64;
const quick = new Set(['deepseek-v2-lite decode 4096', 'efficientllm-1.5b mla decode 4096']);

const step = ({ model, heads, dim, latent, headDim }: Body, batch: number, lenKv: number, lenQ = 1): Model => {
  const maxPages = Math.ceil(lenKv / pageSize);
  const guessed = lenQ > 1 ? `, ${lenQ} queries` : '';
  const name = `${model} ${batch === 1 ? `decode ${lenKv}` : `decode of ${batch}, ${lenKv}`}${guessed}`;
  return {
    name,
    dims: { batch, lenQ, heads, dim, pageSize, maxPages, pages: batch * maxPages },
    params: { latent, scale: 1 / Math.sqrt(headDim) },
    dtypes: { q: 'bf16' },
    values: { lensKv: lenKv },
    ...(quick.has(name) ? { quick: true } : {}),
  };
};

const scaled = (model: Model) => overScaled(model, ['cCache'], ['cScale']);
export const models: readonly Model[] = bodies.flatMap((body) => [
  step(body, 1, 4096),
  step(body, 8, 4096),
  ...(body.latent === deepseek.latent
    ? [step(body, 128, 8192), step(body, 1, 4096, 2), scaled(step(body, 8, 4096))]
    : [step(body, 1, 2048), scaled(step(body, 1, 2048))]),
]);
