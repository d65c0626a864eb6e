// The declarations of an operator in both languages, its files and its pages must agree; this names whatever does not.
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { codes, dtypes, gemm, ops } from '../src/index.js';
import { native } from '../src/native.js';
import { planCase } from '../src/operands.js';
import { differences, docstringShapes, fieldsOf, filesOf } from './contract.js';

const root = resolve(import.meta.dirname, '..');

describe.each(Object.entries(ops))('%s', (exported, op) => {
  const { spec } = op;

  test('C++ and TypeScript declare the same arguments in the same order', () => {
    const raw = native().ops[spec.name];
    expect(raw, `kernels/operators.h has no line for ${spec.name}`).toBeDefined();
    expect(differences(spec, raw!)).toEqual([]);
  });

  test('has all its files', () => {
    expect(filesOf(spec.name).filter((file) => !existsSync(join(root, file)))).toEqual([]);
  });

  test('is exported under the camelCase of its name', () => {
    expect(exported).toBe(spec.name.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase()));
    expect(op.name).toBe(spec.name);
  });

  test('its docstring states the shapes of the declaration', () => {
    const stated = docstringShapes(readFileSync(join(root, `src/ops/${spec.name}.ts`), 'utf8'));
    const declared = Object.entries(spec.tensors).map(([name, { dims, ...t }]) => {
      const swapped = [...dims.slice(0, -2), ...dims.slice(-2).reverse()];
      return [name, [dims, ...('transpose' in t && t.transpose ? [swapped] : [])].map((d) => d.join(', '))] as const;
    });
    expect(stated).toEqual(Object.fromEntries(declared));
  });

  test('its cases and models have names of their own and keep its rules', () => {
    const all = [...spec.cases(), ...spec.models];
    const names = all.map((c) => c.name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
    for (const c of all) expect(() => planCase(op, c), c.name).not.toThrow();
    if (spec.synthetic) expect(spec.models).toEqual([]);
    else expect(spec.models.some((m) => m.quick)).toBe(true);
    expect(spec.cases().some((c) => c.exact)).toBe(true);
  });
});

test('every operator of the addon is declared in TypeScript, and the other way round', () => {
  const declared = Object.values(ops).map((op) => op.spec.name);
  expect(Object.keys(native().ops).sort()).toEqual(declared.sort());
});

test('every operator that somebody serves has shapes to benchmark', () => {
  const without = Object.values(ops).filter(({ spec }) => spec.synthetic);
  expect(without.map(({ spec }) => spec.name)).toEqual(['peak']);
});

test('element types are listed in the same order', () => {
  expect(native().dtypes).toEqual([...dtypes]);
});

test('error codes are listed in the same order', () => {
  expect(native().codes.filter((code) => code !== 'OK')).toEqual([...codes]);
});

test.each([
  ['docs/operators.md', 'docs'],
  ['test/gpu/cases.jsonl', 'cases'],
])('%s is what the declarations say', (_, tool) => {
  const { status, stderr } = spawnSync(process.execPath, [`tools/${tool}.mjs`, '--check'], {
    cwd: root,
    encoding: 'utf8',
  });
  expect({ status, stderr }).toMatchObject({ status: 0 });
});

describe('the comparison itself notices', () => {
  const fields = () => fieldsOf(gemm.spec).map((f) => ({ ...f })) as ReturnType<typeof fieldsOf>;
  const compare = (changed: ReturnType<typeof fieldsOf>) => differences(gemm.spec, { fields: changed as never });

  test('nothing when nothing differs', () => {
    expect(compare(fields())).toEqual([]);
  });

  test('a renamed field, with both spellings', () => {
    const changed = fields();
    changed.find((f) => f.name === 'trans_x')!.name = 'transpose_x';
    expect(compare(changed)).toEqual([
      'argument 9 of gemm: C++ has transpose_x: bool; TypeScript has trans_x: bool (transX)',
    ]);
  });

  test('another kind, order, choice or number of fields', () => {
    const kind = fields();
    kind[2]!.kind = 'in';
    expect(compare(kind)).toEqual(['argument 2 of gemm: C++ has c: in; TypeScript has c: in? (c)']);
    const [first, second, ...rest] = fields();
    expect(compare([second!, first!, ...rest])).toHaveLength(2);
    const choices = fields();
    const activation = choices.find((f) => f.name === 'activation')!;
    activation.choices = activation.choices!.toReversed();
    expect(compare(choices)).toHaveLength(1);
    expect(compare(fields().slice(0, -1))).toEqual([
      'argument 11 of gemm: C++ has nothing; TypeScript has batch_invariant: bool (batchInvariant)',
    ]);
  });

  test('a docstring with other shapes', () => {
    expect(docstringShapes(' * | `q`, `k` | `[batch, len]`, or `[len]` | queries |\n')).toEqual({
      q: ['batch, len', 'len'],
      k: ['batch, len', 'len'],
    });
  });
});
