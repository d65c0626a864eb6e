// The reader of record files: bad lines are named and good records kept; its schema check agrees with ajv's.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Ajv2020 } from 'ajv/dist/2020.js';
import { describe, expect, test } from 'vitest';
import type { MeasureRecord } from '../../src/measure/record.js';
import { parseRecords, readRecords } from '../../src/records/read.js';
import { compile } from '../../src/records/schema.js';
import schema from '../../src/schema/measure.json' with { type: 'json' };
import { comparison, complaints, metered, record } from '../measure/record.js';

/** A record after a round trip through JSON, so that it holds what a file would. */
const written = (changes: Record<string, unknown> = {}): MeasureRecord =>
  JSON.parse(JSON.stringify({ ...record(), ...changes }));
const line = (changes?: Record<string, unknown>) => JSON.stringify(written(changes));
const energy = (value: number) => ({
  ...record().energy,
  perCallJ: { value, unit: 'J', state: 'ok', basis: 'a test' },
  powerW: { value: 1, unit: 'W', state: 'ok', basis: 'a test' },
});

describe('a file', () => {
  test('good records are kept in order, with their lines; empty lines, CRLF and a byte order mark are nothing', () => {
    const [a, b] = [written(), written()];
    const { records, problems } = parseRecords(`\uFEFF${JSON.stringify(a)}\r\n\r\n${JSON.stringify(b)}\n\n`, 'f.jsonl');
    expect(problems).toEqual([]);
    expect(records).toEqual([
      { record: a, file: 'f.jsonl', line: 1 },
      { record: b, file: 'f.jsonl', line: 3 },
    ]);
    expect(parseRecords('', 'f.jsonl')).toEqual({ records: [], problems: [] });
  });

  test.each<[string, string, RegExp]>([
    ['not JSON', 'hello', /^is not JSON/],
    ['a number', '7', /^is not a record: schema is missing, expected "kernwatt.measure\/1"/],
    ['null', 'null', /^is not a record: schema is missing/],
    ['foreign JSON', '{"schema":"other/1"}', /^is not a record: schema is "other\/1"/],
    ['another version', line({ schema: 'kernwatt.measure/99' }), /^schema is "kernwatt.measure\/99", expected/],
    ['a field of the wrong type', line({ runId: 7 }), /^runId is 7, expected string/],
    ['a missing field', line({ work: { flops: 1, tokens: 1, params: 1 } }), /^work.minBytes is missing/],
    ['an unknown verdict', line({ verdict: 'fine' }), /^verdict is "fine", expected "ok", "unchecked", "invalid"/],
    ['negative energy', line({ energy: energy(-3) }), /^energy.perCallJ is -3 J, expected 0 or more/],
    [
      'a reason where a number stands',
      line({ energy: { ...energy(1), powerW: { value: null, unit: 'W', state: 'unavailable' } } }),
      /^energy.powerW/,
    ],
    ['a number too large for JSON', line().replace('"flops":1000000000', '"flops":1e999'), /^work.flops/],
  ])('%s is one problem with its line, and the records around it are kept', (_, bad, reason) => {
    const { records, problems } = parseRecords(`${line()}\n${bad}\n${line()}\n`, 'f.jsonl');
    expect(records.map((one) => one.line)).toEqual([1, 3]);
    expect(problems).toEqual([{ file: 'f.jsonl', line: 2, reason: expect.stringMatching(reason) }]);
  });

  test.each<[string, (domain: MeasureRecord['energy']['domains'][number]) => void, RegExp]>([
    [
      'a window whose clock went back',
      (domain) => {
        domain.windows[1]!.end = domain.windows[1]!.begin - 1;
      },
      /^energy.domains.0.windows.1.end is .* s, expected after its begin at .* s: the clock went back$/,
    ],
    [
      'a window of negative joules',
      (domain) => {
        domain.windows[0]!.perCallJ = -2;
      },
      /^energy.domains.0.windows.0.perCallJ is -2 J, expected 0 or more$/,
    ],
  ])('%s', (_, change, reason) => {
    const bad = JSON.parse(JSON.stringify(record({ energy: metered([1, 1.1]) })));
    change(bad.energy.domains[0]);
    const { records, problems } = parseRecords(`${line()}\n${JSON.stringify(bad)}\n`, 'f');
    expect(records).toHaveLength(1);
    expect(problems).toEqual([{ file: 'f', line: 2, reason: expect.stringMatching(reason) }]);
  });

  test.each<[string, object, RegExp]>([
    ['power', { powerW: { value: -1, unit: 'W', state: 'ok', basis: 'a test' } }, /^energy.powerW is -1 W, expected 0/],
    ['per token', { perTokenJ: { value: -1, unit: 'J', state: 'ok', basis: 'a test' } }, /^energy.perTokenJ is -1 J/],
    [
      'an interval upside down',
      { perCallJ: { value: 1, unit: 'J', state: 'ok', basis: 'a test', ci95: [2, 1] } },
      /^energy.perCallJ.ci95 is \[2,1\], expected low before high$/,
    ],
  ])('impossible energy: %s', (_, changes, reason) => {
    const bad = line({ energy: { ...record().energy, ...changes } });
    expect(parseRecords(bad, 'f').problems[0]!.reason).toMatch(reason);
  });

  test('energy below that of idle is possible: net joules may be negative', () => {
    const net = { value: -1, unit: 'J', state: 'ok', basis: 'a test' };
    expect(parseRecords(line({ energy: { ...record().energy, netPerCallJ: net } }), 'f').problems).toEqual([]);
  });

  test('a time that runs backwards', () => {
    const bad = written();
    bad.time!.device!.min = -1e-6;
    expect(parseRecords(JSON.stringify(bad), 'f').problems[0]!.reason).toBe(
      'time.device.min is -0.000001 s, expected 0 or more',
    );
  });

  test('a last line that was cut off', () => {
    const { records, problems } = parseRecords(`${line()}\n${line().slice(0, 500)}`, 'f.jsonl');
    expect(records).toHaveLength(1);
    expect(problems[0]).toEqual({ file: 'f.jsonl', line: 2, reason: expect.stringMatching(/^is cut off/) });
  });

  test('indented JSON is one problem, not one for each of its lines', () => {
    const { problems } = parseRecords(JSON.stringify({ records: [written()] }, null, 2), 'f.json');
    expect(problems).toEqual([{ file: 'f.json', line: 1, reason: expect.stringMatching(/one record on each line/) }]);
  });

  test('a record that is there twice counts once', () => {
    const { records, problems } = parseRecords(`${line({ id: 'x' })}\n${line({ id: 'x' })}\n`, 'f');
    expect(records).toHaveLength(1);
    expect(problems[0]!.reason).toBe('repeats the record of line 1, id x');
  });

  test('fields of a newer version are no problem', () => {
    expect(parseRecords(line({ later: { anything: 1 } }), 'f').problems).toEqual([]);
  });

  test('reads from disk; a file that cannot be read throws one sentence', () => {
    const folder = mkdtempSync(join(tmpdir(), 'kernwatt-'));
    try {
      writeFileSync(join(folder, 'a.jsonl'), `${line()}\n`);
      expect(readRecords(join(folder, 'a.jsonl')).records).toHaveLength(1);
      expect(() => readRecords(join(folder, 'b.jsonl'))).toThrow(
        /^readRecords: file is .*b\.jsonl, expected one that can be read \(ENOENT\)$/,
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('records of kernwatt.measure/0', () => {
  /** As version 0.1.0 wrote them before it had a meter. */
  const old = (changes: Record<string, unknown> = {}): Record<string, unknown> => {
    const { energy: _, env, roofline, ...rest } = written();
    const { gpu: __, ...place } = env;
    const { energyFloorJ: ___, energyEfficiency: ____, ...roof } = roofline!;
    const { energyRatio: _____, energyRounds: ______, ...beside } = comparison();
    const none = (unit: string) => ({ value: null, unit, state: 'unavailable', reason: 'no meter yet' });
    const energy = { perCallJ: none('J'), powerW: none('W') };
    const zero = { ...rest, schema: 'kernwatt.measure/0', energy, env: place, roofline: roof, comparison: beside };
    return { ...zero, ...changes };
  };

  test('are read as /1, with the reason they gave for what they lack', () => {
    const { records, problems } = parseRecords(`${JSON.stringify(old())}\n${line()}\n`, 'f');
    expect(problems).toEqual([]);
    const [first] = records;
    expect(complaints(first!.record)).toEqual([]);
    expect(first!.record).toMatchObject({
      schema: 'kernwatt.measure/1',
      time: { headline: 'device' },
      energy: { perTokenJ: { value: null, reason: 'no meter yet' }, domains: [] },
      roofline: { energyEfficiency: { value: null, unit: '1' } },
      comparison: { ratio: 1, energyRatio: { value: null }, energyRounds: 0 },
      env: { gpu: null },
    });
  });

  test('of a wrong result, and of a baseline, likewise', () => {
    const wrong = JSON.parse(JSON.stringify(record({ correctness: { ...record().correctness, state: 'failed' } })));
    const { energy: _, env, ...rest } = wrong;
    const zero = { ...rest, schema: 'kernwatt.measure/0', energy: old().energy, env: old().env };
    expect(parseRecords(JSON.stringify(zero), 'f').problems).toEqual([]);
    expect(parseRecords(JSON.stringify(old({ comparison: null, roofline: null })), 'f').problems).toEqual([]);
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ['a missing part', { energy: undefined }, /^energy is missing/],
    ['a part of another kind', { env: 7 }, /^env is 7, expected object/],
    ['a field of another kind', { runId: null }, /^runId is null, expected string/],
  ])('%s is as much of a problem as in /1', (_, changes, reason) => {
    expect(parseRecords(JSON.stringify(old(changes)), 'f').problems[0]!.reason).toMatch(reason);
  });
});

describe('the schema check', () => {
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true }).compile(schema);

  const mismatch = compile(schema);

  const wrong = { ...record().correctness, state: 'failed' as const, reason: 'a test' };
  const samples = [
    record({ comparison: comparison(), energy: metered([1, 1.1, 0.9]) }),
    record({ correctness: wrong }),
    record(),
  ].map((one) => JSON.parse(JSON.stringify(one)));

  /** Every value inside, by its path. */
  function* paths(value: unknown, path: string[] = []): Generator<string[]> {
    if (path.length > 0) yield path;
    if (typeof value === 'object' && value !== null)
      for (const [name, inner] of Object.entries(value)) yield* paths(inner, [...path, name]);
  }

  const absent = Symbol('absent');
  const instead = [absent, null, 'text', '', -1, 0.5, 1e9, true, [], [2, 1], [1, 1, 1], ['stolen', 'stolen'], {}];

  test('says yes and no where ajv does, for every field replaced by every kind of value', () => {
    let refused = 0;
    let changed = 0;
    for (const sample of samples) {
      expect(mismatch(sample)).toBeNull();
      for (const path of paths(sample)) {
        for (const value of instead) {
          const copy = structuredClone(sample);
          const holder = path.slice(0, -1).reduce((at, name) => at[name], copy);
          if (value === absent) delete holder[path.at(-1)!];
          else holder[path.at(-1)!] = value;
          const found = mismatch(copy);
          if ((found === null) !== ajv(copy)) expect({ path, value, found }).toEqual(ajv.errors);
          changed++;
          if (found !== null) refused++;
        }
      }
    }
    expect(changed).toBeGreaterThan(5000);
    expect(refused / changed).toBeGreaterThan(0.5);
    expect(refused / changed).toBeLessThan(0.99);
  });

  test('a keyword it does not know is an error, not ignored', () => {
    expect(() => compile({ multipleOf: 2 })).toThrow(/keyword is multipleOf, expected .*minimum/);
  });
});
