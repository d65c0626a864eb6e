// Suites: named sets of benchmark shapes that follow tables of EfficientLLM (arXiv 2505.13840). A group holds the alternatives
// for one body and phase, which compare() takes in turns; a suite lists its groups. Data only: the shapes are the operators'.
import type { Model } from '../case.js';
import type { Operator } from '../op.js';
import * as ops from '../ops/index.js';

/** One alternative of a group. */
export interface Member {
  label: string;
  op: Operator;
  model: Model;
  /** Of keys and values, that a token takes in the cache of a layer; absent where nothing is decoded. */
  cacheBytes?: number;
}

/** Alternatives for the same job; the first is what ratios refer to. */
export interface SuiteGroup {
  name: string;
  /** The model whose shapes these are, as the paper's numbers are looked up. */
  body: string;
  /** Part of what `--quick` runs. */
  quick: boolean;
  members: readonly Member[];
}

export interface PaperSuite {
  name: string;
  /** What it follows. */
  title: string;
  groups: readonly SuiteGroup[];
  /** Rows of the paper's table that are not measured, and why. */
  absent: readonly string[];
  /** What no run of single operators can know. */
  unknowable: readonly string[];
  /** Why types of the same layer can differ in time at all. */
  differences: readonly string[];
}

const attentionGroup =
  /^(efficientllm-\S+) (mha|mqa|gqa|mla) (prefill|decode) 2048(?:, (pages) of 64)?(?:, (f8)e4m3)?$/;
/** Elements of the keys and values of a token, or of its latent. */
const cached = ({ headsKv, dim, dimV }: Readonly<Record<string, number>>) =>
  headsKv === undefined ? dim! : headsKv * (dim! + dimV!);

/**
 * The bodies that the paper trains, each with three ways to share key and value heads. A training iteration, which its latencies are of,
 * is a prefill and its gradients. Those that keep little, GQA and MLA, decode from caches of f8e4m3 as well, in a group of their own beside bf16.
 */
function attention(): SuiteGroup[] {
  const forward = ops.attentionGqa as unknown as Operator;
  const backward = ops.attentionGqaBackward as unknown as Operator;
  const paged = ops.attentionGqaPaged as unknown as Operator;
  const latent = ops.attentionMla as unknown as Operator;
  const groups = new Map<string, { body: string; quick: boolean; members: Member[] }>();
  const add = (op: Operator, { name, ...model }: Model, gradients: boolean): void => {
    const [, body, kind, phase, pages, f8] = attentionGroup.exec(name) ?? [];
    if (body === undefined) return;
    const inPages = pages || op === latent;
    const label = f8 ? `${kind} f8` : kind!;
    const cache = phase === 'decode' ? { cacheBytes: (f8 ? 1 : 2) * cached(model.dims) } : {};
    const into = (load: string): void => {
      const group = groups.get(`${body} ${load}`) ?? {
        body,
        quick: body === 'efficientllm-0.5b' && !gradients,
        members: [],
      };
      group.members.push({ label, op, model: { ...model, name: `${body} ${label} ${load}` }, ...cache });
      groups.set(`${body} ${load}`, group);
    };
    if (!f8) into(`${gradients ? 'gradients' : inPages ? 'paged decode' : phase} 2048`);
    if (inPages && (kind === 'gqa' || kind === 'mla')) into('decode 2048 by cache');
  };
  for (const model of forward.spec.models) {
    add(forward, model, false);
    const trained = backward.spec.models.find(({ name }) => name === model.name);
    if (trained) add(backward, trained, true);
    const name = `${model.name}, pages of 64`;
    for (const served of paged.spec.models)
      if (served.name === name || served.name === `${name}, f8e4m3`) add(paged, served, false);
  }
  for (const model of latent.spec.models) add(latent, model, false);
  return [...groups].map(([name, group]) => ({ name, ...group }));
}

const positionGroup = /^(efficientllm-\S+) (rope(?:-interleaved)?) (\S+ \d+)$/;

/** Queries and keys of the body for which the paper compares positional encodings. */
function positions(): SuiteGroup[] {
  const op = ops.rope as unknown as Operator;
  const groups = new Map<string, { body: string; members: Member[] }>();
  for (const model of op.spec.models) {
    const [, body, label, phase] = positionGroup.exec(model.name) ?? [];
    if (body === undefined) continue;
    // The paper's table of positions has rows of its own.
    const group = groups.get(`${body} positions ${phase}`) ?? { body: `${body} positions`, members: [] };
    group.members.push({ label: label!, op, model });
    groups.set(`${body} positions ${phase}`, group);
  }
  return [...groups].map(([name, group]) => ({ name, ...group, quick: true }));
}

/** The shapes of the nine models of the paper's quantization table; those of its two models of 14B are the same. */
const quantized = [
  'qwen2.5-1.5b',
  'llama-3-8b',
  'qwen2.5-7b',
  'qwen2.5-14b',
  'qwen2.5-32b',
  'phi-3.5-mini',
  'phi-4',
  'yi-34b',
];
const layerGroup = /^(\S+) (\S+) (decode|prefill 512)$/;

/** Their linear layers in the element types that the table compares. */
function quantization(): SuiteGroup[] {
  const op = ops.gemm as unknown as Operator;
  const int4 = ops.gemmInt4 as unknown as Operator;
  const groups = op.spec.models.flatMap((model) => {
    const [name, body, layer, phase] = layerGroup.exec(model.name) ?? [];
    if (name === undefined || !quantized.includes(body!)) return [];
    const members = (['bf16', 'f16'] as const).map((dtype): Member => {
      const dtypes = Object.fromEntries(Object.keys(model.dtypes!).map((tensor) => [tensor, dtype]));
      return { label: dtype, op, model: { ...model, name: `${name} ${dtype}`, dtypes } };
    });
    const packed = int4.spec.models.find((one) => one.name === name);
    if (packed) members.push({ label: 'int4', op: int4, model: { ...packed, name: `${name} int4` } });
    const short = layer !== 'head' && (phase === 'decode' || layer === 'o');
    return [{ name, body: body!, quick: body === 'qwen2.5-1.5b' && short, members }];
  });
  return groups.sort((a, b) => quantized.indexOf(a.body) - quantized.indexOf(b.body));
}

export const paperSuites: readonly PaperSuite[] = [
  {
    name: 'attention',
    title:
      'attention of the bodies that EfficientLLM trains (its Table 3), prefill with its gradients and decode at 2048 tokens, bf16; decode from caches of f8e4m3',
    groups: attention(),
    absent: [
      'NSA, a row of Table 3: this version has no operator for it.',
      'MLA in rows that lie one after the other (decode): its cache has pages. Its gemms before and after attention are not in it, as the projections of the others are not.',
      'MHA is no row of Table 3; it is the reference here, with a key/value head for every query head.',
      'The whole training step that Table 3 times: of it the suite has attention, a prefill and its gradients, which add up.',
    ],
    unknowable: ['perplexity', 'training loss', 'memory and power of 48 GPUs, communication included'],
    differences: [],
  },
  {
    name: 'quantization',
    title: 'linear layers of models that EfficientLLM quantizes (its Table 9), decode and prefill of 512 tokens',
    groups: quantization(),
    absent: [
      'int4 of the output heads: quantized checkpoints leave them as they were.',
      'A second model of 14B, which Table 9 has under two names with the same layers.',
    ],
    differences: [
      'bf16 and f16 move the same bytes and count the same FLOPs. On a GPU they run the same kernel, tile for tile, with instructions of equal rate. What can be left is data: f16 has three more bits of mantissa that change from element to element, which costs power, and clocks follow power under a limit.',
      'int4 is bf16 activations with weights of four bits, symmetric in groups of 128: a quarter of the bytes of w, and work to decode them. With one row the bytes count, with 512 the work.',
      'On a CPU the instructions differ: f16 is converted to f32 first, bf16 is multiplied by vdpbf16ps where that pays, or widened by a shift.',
    ],
    unknowable: ['task scores (MMLU-Pro, BBH, GPQA, IFEval, MATH, MUSR)', 'latency of a served request, host included'],
  },
  {
    name: 'positions',
    title:
      'positional encodings of the 1.5B body that EfficientLLM trains (its Table 4), a prompt of 2048 tokens and 64 requests, bf16',
    groups: positions(),
    absent: [
      'Absolute and learnable embeddings, a row of a table added to each token, and the relative bias: this version has no operator for them.',
      'None, which costs nothing here; the paper prints it as the slowest and largest, which its work cannot explain.',
      'The training step that Table 4 times: this suite turns queries and keys alone.',
    ],
    differences: [
      'Interleaved pairs turn neighbouring columns, so that each vector of columns needs an exchange of lanes; bytes and FLOPs are the same.',
    ],
    unknowable: ['perplexity', 'training loss', 'memory and power of 48 GPUs, communication included'],
  },
];

/** The groups to run and, of a short run, the names of those left out. */
export function chosenGroups({ groups }: PaperSuite, quick: boolean): { run: SuiteGroup[]; leftOut: string[] } {
  const run = groups.filter((group) => !quick || group.quick);
  return { run, leftOut: groups.filter((group) => !run.includes(group)).map(({ name }) => name) };
}
