// Comparing an operator's two declarations: the C++ Args struct (KW_FIELDS) and the TypeScript spec.
import type { NativeOp } from '../src/native.js';
import { snakeCase } from '../src/native.js';
import type { OpSpec } from '../src/spec.js';

interface Field {
  name: string;
  kind: string;
  choices?: readonly string[] | undefined;
}

/** The arguments of a spec as C++ would spell them. */
export function fieldsOf(spec: OpSpec): Field[] {
  const tensors = Object.entries(spec.tensors).map(([name, t]) => ({ name: snakeCase(name), kind: t.role }));
  const params = Object.entries(spec.params).map(([name, p]) => ({
    name: snakeCase(name),
    kind: p.kind,
    ...(p.choices ? { choices: p.choices } : {}),
  }));
  return [...tensors, ...params];
}

const show = (field: Field | undefined): string =>
  field ? `${field.name}: ${field.kind}${field.choices ? ` (${field.choices.join(', ')})` : ''}` : 'nothing';

/** One line for each argument on which the two declarations differ, in both spellings; none when they agree. */
export function differences(spec: OpSpec, { fields }: Pick<NativeOp, 'fields'>): string[] {
  const declared = fieldsOf(spec);
  const camel = [...Object.keys(spec.tensors), ...Object.keys(spec.params)];
  const lines: string[] = [];
  for (let i = 0; i < Math.max(declared.length, fields.length); ++i) {
    const [ts, cc] = [show(declared[i]), show(fields[i])];
    if (ts !== cc)
      lines.push(`argument ${i} of ${spec.name}: C++ has ${cc}; TypeScript has ${ts} (${camel[i] ?? 'nothing'})`);
  }
  return lines;
}

/** Every file an operator consists of. */
export const filesOf = (name: string): string[] => [
  `kernels/${name}/${name}.h`,
  `kernels/${name}/${name}_ref.cc`,
  `kernels/${name}/${name}_cpu.cc`,
  `kernels/${name}/${name}_cuda.cu`,
  `src/ops/${name}.ts`,
  `src/ops/${name}.cases.ts`,
  `test/ops/${name}.test.ts`,
];

/** Shapes of the table in an operator's docstring: name -> every `[a, b]` in its row. */
export function docstringShapes(source: string): Record<string, string[]> {
  const shapes: Record<string, string[]> = {};
  for (const row of source.matchAll(/^ \* \| (.+?) \| (.+?) \|/gm))
    for (const [, name] of row[1]!.matchAll(/`(\w+)`/g))
      shapes[name!] = [...row[2]!.matchAll(/`\[(.*?)\]`/g)].map(([, dims]) => dims!);
  return shapes;
}
