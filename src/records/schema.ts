// Whether a value is what a published schema of this package says, at run time: an interpreter of the part of JSON Schema
// 2020-12 that src/schema/*.json uses. A test holds it against ajv, and a keyword it does not know is an error, not ignored.
// One difference on purpose: unknown fields are allowed, because a newer version may add fields within a schema number.
export interface Schema {
  readonly [keyword: string]: unknown;
}

/** Where a value differs from its schema: `path` is what, and the sentence goes on with `is ..., expected ...`. */
export interface Mismatch {
  path: readonly string[];
  sentence: string;
}

type Check = (expected: never, value: unknown, at: Visit) => Mismatch | null;

interface Visit {
  root: Schema;
  schema: Schema;
  path: readonly string[];
}

/** The first mismatch of the value, the deepest one where alternatives exist; null when it fits. */
export const mismatch = (root: Schema, value: unknown): Mismatch | null =>
  visit(value, { root, schema: root, path: [] });

function visit(value: unknown, at: Visit): Mismatch | null {
  for (const [keyword, expected] of Object.entries(at.schema)) {
    if (silent.has(keyword)) continue;
    const check = checks[keyword];
    if (check === undefined)
      throw new Error(`schema: keyword is ${keyword}, expected ${Object.keys(checks).join(', ')}`);
    const found = check(expected as never, value, at);
    if (found) return found;
  }
  return null;
}

const into = (at: Visit, schema: Schema, ...path: string[]): Visit => ({ ...at, schema, path: [...at.path, ...path] });

function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

const differs = ({ path }: Visit, value: unknown, expected: string): Mismatch => ({
  path,
  sentence: `is ${shown(value)}, expected ${expected}`,
});

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const types: Record<string, (value: unknown) => boolean> = {
  object: isObject,
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  number: (value) => typeof value === 'number' && Number.isFinite(value),
  integer: Number.isInteger,
  boolean: (value) => typeof value === 'boolean',
  null: (value) => value === null,
};

const ifNumber = (holds: (value: number, limit: number) => boolean, words: string): Check =>
  ((limit: number, value: unknown, at: Visit) =>
    typeof value === 'number' && !holds(value, limit) ? differs(at, value, `${words} ${limit}`) : null) as Check;

function first<T>(items: Iterable<T>, check: (item: T) => Mismatch | null): Mismatch | null {
  for (const item of items) {
    const found = check(item);
    if (found) return found;
  }
  return null;
}

/** Keywords that say nothing about a value by themselves. */
const silent: ReadonlySet<string> = new Set(['$schema', '$id', '$defs', 'title', 'description', 'then', 'else']);

const checks: Record<string, Check> = {
  $ref: ((ref: string, value: unknown, at: Visit) => {
    const target = ref
      .slice(2)
      .split('/')
      .reduce<unknown>((schema, name) => (schema as Schema)[name], at.root);
    return visit(value, into(at, target as Schema));
  }) as Check,
  if: ((condition: Schema, value: unknown, at: Visit) => {
    const branch = visit(value, into(at, condition)) === null ? at.schema.then : at.schema.else;
    return branch === undefined ? null : visit(value, into(at, branch as Schema));
  }) as Check,
  oneOf: ((branches: readonly Schema[], value: unknown, at: Visit) => {
    const found = branches.map((branch) => visit(value, into(at, branch)));
    const fitting = found.filter((one) => one === null).length;
    if (fitting === 1) return null;
    if (fitting > 1) return differs(at, value, 'to fit one alternative alone');
    // The alternative that went furthest is the one that was meant.
    return found.reduce((best, one) => (one!.path.length > best!.path.length ? one : best))!;
  }) as Check,
  type: ((names: string | readonly string[], value: unknown, at: Visit) =>
    [names].flat().some((name) => types[name]!(value))
      ? null
      : differs(at, value, [names].flat().join(' or '))) as Check,
  const: ((expected: unknown, value: unknown, at: Visit) =>
    value === expected ? null : differs(at, value, shown(expected))) as Check,
  enum: ((allowed: readonly unknown[], value: unknown, at: Visit) =>
    allowed.includes(value) ? null : differs(at, value, allowed.map(shown).join(', '))) as Check,
  required: ((names: readonly string[], value: unknown, at: Visit) => {
    const absent = isObject(value) && names.find((name) => !Object.hasOwn(value, name));
    return absent ? { path: [...at.path, absent], sentence: 'is missing' } : null;
  }) as Check,
  properties: ((properties: Record<string, Schema>, value: unknown, at: Visit) =>
    isObject(value)
      ? first(Object.entries(properties), ([name, schema]) =>
          Object.hasOwn(value, name) ? visit(value[name], into(at, schema, name)) : null,
        )
      : null) as Check,
  additionalProperties: ((rest: Schema | boolean, value: unknown, at: Visit) => {
    if (typeof rest === 'boolean' || !isObject(value)) return null;
    const named = (at.schema.properties ?? {}) as Schema;
    return first(Object.entries(value), ([name, item]) =>
      Object.hasOwn(named, name) ? null : visit(item, into(at, rest, name)),
    );
  }) as Check,
  items: ((items: Schema | false, value: unknown, at: Visit) => {
    if (!Array.isArray(value)) return null;
    const known = (at.schema.prefixItems as readonly Schema[] | undefined)?.length ?? 0;
    if (items === false) return value.length > known ? differs(at, value, `at most ${known} items`) : null;
    return first(value.slice(known).entries(), ([i, item]) => visit(item, into(at, items, String(known + i))));
  }) as Check,
  prefixItems: ((schemas: readonly Schema[], value: unknown, at: Visit) =>
    Array.isArray(value)
      ? first(schemas.slice(0, value.length).entries(), ([i, schema]) => visit(value[i], into(at, schema, String(i))))
      : null) as Check,
  minItems: ((least: number, value: unknown, at: Visit) =>
    Array.isArray(value) && value.length < least ? differs(at, value, `at least ${least} items`) : null) as Check,
  uniqueItems: ((_: true, value: unknown, at: Visit) =>
    Array.isArray(value) && new Set(value.map(shown)).size < value.length
      ? differs(at, value, 'every item once')
      : null) as Check,
  minLength: ((least: number, value: unknown, at: Visit) =>
    typeof value === 'string' && [...value].length < least
      ? differs(at, value, `at least ${least} characters`)
      : null) as Check,
  pattern: ((pattern: string, value: unknown, at: Visit) =>
    typeof value === 'string' && !new RegExp(pattern, 'u').test(value) ? differs(at, value, pattern) : null) as Check,
  minimum: ifNumber((value, limit) => value >= limit, 'at least'),
  maximum: ifNumber((value, limit) => value <= limit, 'at most'),
  exclusiveMinimum: ifNumber((value, limit) => value > limit, 'more than'),
};
