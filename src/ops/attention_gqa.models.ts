// Attention of served models, of the bodies that EfficientLLM (arXiv 2505.13840) trains, and of its image models.
import type { Model } from '../case.js';

interface Body {
  model: string;
  headsQ: number;
  headsKv: number;
  dim: number;
  /** Of values; default: dim. */
  dimV?: number;
  /** Sliding window, in keys. */
  window?: number;
}

const served: Body[] = [
  { model: 'qwen2.5-0.5b', headsQ: 14, headsKv: 2, dim: 64 },
  { model: 'qwen2.5-1.5b', headsQ: 12, headsKv: 2, dim: 128 },
  { model: 'qwen2.5-3b', headsQ: 16, headsKv: 2, dim: 128 },
  { model: 'qwen2.5-7b', headsQ: 28, headsKv: 4, dim: 128 },
  { model: 'qwen2.5-14b', headsQ: 40, headsKv: 8, dim: 128 },
  { model: 'qwen2.5-32b', headsQ: 40, headsKv: 8, dim: 128 },
  { model: 'llama-3.2-1b', headsQ: 32, headsKv: 8, dim: 64 },
  { model: 'llama-3.2-3b', headsQ: 24, headsKv: 8, dim: 128 },
  { model: 'llama-3-8b', headsQ: 32, headsKv: 8, dim: 128 },
  { model: 'llama-3-70b', headsQ: 64, headsKv: 8, dim: 128 },
  { model: 'mistral-7b', headsQ: 32, headsKv: 8, dim: 128, window: 4096 },
  { model: 'phi-3.5-mini', headsQ: 32, headsKv: 32, dim: 96 },
  { model: 'phi-4', headsQ: 40, headsKv: 10, dim: 128 },
  { model: 'yi-34b', headsQ: 56, headsKv: 8, dim: 128 },
];

/** The bodies that the paper trains, with a key/value head for every query head, with one, and with two. */
const trained: Body[] = [
  { size: '0.5b', headsQ: 14, dim: 64 },
  { size: '1.5b', headsQ: 12, dim: 128 },
  { size: '3b', headsQ: 16, dim: 128 },
].flatMap(({ size, headsQ, dim }) => [
  { model: `efficientllm-${size} mha`, headsQ, headsKv: headsQ, dim },
  { model: `efficientllm-${size} mqa`, headsQ, headsKv: 1, dim },
  { model: `efficientllm-${size} gqa`, headsQ, headsKv: 2, dim },
]);

/** With latents, expanded for a prefill: keys of 128, values of the body's heads. Decoding is attention_mla's. */
const latent: Body[] = trained
  .filter(({ headsQ, headsKv }) => headsQ === headsKv)
  .map(({ model, dim, ...heads }) => ({ model: model.replace('mha', 'mla'), ...heads, dim: 128, dimV: dim }));

/** Requests and lengths in one call. Decoding adds one query to keys that are there. */
interface Load {
  name: string;
  batch: number;
  lenQ: number;
  lenKv: number;
}
const prefill = (len: number): Load => ({ name: `prefill ${len}`, batch: 1, lenQ: len, lenKv: len });
const decode = (batch: number, lenKv: number): Load => ({
  name: batch === 1 ? `decode ${lenKv}` : `decode of ${batch}, ${lenKv}`,
  batch,
  lenQ: 1,
  lenKv,
});

/** What a benchmark on a CPU runs unless told otherwise. */
const quick = new Set([
  'qwen2.5-1.5b prefill 1024',
  'qwen2.5-1.5b decode 4096',
  'llama-3-8b prefill 1024',
  'llama-3-8b decode 4096',
  'llama-3-8b decode of 8, 4096',
  'dit-xl/2 mha',
]);

const model = (m: Model): Model => ({ ...m, dtypes: { q: 'bf16' }, ...(quick.has(m.name) ? { quick: true } : {}) });

const language = (bodies: readonly Body[], loads: readonly Load[]): Model[] =>
  bodies.flatMap(({ model: body, window, dim, dimV = dim, ...heads }) =>
    loads.map(({ name, ...sizes }) =>
      model({
        name: `${body} ${name}`,
        dims: { ...sizes, ...heads, dim, dimV },
        params: { causal: true, ...(window === undefined ? {} : { windowLeft: window - 1 }) },
      }),
    ),
  );

/** Diffusion transformers see every token from every token; eight images of latent patches. */
const images: Model[] = [
  { name: 'dit-xl/2 mha', tokens: 256, headsQ: 16, headsKv: 16, dim: 72 },
  { name: 'dit-xl/2 mqa', tokens: 256, headsQ: 16, headsKv: 1, dim: 72 },
  { name: 'dit-xl/2 gqa', tokens: 256, headsQ: 16, headsKv: 4, dim: 72 },
  { name: 'dit-l/8 mha', tokens: 16, headsQ: 16, headsKv: 16, dim: 64 },
  { name: 'dit-b/4 mha', tokens: 64, headsQ: 12, headsKv: 12, dim: 64 },
].map(({ name, tokens, dim, ...heads }) =>
  model({ name, dims: { batch: 8, lenQ: tokens, lenKv: tokens, ...heads, dim, dimV: dim } }),
);

export const models: readonly Model[] = [
  ...language(served, [prefill(1024), prefill(4096), decode(1, 4096), decode(8, 4096), decode(32, 4096)]),
  ...language([served.find((body) => body.model === 'llama-3-70b')!], [prefill(8192)]),
  ...language([served.find((body) => body.model === 'mistral-7b')!], [decode(1, 16384)]),
  ...language(trained, [prefill(2048), decode(1, 2048)]),
  ...language(latent, [prefill(2048)]),
  ...images,
];
