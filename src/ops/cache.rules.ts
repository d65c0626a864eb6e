// What operators over caches of keys and values declare alike.
import type { Model } from '../case.js';
import type { DType } from '../dtype.js';
import type { RuleCode } from '../solve.js';
import type { Given } from '../spec.js';

/** The type of cache that is stored divided by scales. */
export const scaledCache = 'f8e4m3';

/** Scales and a cache that needs them come together. */
export const scaleRule = (
  name: string,
  cache: DType | undefined,
  given: Given,
): false | readonly [RuleCode, string] => {
  const needed = cache === scaledCache;
  return (
    needed !== given.has(name) && [
      'ARGUMENT',
      `${name} is ${needed ? 'missing with' : 'given with'} a cache of ${cache}, expected it with ${scaledCache} alone`,
    ]
  );
};

/** The shape with scaled caches. */
export const overScaled = (
  { quick: _, ...model }: Model,
  caches: readonly string[],
  scales: readonly string[],
): Model => ({
  ...model,
  name: `${model.name}, ${scaledCache}`,
  dtypes: { ...model.dtypes, ...Object.fromEntries(caches.map((name) => [name, scaledCache])) },
  with: scales,
  values: { ...model.values, ...Object.fromEntries(scales.map((name) => [name, 1])) },
});
