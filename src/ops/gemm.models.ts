// The linear layers of served models, and the squares that papers and libraries quote: what benchmarks of gemm run. Sizes are
// those of the models' published configurations.
import type { Model } from '../case.js';

interface Body {
  model: string;
  hidden: number;
  /** Query heads, key/value heads and their dimension: the fused projection has `(headsQ + 2 headsKv) dim` rows. */
  headsQ: number;
  headsKv: number;
  dim: number;
  intermediate: number;
  vocabulary: number;
  /** The fused projection of queries, keys and values has a bias. */
  bias?: true;
}

const served: readonly Body[] = [
  ...[
    { model: '0.5b', hidden: 896, headsQ: 14, headsKv: 2, dim: 64, intermediate: 4864, vocabulary: 151936 },
    { model: '1.5b', hidden: 1536, headsQ: 12, headsKv: 2, dim: 128, intermediate: 8960, vocabulary: 151936 },
    { model: '3b', hidden: 2048, headsQ: 16, headsKv: 2, dim: 128, intermediate: 11008, vocabulary: 151936 },
    { model: '7b', hidden: 3584, headsQ: 28, headsKv: 4, dim: 128, intermediate: 18944, vocabulary: 152064 },
    { model: '14b', hidden: 5120, headsQ: 40, headsKv: 8, dim: 128, intermediate: 13824, vocabulary: 152064 },
    { model: '32b', hidden: 5120, headsQ: 40, headsKv: 8, dim: 128, intermediate: 27648, vocabulary: 152064 },
  ].map((body) => ({ ...body, model: `qwen2.5-${body.model}`, bias: true as const })),
  { model: 'llama-3.2-1b', hidden: 2048, headsQ: 32, headsKv: 8, dim: 64, intermediate: 8192, vocabulary: 128256 },
  { model: 'llama-3.2-3b', hidden: 3072, headsQ: 24, headsKv: 8, dim: 128, intermediate: 8192, vocabulary: 128256 },
  { model: 'llama-3-8b', hidden: 4096, headsQ: 32, headsKv: 8, dim: 128, intermediate: 14336, vocabulary: 128256 },
  { model: 'mistral-7b', hidden: 4096, headsQ: 32, headsKv: 8, dim: 128, intermediate: 14336, vocabulary: 32768 },
  { model: 'phi-3.5-mini', hidden: 3072, headsQ: 32, headsKv: 32, dim: 96, intermediate: 8192, vocabulary: 32064 },
  { model: 'phi-4', hidden: 5120, headsQ: 40, headsKv: 10, dim: 128, intermediate: 17920, vocabulary: 100352 },
  { model: 'yi-34b', hidden: 7168, headsQ: 56, headsKv: 8, dim: 128, intermediate: 20480, vocabulary: 64000 },
];

/** Tokens in one call: decoding for one to sixteen requests, and prompts. */
const loads = [
  { name: 'decode', m: 1 },
  { name: 'decode of 4', m: 4 },
  { name: 'decode of 8', m: 8 },
  { name: 'decode of 16', m: 16 },
  { name: 'prefill 512', m: 512 },
  { name: 'prefill 4096', m: 4096 },
];

/** What a benchmark on a CPU runs unless told otherwise. */
const quick = new Set([
  'qwen2.5-1.5b qkv decode',
  'qwen2.5-1.5b gate_up decode',
  'qwen2.5-1.5b down decode',
  'qwen2.5-1.5b o decode of 16',
  'qwen2.5-1.5b qkv prefill 512',
  'qwen2.5-1.5b o prefill 512',
  'llama-3-8b o decode',
]);

/** The linear layers of a transformer block and the output head, in bf16 as checkpoints are. */
function layers({ model, hidden, headsQ, headsKv, dim, intermediate, vocabulary, bias }: Body): Model[] {
  const parts: Model[] = [
    { name: 'qkv', dims: { rowsW: (headsQ + 2 * headsKv) * dim, k: hidden }, with: bias ? ['bias'] : [] },
    { name: 'o', dims: { rowsW: hidden, k: headsQ * dim }, with: ['residual'] },
    { name: 'gate_up', dims: { rowsW: 2 * intermediate, k: hidden }, params: { activation: 'swiglu' } },
    { name: 'down', dims: { rowsW: hidden, k: intermediate }, with: ['residual'] },
    { name: 'head', dims: { rowsW: vocabulary, k: hidden } },
  ];
  return parts.flatMap((part) =>
    // A server computes the head for the last token of a prompt alone.
    loads
      .filter(({ m }) => part.name !== 'head' || m <= 16)
      .map((load): Model => {
        const name = `${model} ${part.name} ${load.name}`;
        const dtypes = { x: 'bf16', bias: 'bf16', residual: 'bf16' } as const;
        return {
          ...part,
          name,
          dims: { ...part.dims, m: load.m },
          dtypes,
          ...(quick.has(name) ? { quick: true } : {}),
        };
      }),
  );
}

/** Square products in f32 and bf16. */
const squares: Model[] = [1024, 2048, 4096, 8192].flatMap((n) =>
  (['f32', 'bf16'] as const).map((dtype) => ({
    name: `square ${n} ${dtype}`,
    dims: { m: n, rowsW: n, k: n },
    dtypes: { x: dtype },
    ...(n === 1024 ? { quick: true } : {}),
  })),
);

export const models: readonly Model[] = [...served.flatMap(layers), ...squares];
