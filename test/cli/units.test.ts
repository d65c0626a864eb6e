// Parts of the command line by themselves: how input is read, where records go, which cases are chosen.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { selectCases } from '../../src/cli/cases.js';
import { nodeSupported } from '../../src/cli/doctor.js';
import { describeOps, operators } from '../../src/cli/ops.js';
import { progressLine, secondsLeft } from '../../src/cli/progress.js';
import { RecordFile } from '../../src/cli/records.js';
import { isUsage, parseShape, pick, UsageError, wholeNumber } from '../../src/cli/usage.js';
import { gemm, KernwattError } from '../../src/index.js';
import { record } from '../measure/record.js';

describe('reading options', () => {
  test('shapes', () => {
    expect(parseShape('m=1,k=4096')).toEqual({ m: 1, k: 4096 });
    expect(parseShape(' m = 0 ')).toEqual({ m: 0 });
    for (const text of ['', 'm', 'm=', 'm=-1', 'm=1.5', 'm=1e3', 'm=1,m=2', 'm=1,,k=2', 'm=99999999999999999999'])
      expect(() => parseShape(text), text).toThrow(/expected|twice/);
  });

  test('whole numbers', () => {
    expect(wholeNumber(0)('12')).toBe(12);
    for (const text of ['', '-1', '1.5', '1e3', 'NaN', '0x10', ' 1'])
      expect(() => wholeNumber(0)(text), text).toThrow(/whole number/);
    expect(() => wholeNumber(1, 8)('9')).toThrow(/from 1 to 8/);
  });

  test('names: the nearest one, or all of them', () => {
    const names = ['gemm', 'attention'];
    expect(pick('operator', 'gemm', names, (n) => n)).toBe('gemm');
    expect(() => pick('operator', 'gem', names, (n) => n)).toThrow('operator is "gem"; did you mean "gemm"?');
    expect(() => pick('operator', 'softmax', names, (n) => n)).toThrow(
      'operator is "softmax"; expected gemm, attention',
    );
  });

  test('what was asked wrongly is told from what went wrong', () => {
    expect(isUsage(new UsageError('x'))).toBe(true);
    expect(isUsage(new KernwattError('SHAPE', 'x'))).toBe(true);
    expect(isUsage(new KernwattError('OUT_OF_MEMORY', 'x'))).toBe(false);
    expect(isUsage(new TypeError('x'))).toBe(false);
  });

  test.each([
    ['v20.19.0', true],
    ['v20.18.9', false],
    ['v21.7.0', false],
    ['v22.11.9', false],
    ['v22.12.0', true],
    ['v23.5.0', false],
    ['v24.0.0', true],
    ['v26.10.0', true],
  ])('Node %s is supported: %s', (version, supported) =>
    expect(nodeSupported(version, '^20.19.0 || ^22.12.0 || >=24.0.0')).toBe(supported),
  );
});

describe('record files', () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'kernwatt-'));
    path = join(folder, 'records.jsonl');
  });
  afterEach(() => rmSync(folder, { recursive: true }));
  const lines = () => readFileSync(path, 'utf8').trimEnd().split('\n');

  test('are created, and appended to', () => {
    new RecordFile(path).append(record());
    new RecordFile(path).append(record());
    expect(lines().map((line) => JSON.parse(line).schema)).toEqual(['kernwatt.measure/1', 'kernwatt.measure/1']);
  });

  test.each([
    ['text', 'my notes\n', 1],
    ['other JSON', '{"a":1}\n', 1],
    ['a record cut short', `${JSON.stringify({ schema: 'kernwatt.measure/1' })}\n{"schema":"kern`, 2],
  ])('holding %s are refused as they are, and replaced only by force', (_, text, line) => {
    writeFileSync(path, text);
    expect(() => new RecordFile(path)).toThrow(`line ${line} is not a record`);
    expect(readFileSync(path, 'utf8')).toBe(text);
    new RecordFile(path, true).append(record());
    expect(lines()).toHaveLength(1);
    expect(existsSync(`${path}.new`)).toBe(false);
  });

  test('in no folder, or folders themselves, are refused', () => {
    expect(() => new RecordFile(join(folder, 'none', 'a.jsonl'))).toThrow(/folder that exists/);
    expect(() => new RecordFile(folder)).toThrow(/expected a file/);
  });
});

describe('cases to measure', () => {
  const select = (suite: 'quick' | 'models', selection = {}) => selectCases([gemm], suite, selection);

  test('the quick suite is part of the models', () => {
    const quick = select('quick').map(({ model }) => model.name);
    const models = select('models').map(({ model }) => model.name);
    expect(quick.length).toBeGreaterThan(3);
    expect(models.length).toBeGreaterThan(quick.length);
    expect(models).toEqual(expect.arrayContaining(quick));
  });

  test('a shape replaces the list; the output columns decide the rows of the weight', () => {
    const [one, ...others] = select('quick', { shape: { m: 3, n: 70, k: 50 } });
    expect(others).toEqual([]);
    expect(one!.model).toMatchObject({ name: 'm=3 n=70 k=50', dims: { m: 3, rowsW: 70, k: 50 } });
    expect(select('quick', { shape: { m: 3 } })[0]!.model.dims).toMatchObject({ m: 3 });
  });

  test('a type replaces the types and drops what then is double', () => {
    const cases = select('quick', { dtype: 'f16' });
    expect(cases.every(({ model }) => model.dtypes!.x === 'f16')).toBe(true);
    expect(cases.filter(({ model }) => model.name.startsWith('square'))).toHaveLength(1);
  });

  test('a shape picks the operators that have its dimensions', () => {
    const names = (shape: Record<string, number>) =>
      selectCases(operators, 'quick', { shape }).map(({ op }) => op.spec.name);
    expect(names({ m: 3, n: 16 })).toEqual(['gemm', 'gemm_int4']);
    expect(names({ lenKv: 64, headsKv: 2 })).toEqual(['attention_gqa', 'attention_gqa_backward', 'nsa_attend']);
    const attention = [
      'attention_gqa',
      'attention_gqa_backward',
      'attention_gqa_paged',
      'attention_merge',
      'attention_mla',
      'nsa_attend',
    ];
    expect(names({ lenQ: 4 })).toEqual(attention);
    expect(() => names({ m: 3, lenKv: 16 })).toThrow('no operator has the dimensions m, lenKv');
  });

  test('what does not exist is refused by name', () => {
    expect(() => select('quick', { shape: { mm: 1 } })).toThrow(
      'gemm: dimension is "mm"; expected batch, m, k, rowsW, n',
    );
    expect(() => select('quick', { shape: { n: 5, rowsW: 6 } })).toThrow('n is 5');
    expect(() => select('quick', { dtype: 'bf1' })).toThrow('did you mean "bf16"?');
    expect(() => select('quick', { dtype: 'i8' })).toThrow('gemm: --dtype is i8, expected f32, bf16, f16');
  });
});

test('ops lists every operator with its arguments', () => {
  const { schema, ops } = describeOps();
  expect(schema).toBe('kernwatt.ops/0');
  expect(ops.map(({ name }) => name)).toEqual(operators.map(({ spec }) => spec.name));
  const op = ops.find(({ name }) => name === 'gemm')!;
  expect(op.tensors.find(({ name }) => name === 'w')).toMatchObject({ role: 'in', dtype: 'as x' });
  expect(op.params.find(({ name }) => name === 'alpha')).toMatchObject({ kind: 'f32', default: 1 });
});

describe('progress', () => {
  test('time left follows from what is done, once enough is', () => {
    expect(secondsLeft(10, 0.5)).toBe(10);
    expect(secondsLeft(10, 0.01)).toBeNull();
    expect(secondsLeft(0.5, 0.5)).toBeNull();
  });

  test('nothing is written where no terminal is', () => {
    const written: string[] = [];
    const stream = { isTTY: false, write: (text: string) => written.push(text) } as unknown as NodeJS.WriteStream;
    const line = progressLine(stream);
    line.update('working', 0.5);
    line.stop();
    expect(written).toEqual([]);
  });
});
