// Which shapes `kernwatt bench` and `tune` measure, and the plans for them: the models of the operators, or one shape from the command line.
import type { Model } from '../case.js';
import type { Device } from '../device.js';
import { type DType, dtypes, isPaired } from '../dtype.js';
import type { Operator } from '../op.js';
import { planCase } from '../operands.js';
import type { Plan } from '../plan.js';
import type { OpSpec } from '../spec.js';
import type { Tensor } from '../tensor.js';
import { operators } from './ops.js';
import { pick, UsageError } from './usage.js';

export interface BenchCase {
  op: Operator;
  model: Model;
}

export const suites = ['quick', 'models'] as const;
export type Suite = (typeof suites)[number];

/** What of the operators and their models a command is about. */
export interface Selection {
  shape?: Readonly<Record<string, number>>;
  dtype?: string;
}

/** The cases that the names of a command line mean: operators, or sets of cases. `others`: names that it also knows. */
export function chooseCases(
  command: string,
  names: readonly string[],
  selection: Selection,
  others: readonly string[] = [],
): BenchCase[] {
  const known = [...suites, ...operators.map(({ spec }) => spec.name), ...others];
  for (const name of names)
    pick(`${command}: operator or ${others.length > 0 ? 'suite' : 'set of cases'}`, name, known, (one) => one);
  const suite: Suite = names.includes('models') ? 'models' : 'quick';
  const named = operators.filter(({ spec }) => names.includes(spec.name));
  const cases = selectCases(named.length > 0 ? named : operators, suite, selection, command);
  if (cases.length === 0) throw new UsageError(`${command}: nothing to measure with these options`);
  return cases;
}

/** The cases to measure. */
export function selectCases(
  ops: readonly Operator[],
  suite: Suite,
  { shape, dtype }: Selection,
  command = 'bench',
): BenchCase[] {
  if (dtype !== undefined) pick('--dtype', dtype, dtypes, (name) => name);
  const cases = (shape ? fitting(ops, Object.keys(shape), command) : ops).flatMap((op) => {
    const listed = op.spec.models.filter((model) => suite === 'models' || model.quick);
    const models = shape ? [shapeModel(op, shape, listed[0])] : listed;
    return models.map((model) => ({
      op,
      model: dtype === undefined ? model : withType(op.spec, model, dtype as DType),
    }));
  });
  // Another type may make two cases equal; the second would only cost time.
  const seen = new Set<string>();
  return cases.filter(({ op, model: { name, quick, ...rest } }) => {
    const key = JSON.stringify([op.spec.name, { ...rest, dims: Object.entries(rest.dims).sort() }]);
    return !seen.has(key) && seen.add(key);
  });
}

const dimensionsOf = (op: Operator): Set<string> =>
  new Set(op.compiled.tensors.flatMap(({ dims }) => dims.map((dim) => dim.name)));

/** Sizes that a caller has to say: those that neither follow from others nor may be absent. */
const freeSizes = ({ spec, compiled }: Operator): number => {
  const needed = compiled.tensors.flatMap(({ spec: { role }, dims }) =>
    dims
      .filter(({ text, name }) => role !== 'in?' && !text.endsWith('?') && !spec.derive?.[name])
      .map(({ name }) => name),
  );
  return new Set(needed).size;
};

/**
 * The operators that have all of these dimensions, or those alone whose sizes they decide; of one alone the names are checked later.
 */
function fitting(ops: readonly Operator[], names: readonly string[], command: string): readonly Operator[] {
  if (ops.length === 1) return ops;
  const found = ops.filter((op) => names.every((name) => dimensionsOf(op).has(name)));
  if (found.length === 0)
    throw new UsageError(`${command}: no operator has the dimensions ${names.join(', ')}; name one to see what it has`);
  const decided = found.filter((op) => freeSizes(op) <= names.length);
  return decided.length > 0 ? decided : found;
}

/** A plain case of the given sizes; what is not given comes from the operator's first model. */
function shapeModel(op: Operator, shape: Readonly<Record<string, number>>, template: Model | undefined): Model {
  const { spec } = op;
  const derived = Object.keys(spec.derive ?? {});
  for (const name of Object.keys(shape)) pick(`${spec.name}: dimension`, name, [...dimensionsOf(op)], (one) => one);
  const given = Object.fromEntries(Object.entries(shape).filter(([name]) => !derived.includes(name)));
  const dims = { ...template?.dims, ...given };
  for (const name of derived) if (name in shape) solveFor(op, name, shape[name]!, dims, new Set(Object.keys(given)));
  const name = Object.entries(shape).map(([dim, size]) => `${dim}=${size}`);
  return { name: name.join(' '), dims, ...(template?.dtypes && { dtypes: template.dtypes }) };
}

/** Sets the size that `name` follows from, such as the rows of a weight from the columns of the output. */
function solveFor(
  op: Operator,
  name: string,
  wanted: number,
  dims: Record<string, number>,
  given: ReadonlySet<string>,
): void {
  const derive = (trial: Record<string, number>) => planCase(op, { name: 'trial', dims: trial }).dims[name];
  if (derive(dims) === wanted) return;
  for (const source of Object.keys(dims)) {
    if (given.has(source)) continue;
    for (const size of [wanted, 2 * wanted]) {
      if (derive({ ...dims, [source]: size }) !== wanted) continue;
      dims[source] = size;
      return;
    }
  }
  throw new UsageError(
    `${op.spec.name}: ${name} is ${wanted}, expected what follows from the other sizes, ${derive(dims)}`,
  );
}

/** The case with every tensor that has a choice in `dtype`. */
function withType(spec: OpSpec, model: Model, dtype: DType): Model {
  const choices = Object.entries(spec.tensors).filter(([, { dtype: rule }]) => !('like' in rule));
  const main = choices.find(([, { role }]) => role === 'in');
  const allowed = main?.[1].dtype as readonly DType[] | undefined;
  if (allowed && !allowed.includes(dtype))
    throw new UsageError(`${spec.name}: --dtype is ${dtype}, expected ${allowed.join(', ')}`);
  const present = choices.filter(([name, { role }]) => role !== 'in?' || model.with?.includes(name));
  const free = present.filter(
    ([, { role, dtype: rule }]) => role !== 'out' && (rule as readonly DType[]).includes(dtype),
  );
  const changed = Object.fromEntries(free.map(([name]) => [name, dtype]));
  const kept = Object.entries(model.dtypes ?? {}).filter(([name]) => !(name in Object.fromEntries(choices)));
  return {
    ...model,
    name: model.name.replace(/ (f32|bf16|f16)$/, ` ${dtype}`),
    dtypes: { ...Object.fromEntries(kept), ...changed },
  };
}

/** A plan for a case and the tensors it works on. */
export class BoundCase implements Disposable {
  readonly plan: Plan;
  readonly #tensors: Tensor[] = [];

  /** Inputs are what the case says, else normal (4-bit ones: any value), seeded by `seed` and the position of the operand. */
  constructor({ op, model }: BenchCase, device: Device, seed: number) {
    const { operands, params } = planCase(op, model, seed);
    try {
      const args: Record<string, Tensor> = {};
      for (const [i, { name, spec, shape, dtype, contents }] of operands.entries()) {
        const tensor =
          spec.role === 'out'
            ? device.empty(shape, dtype)
            : contents
              ? device.tensor(contents, shape, dtype)
              : device.random(shape, dtype, {
                  seed: seed * operands.length + i,
                  ...(isPaired(dtype) ? { distribution: 'integers' } : {}),
                });
        this.#tensors.push(tensor);
        args[name] = tensor;
      }
      this.plan = op.bind({ ...args, ...params });
    } catch (error) {
      for (const tensor of this.#tensors) tensor.dispose();
      throw error;
    }
  }

  [Symbol.dispose](): void {
    this.plan.dispose();
    for (const tensor of this.#tensors) tensor.dispose();
  }
}
