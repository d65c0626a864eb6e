// `kernwatt ops`: every operator with its arguments, types and backends, read from the declarations. Runs without the addon.
import type { DType } from '../dtype.js';
import { findLibrary } from '../library.js';
import { native } from '../native.js';
import type { Operator } from '../op.js';
import * as registry from '../ops/index.js';
import type { ParamSpec, TensorSpec } from '../spec.js';

/** One operator as `ops --json` prints it. */
export interface OpReport {
  name: string;
  summary: string;
  source: string;
  flops: string;
  tensors: { name: string; role: TensorSpec['role']; dims: string[]; dtype: readonly DType[] | string }[];
  params: {
    name: string;
    kind: string;
    default: number | boolean | string | null;
    values: readonly (string | number)[] | null;
  }[];
  cases: number;
  models: number;
  /** Null when the addon does not load; `reason` says why. */
  backends: string[] | null;
}

export const operators: readonly Operator[] = Object.values(registry as unknown as Record<string, Operator>);

/** Backends of the addon and, where a library of CUDA kernels is found, of that. */
function backends(): { of(name: string): string[] | null; reason: string | null } {
  try {
    const { ops } = native();
    let library: string[] = [];
    try {
      library = findLibrary('cuda').ops;
    } catch {
      // No library, no rows: `doctor` says why.
    }
    return {
      of: (name) => [...(ops[name]?.backends ?? []), ...(library.includes(name) ? ['cuda'] : [])],
      reason: null,
    };
  } catch (error) {
    return { of: () => null, reason: (error as Error).message.split('\n', 1)[0]! };
  }
}

const describeTensor = (name: string, { role, dims, dtype }: TensorSpec) => ({
  name,
  role,
  dims: [...dims],
  dtype: 'like' in dtype ? [`as ${dtype.like}`, ...(dtype.or ?? [])].join(' or ') : dtype,
});

const describeParam = (name: string, spec: ParamSpec) => ({
  name,
  kind: spec.kind,
  default: typeof spec.default === 'function' ? (spec.defaultText ?? 'computed') : ((spec.default as number) ?? null),
  values: spec.choices ?? spec.range ?? null,
});

export function describeOps(): { schema: 'kernwatt.ops/0'; reason: string | null; ops: OpReport[] } {
  const known = backends();
  const ops = operators.map(({ spec }) => ({
    name: spec.name,
    summary: spec.summary,
    source: spec.source,
    flops: spec.flops,
    tensors: Object.entries(spec.tensors).map(([name, tensor]) => describeTensor(name, tensor)),
    params: Object.entries(spec.params).map(([name, param]) => describeParam(name, param)),
    cases: spec.cases().length,
    models: spec.models.length,
    backends: known.of(spec.name),
  }));
  return { schema: 'kernwatt.ops/0', reason: known.reason, ops };
}

function render(op: OpReport): string {
  const width = Math.max(...[...op.tensors, ...op.params].map(({ name }) => name.length)) + 2;
  const tensors = op.tensors.map(({ name, role, dims, dtype }) => {
    const kind = { in: 'input', 'in?': 'optional input', inout: 'updated', out: 'output' }[role];
    return `  ${name.padEnd(width)}${kind} [${dims.join(', ')}], ${typeof dtype === 'string' ? dtype : dtype.join(' or ')}`;
  });
  const params = op.params.map(({ name, kind, default: value, values }) => {
    const range = values === null ? kind : kind === 'choice' ? values.join(', ') : `${values[0]} to ${values[1]}`;
    return `  ${name.padEnd(width)}${range}; default ${value}`;
  });
  const where = op.backends ? op.backends.join(', ') : 'unknown';
  return [
    `${op.name}: ${op.summary}`,
    ...tensors,
    ...params,
    `  backends: ${where}; ${op.cases} cases, ${op.models} model shapes`,
  ]
    .join('\n')
    .concat('\n');
}

export async function ops(options: { json?: boolean }): Promise<number> {
  const report = describeOps();
  if (options.json) process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  else {
    process.stdout.write(report.ops.map(render).join('\n'));
    if (report.reason) process.stdout.write(`\nbackends are unknown: ${report.reason}\n`);
  }
  return 0;
}
