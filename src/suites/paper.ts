// What EfficientLLM (arXiv 2505.13840) prints for the rows of a suite, as context beside measurements and never as a target: its
// numbers are of whole training iterations and served models on other machines. `~` was read from a figure, `-` is not printed.

export interface PaperTable {
  source: string;
  heads: readonly string[];
  rows: readonly (readonly string[])[];
}

const trained = (size: string, rows: readonly (readonly string[])[]): PaperTable => ({
  source: `Table 3 of the paper, ${size} bodies, training on 48 GH200; ranks from its Fig. 2 (Perf/AMU/AL/TT/AEC)`,
  heads: ['', 'PPL', 'AMU GB', 'AL s/iteration', 'AEC W', 'ranks [h]'],
  rows: rows.map((row, i) => [...row, ['4/1/1/1/3', '3/3/2/2/4', '1/4/3/3/2', '2/2/4/4/1'][i]!]),
});

const quantized = (model: string, rows: readonly (readonly string[])[]): PaperTable => ({
  source: `Table 9 of the paper, ${model}, served by vLLM on GH200; ranks from its Fig. 2 (Perf/AMU/AL/IT/AEC/MCR)`,
  heads: ['', 'IT tokens/s', 'AEC W', 'score', 'MCR', 'ranks'],
  rows,
});

/** By the body of a group. */
export const paperTables: Readonly<Record<string, PaperTable>> = {
  'efficientllm-0.5b': trained('0.5B', [
    ['mqa', '~8.76', '-', '-', '~634'],
    ['gqa', '~8.56', '-', '-', '~644'],
    ['mla', '~8.29', '-', '-', '~608'],
    ['nsa', '~8.47', '-', '-', '594'],
  ]),
  'efficientllm-1.5b': trained('1.5B', [
    ['mqa', '8.23', '42.24', '0.1298', '~647'],
    ['gqa', '8.09', '44.87 [a]', '0.1283 [a] [b]', '652.7'],
    ['mla', '7.79', '52.93', '0.2537', '~609'],
    ['nsa', '~7.84', '~43.7', '0.5962 [c]', '598'],
  ]),
  'efficientllm-3b': trained('3B', [
    ['mqa', '~7.87', '-', '-', '~663'],
    ['gqa', '7.58', '43.94 [d]', '~0.125 [d]', '~669'],
    ['mla', '7.29', '-', '-', '~606'],
    ['nsa', '~7.39', '-', '-', '~601'],
  ]),
  'efficientllm-1.5b positions': {
    source: 'Table 4 of the paper, the 1.5B body with GQA, training on 48 GH200',
    heads: ['', 'PPL', 'AMU GB', 'AL s/iteration', 'AEC W'],
    rows: [
      ['rope', '8.09', '44.82', '0.1280', '~653'],
      ['absolute', '~8.32', '~46.2', '~0.132', '~669'],
      ['learnable', '~8.20', '~45.6', '~0.130', '~661'],
      ['relative', '8.29', '43.94', '0.1246', '646'],
      ['none', '~8.95', '~48', '~0.144', '~689'],
    ],
  },
  'qwen2.5-1.5b': quantized('DeepSeek-R1-Distill-Qwen-1.5B', [
    ['bf16', '39.68 [e]', '144.39', '0.2420', '-', '1/2/2/2/2/3'],
    ['f16', '37.70 [e]', '158.96', '0.2450', '-', '1/3/1/3/3/2 [f]'],
    ['int4', '-', '-', '0.2341', '3.87 [g]', '3/1/3/1/1/1 [f]'],
  ]),
  'qwen2.5-14b': quantized('DeepSeek-R1-Distill-Qwen-14B', [
    ['bf16', '24.74', '212', '0.4719', '-', '-'],
    ['int4', '26.40', '191', '0.4361', '3.70 [g]', '-'],
  ]),
  'qwen2.5-32b': quantized('Qwen2.5-32B', [
    ['bf16', '17.54', '279', '0.5523', '-', '-'],
    ['int4', '19.20', '215', '0.5095', '3.69 [g]', '-'],
  ]),
  'llama-3-8b': quantized('DeepSeek-R1-Distill-Llama-8B (a normalised figure only)', [
    ['bf16', '-', '-', '-', '-', '1/2/2/2/2/2'],
    ['f16', '-', '-', '-', '-', '2/3/1/3/3/3 [f]'],
    ['int4', '-', '-', '-', '-', '3/1/3/1/1/1 [f]'],
  ]),
};

/** Where the printed numbers do not hold what they promise; the letter marks them in the tables. */
const slips: Readonly<Record<string, string>> = {
  a: 'Tables 5 and 6 print 44.82 GB and 0.1280 s for the same model.',
  b: '0.128 s at micro-batch 2 fits sequences of 2048 (313 to 417 TFLOP/s); the tables say 8192, which would be 1453 to 1937. The micro-batch is 4, 2, 1 for 0.5B, 1.5B, 3B, so AL does not compare across sizes.',
  c: 'The published code for NSA synchronises with the host per block and builds its mask row by row, which may be what is timed.',
  d: 'From Table 5, dense 3B, at half the micro-batch of 1.5B: less is no saving.',
  e: 'Bound by the host: reading the weights alone would allow about 1100 tokens/s, so the ratio of two types says little about kernels.',
  f: 'int4 is worst in AL and best in IT, f16 best in AL and worst in IT; and the text says that bf16 has the lower latency.',
  g: 'Four times the ratio of scores: nominal 16 / 4 bits without scales and zeros, and no measured memory or energy. The value follows from printed scores.',
  h: 'TT where it is printed (8.98e-2 at 1.5B) means 2.7e16 FLOP/s on each GPU, 27 times its dense bf16 peak.',
};

/** The slips that a table's marks refer to, `[a] ...`. */
export function slipsOf({ heads, rows }: PaperTable): string[] {
  const marks = new Set(
    [...heads, ...rows.flat()].flatMap((cell) => [...cell.matchAll(/\[(\w)\]/g)].map(([, mark]) => mark!)),
  );
  return [...marks].sort().map((mark) => `[${mark}] ${slips[mark]}`);
}
