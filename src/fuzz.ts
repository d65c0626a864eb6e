// Random cases: shapes, strides, dtypes and parameters drawn from an operator's declaration, the same for the same seed.
import type { BroadcastForm, Case, Layout, ParamValue } from './case.js';
import type { Device } from './device.js';
import { type DType, isPaired } from './dtype.js';
import { KernwattError } from './errors.js';
import type { Operator } from './op.js';
import { planCase } from './operands.js';
import { randomSource } from './random.js';
import { isRequired, type ParamSpec } from './spec.js';

/** Sizes where tiles, vectors and loops begin and end. */
const edges = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 255, 256, 257];
/** Floating-point operations that one case may take: the definition runs about 10^8 of them a second, the emulator fewer. */
const mostFlops = { host: 2e7, emulated: 2e6 };
const attempts = 1000;

/** The random case of a seed, small enough for that device. Cases that break a rule of the operator are drawn again. */
export function fuzzCase(op: Operator, seed: number, device: { info: Pick<Device['info'], 'emulated'> }): Case {
  const next = randomSource(seed);
  const limit = device.info.emulated ? mostFlops.emulated : mostFlops.host;
  for (let i = 0; i < attempts; ++i) {
    const c = draw(op, seed, next);
    try {
      if (planCase(op, c).flops <= limit) return c;
    } catch (error) {
      if (!(error instanceof KernwattError)) throw error;
    }
  }
  throw new KernwattError(
    'INTERNAL',
    `${op.spec.name}: none of ${attempts} random cases keeps the rules, expected its rules to be satisfiable`,
  );
}

function draw(op: Operator, seed: number, next: () => number): Case {
  const below = (n: number) => Math.floor(next() * n);
  const pick = <T>(list: readonly T[]): T => list[below(list.length)]!;
  const chance = (p: number) => next() < p;
  const { tensors, params } = op.compiled;
  const { derive = {}, draw: drawn = {} } = op.spec;
  const optional = new Set(tensors.filter((t) => t.optional).map((t) => t.dims[0]!.name));

  const size = (name: string): number => {
    const from = drawn[name];
    if (from && 'divides' in from) return pick(divisors(dims[from.divides]!));
    if (from) return pick(from);
    if (optional.has(name)) return pick([0, 1, 2, 3, 5]);
    return chance(0.6) ? pick(edges) : chance(0.8) ? 1 + below(100) : 1 + below(400);
  };
  const dims: Record<string, number> = {};
  for (const name of new Set(tensors.flatMap((t) => t.dims.map((d) => d.name))))
    if (!(name in derive) && (!optional.has(name) || chance(0.5))) dims[name] = size(name);
  const given = tensors.filter((t) => t.spec.role === 'in?' && chance(0.4)).map((t) => t.name);
  // Sizes that only absent inputs have are 0, here and in outputs that have them too.
  const carried = new Set(
    tensors.filter((t) => isRequired(t.spec) || given.includes(t.name)).flatMap((t) => t.dims.map((d) => d.name)),
  );
  for (const name of Object.keys(dims)) if (!carried.has(name)) delete dims[name];
  const values: Record<string, ParamValue> = {};
  for (const { name, spec } of params) {
    const from = drawn[name];
    if (spec.required || chance(0.5)) values[name] = Array.isArray(from) ? pick(from) : value(spec, next, pick);
  }
  const dtypes: Record<string, DType> = {};
  const broadcast: Record<string, BroadcastForm> = {};
  const layout: Record<string, Layout> = {};
  for (const t of tensors) {
    if (t.spec.role === 'in?' && !given.includes(t.name)) continue;
    const rule = t.spec.dtype;
    if (!('like' in rule)) dtypes[t.name] = pick(rule);
    else if (rule.or && chance(0.5)) dtypes[t.name] = pick(rule.or);
    if (t.spec.role !== 'out')
      for (const { name, broadcasts, text } of t.dims)
        if (broadcasts && dims[name] !== undefined && chance(0.5)) broadcast[`${t.name}.${name}`] = pick(formsOf(text));
    if (chance(0.5) && !isPaired(dtypes[t.name] ?? 'f32'))
      layout[t.name] = pick(['padded', 'swapped', 'crossed'] as const);
  }
  return { name: `random ${seed}`, dims, params: values, with: given, dtypes, broadcast, layout };
}

const divisors = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1).filter((d) => n % d === 0);

/** Forms that a dimension which broadcasts may take, by its declaration. */
export const formsOf = (dim: string): readonly BroadcastForm[] =>
  dim.endsWith('?') ? ['full', 'shared', 'one', 'absent'] : ['full', 'shared', 'one'];

function value(spec: ParamSpec, next: () => number, pick: <T>(list: readonly T[]) => T): ParamValue {
  if (spec.kind === 'bool') return next() < 0.5;
  if (spec.kind === 'choice') return pick(spec.choices!);
  if (spec.kind === 'f32') return pick([0, 1, -1, 0.5, Math.fround(4 * next() - 2)]);
  const [low, high] = spec.range!;
  return low + Math.floor(next() * (Math.min(high, low + 256) - low + 1));
}
