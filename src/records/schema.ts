// Whether a value is what a published schema of this package says, at run time: the part of JSON Schema 2020-12 that
// src/schema/*.json uses, compiled once into closures. A test holds it against ajv, and a keyword it does not know is an error,
// not ignored. One difference on purpose: unknown fields are allowed, because a newer version may add fields within a schema number.
export interface Schema {
  readonly [keyword: string]: unknown;
}

/** Where a value differs from its schema: `path` is what, and the sentence goes on with `is ..., expected ...`. */
export interface Mismatch {
  readonly path: readonly string[];
  readonly sentence: string;
}

/** The first mismatch of a value, the deepest one where alternatives exist; null when it fits. */
export type Check = (value: unknown) => Mismatch | null;

/** A check of a part. `path` is where the part stands, and is the same array again afterwards. */
type Part = (value: unknown, path: string[]) => Mismatch | null;

/** Makes a part's check from a keyword's value; `schema` is what the keyword stands in. */
type Keyword = (expected: never, schema: Schema, make: (schema: Schema) => Part, root: Schema) => Part;

export function compile(root: Schema): Check {
  const made = new Map<Schema, Part>();
  const make = (schema: Schema): Part => {
    let part = made.get(schema);
    if (part === undefined) {
      const parts = Object.entries(schema).flatMap(([keyword, expected]) => {
        if (silent.has(keyword)) return [];
        const of = keywords[keyword];
        if (of === undefined)
          throw new Error(`schema: keyword is ${keyword}, expected ${Object.keys(keywords).join(', ')}`);
        return [of(expected as never, schema, make, root)];
      });
      part = (value, path) => first(parts, (one) => one(value, path));
      made.set(schema, part);
    }
    return part;
  };
  const whole = make(root);
  return (value) => whole(value, []);
}

function shown(value: unknown): string {
  if (value === undefined) return 'missing';
  const text = JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}

/** Alternatives that do not fit are many and never read, so a sentence is made only when it is asked for. */
const differs = (path: readonly string[], value: unknown, expected: string): Mismatch => ({
  path: [...path],
  get sentence() {
    return `is ${shown(value)}, expected ${expected}`;
  },
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

function first<T>(items: readonly T[], check: (item: T, index: number) => Mismatch | null): Mismatch | null {
  for (let i = 0; i < items.length; i++) {
    const found = check(items[i]!, i);
    if (found !== null) return found;
  }
  return null;
}

function within(part: Part, value: unknown, path: string[], name: string): Mismatch | null {
  path.push(name);
  const found = part(value, path);
  path.pop();
  return found;
}

/** A keyword about one value: what it expects, in words, and when it holds. */
const simple =
  (words: string, holds: (value: unknown) => boolean): Part =>
  (value, path) =>
    holds(value) ? null : differs(path, value, words);

const ifNumber = (holds: (value: number, limit: number) => boolean, words: string): Keyword =>
  ((limit: number) =>
    simple(`${words} ${limit}`, (value) => typeof value !== 'number' || holds(value, limit))) as Keyword;

/** Keywords that say nothing about a value by themselves. */
const silent: ReadonlySet<string> = new Set(['$schema', '$id', '$defs', 'title', 'description', 'then', 'else']);

const keywords: Record<string, Keyword> = {
  $ref: ((ref: string, _, make, root) => {
    const names = ref.slice(2).split('/');
    return make(names.reduce<unknown>((schema, name) => (schema as Schema)[name], root) as Schema);
  }) as Keyword,
  if: ((condition: Schema, schema, make) => {
    const when = make(condition);
    const branch = (name: 'then' | 'else') => (schema[name] === undefined ? null : make(schema[name] as Schema));
    const [yes, no] = [branch('then'), branch('else')];
    return (value, path) => (when(value, path) === null ? yes : no)?.(value, path) ?? null;
  }) as Keyword,
  oneOf: ((branches: readonly Schema[], _, make) => {
    const parts = branches.map(make);
    return (value, path) => {
      let fitting = 0;
      let meant: Mismatch | null = null;
      for (const part of parts) {
        const found = part(value, path);
        if (found === null) fitting++;
        // The alternative that went furthest is the one that was meant.
        else if (meant === null || found.path.length > meant.path.length) meant = found;
      }
      if (fitting === 1) return null;
      return fitting > 1 ? differs(path, value, 'to fit one alternative alone') : meant;
    };
  }) as Keyword,
  type: ((given: string | readonly string[]) => {
    const names = [given].flat();
    const holds = names.map((name) => types[name]!);
    return simple(names.join(' or '), (value) => holds.some((one) => one(value)));
  }) as Keyword,
  const: ((expected: unknown) => simple(shown(expected), (value) => value === expected)) as Keyword,
  enum: ((allowed: readonly unknown[]) =>
    simple(allowed.map(shown).join(', '), (value) => allowed.includes(value))) as Keyword,
  required: ((names: readonly string[]) => (value, path) => {
    if (!isObject(value)) return null;
    const absent = names.find((name) => !Object.hasOwn(value, name));
    return absent === undefined ? null : { path: [...path, absent], sentence: 'is missing' };
  }) as Keyword,
  properties: ((properties: Record<string, Schema>, _, make) => {
    const parts = Object.entries(properties).map(([name, schema]) => ({ name, part: make(schema) }));
    return (value, path) =>
      isObject(value)
        ? first(parts, ({ name, part }) => (Object.hasOwn(value, name) ? within(part, value[name], path, name) : null))
        : null;
  }) as Keyword,
  additionalProperties: ((rest: Schema | boolean, schema, make) => {
    if (typeof rest === 'boolean') return () => null;
    const named = (schema.properties ?? {}) as Schema;
    const part = make(rest);
    return (value, path) =>
      isObject(value)
        ? first(Object.keys(value), (name) =>
            Object.hasOwn(named, name) ? null : within(part, value[name], path, name),
          )
        : null;
  }) as Keyword,
  items: ((items: Schema | false, schema, make) => {
    const known = (schema.prefixItems as readonly Schema[] | undefined)?.length ?? 0;
    if (items === false)
      return simple(`at most ${known} items`, (value) => !Array.isArray(value) || value.length <= known);
    const part = make(items);
    return (value, path) =>
      Array.isArray(value) ? first(value.slice(known), (item, i) => within(part, item, path, String(known + i))) : null;
  }) as Keyword,
  prefixItems: ((schemas: readonly Schema[], _, make) => {
    const parts = schemas.map(make);
    return (value, path) =>
      Array.isArray(value)
        ? first(parts.slice(0, value.length), (part, i) => within(part, value[i], path, String(i)))
        : null;
  }) as Keyword,
  minItems: ((least: number) =>
    simple(`at least ${least} items`, (value) => !Array.isArray(value) || value.length >= least)) as Keyword,
  uniqueItems: (() =>
    simple(
      'every item once',
      (value) => !Array.isArray(value) || new Set(value.map(shown)).size === value.length,
    )) as Keyword,
  minLength: ((least: number) =>
    simple(
      `at least ${least} characters`,
      (value) => typeof value !== 'string' || value.length >= 2 * least || [...value].length >= least,
    )) as Keyword,
  pattern: ((pattern: string) => {
    const expression = new RegExp(pattern, 'u');
    return simple(pattern, (value) => typeof value !== 'string' || expression.test(value));
  }) as Keyword,
  minimum: ifNumber((value, limit) => value >= limit, 'at least'),
  maximum: ifNumber((value, limit) => value <= limit, 'at most'),
  exclusiveMinimum: ifNumber((value, limit) => value > limit, 'more than'),
};
