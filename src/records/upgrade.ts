// Records of earlier schema numbers, brought to the present one, so that every reader knows one schema alone.
import { energyRecord, unmetered } from '../measure/energy.js';
import { missing } from '../measure/quantity.js';
import { schema } from '../measure/record.js';

type Fields = Record<string, unknown>;

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const unknownWork = { tokens: null, flops: null, minBytes: null, params: null };

/**
 * A /0 record as a /1 record: that version had no meter, so joules and watts were missing with a reason, which is kept, and what /1 adds
 * is missing with the same one. Parts that are not as /0 wrote them stay as they are, for the schema to judge.
 */
function fromZero(record: Fields): Fields {
  const { energy, roofline, comparison, env } = record;
  const said = isObject(energy) && isObject(energy.perCallJ) ? energy.perCallJ.reason : undefined;
  const reason = typeof said === 'string' ? said : 'energy was not metered when this was written';
  const none = (unit: string) => missing(unit, reason);
  return {
    ...record,
    schema,
    ...(isObject(energy) && { energy: { ...energyRecord(unmetered(reason), unknownWork), ...energy } }),
    ...(isObject(roofline) && { roofline: { ...roofline, energyFloorJ: none('J'), energyEfficiency: none('1') } }),
    ...(isObject(comparison) && { comparison: { ...comparison, energyRatio: none('1'), energyRounds: 0 } }),
    ...(isObject(env) && { env: { ...env, gpu: null } }),
  };
}

const upgrades: Readonly<Record<string, (record: Fields) => Fields>> = { 'kernwatt.measure/0': fromZero };

/** Schemas that can be read, the one that is written first. */
export const readable: readonly string[] = [schema, ...Object.keys(upgrades)];

/** The record in the schema that this version writes; its `schema` must be one of `readable`. */
export const upgraded = (record: { schema: string }): unknown => upgrades[record.schema]?.({ ...record }) ?? record;
