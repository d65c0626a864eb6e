// Bad input of the command line, and how options are read. A usage error ends the program with exit code 2 and one sentence.
import { InvalidArgumentError } from 'commander';
import { KernwattError } from '../errors.js';
import { nearest } from '../nearest.js';
import { equalWeights, sixMetrics, type Weights } from '../report/quantities.js';

export class UsageError extends Error {}

/** A user's program that threw `cause`, whose stack and source line Node prints best. */
export class ScriptError extends Error {
  constructor(path: string, what: string, cause: unknown) {
    super(`bench: ${path} ${what}`, { cause });
  }
}

/** Exit codes: everything worked, something failed, the request made no sense, interrupted by Ctrl-C. */
export const exit = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** Exit codes of `gate`: build servers have to tell a slower build from one about which nothing can be said. */
export const gateExit = { pass: 0, fail: 1, inconclusive: 2, 'bad-input': 3 } as const;

/** Errors of the library that come from what was asked rather than from what happened. */
const asked = new Set(['ARGUMENT', 'SHAPE', 'DTYPE', 'INDEX', 'UNSUPPORTED'].map((name) => `ERR_KERNWATT_${name}`));

export const isUsage = (error: unknown): boolean =>
  error instanceof UsageError || (error instanceof KernwattError && asked.has(error.code));

/** A parser for commander of whole numbers from `low` on. */
export const wholeNumber =
  (low: number, high = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!/^\d+$/.test(text) || value < low || value > high)
      throw new InvalidArgumentError(
        `expected a whole number ${high === Number.MAX_SAFE_INTEGER ? `of ${low} or more` : `from ${low} to ${high}`}.`,
      );
    return value;
  };

/** A parser for commander of numbers above 0. */
export function positiveNumber(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value) || value <= 0)
    throw new InvalidArgumentError('expected a number above 0, such as 1.03.');
  return value;
}

/** `m=1,k=4096` as sizes by name; a name given twice or a size that is not a whole number is refused. */
export function parseShape(text: string): Record<string, number> {
  const sizes: Record<string, number> = {};
  for (const part of text.split(',')) {
    const [, name, size] = /^\s*([A-Za-z]\w*)\s*=\s*(\d+)\s*$/.exec(part) ?? [];
    if (name === undefined) throw new InvalidArgumentError(`expected sizes such as m=1,k=4096, not "${part.trim()}".`);
    if (name in sizes) throw new InvalidArgumentError(`${name} is given twice.`);
    if (!Number.isSafeInteger(Number(size)))
      throw new InvalidArgumentError(`${name} is ${size}, expected less than 2^53.`);
    sizes[name] = Number(size);
  }
  return sizes;
}

/** `AL=2,AEC=3` as weights; a metric that is not named keeps 1. */
export function parseWeights(text: string): Weights {
  const weights = { ...equalWeights };
  for (const part of text.split(',')) {
    const [, name, weight] = /^\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*$/.exec(part) ?? [];
    const metric = sixMetrics.find((one) => one === name?.toUpperCase());
    if (metric === undefined || weight === undefined)
      throw new InvalidArgumentError(
        `expected weights of ${sixMetrics.join(', ')} such as AL=2,AEC=0.5, not "${part.trim()}".`,
      );
    weights[metric] = Number(weight);
  }
  if (Object.values(weights).every((weight) => weight === 0))
    throw new InvalidArgumentError('expected one weight above 0 at least.');
  return weights;
}

/** The item of that name. Refuses an unknown one with the nearest name, or all of them when they are few. */
export function pick<T>(kind: string, name: string, items: readonly T[], nameOf: (item: T) => string): T {
  const found = items.find((item) => nameOf(item) === name);
  if (found) return found;
  const names = items.map(nameOf);
  const guess = nearest(name, names);
  const rest = guess
    ? `did you mean "${guess}"?`
    : names.length <= 20
      ? `expected ${names.join(', ')}`
      : `expected one of ${names.length}`;
  throw new UsageError(`${kind} is "${name}"; ${rest}`);
}
