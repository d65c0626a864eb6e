// `kernwatt report` as a user runs it, without an addon: exit codes, what goes where, bad lines and bad requests. Needs dist/.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { record } from '../measure/record.js';

const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'kernwatt-report-'));
afterAll(() => rmSync(folder, { recursive: true }));

const line = (name: string): string => {
  const one = record();
  return JSON.stringify({ ...one, case: { ...one.case, name } });
};

function kernwatt(...args: string[]) {
  const env = { ...process.env, KERNWATT_ADDON: '/nowhere/kernwatt.node' };
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'report', ...args], {
    cwd: folder,
    encoding: 'utf8',
    env,
  });
  return { code: status, out: stdout, err: stderr };
}

beforeAll(() => {
  if (!existsSync(main)) throw new Error('dist/ is missing: npm run build');
  writeFileSync(join(folder, 'good.jsonl'), `${line('one')}\n${line('two')}\n`);
  writeFileSync(
    join(folder, 'bad.jsonl'),
    `${line('one')}\n{"schema":"else/1"}\nnot JSON\n${line('two').slice(0, 200)}`,
  );
  writeFileSync(join(folder, 'none.jsonl'), 'hello\n');
});

describe('what it writes', () => {
  test('Markdown by default, CSV and JSON when asked', () => {
    const { code, out, err } = kernwatt('good.jsonl');
    expect({ code, err }).toEqual({ code: 0, err: '' });
    expect(out).toMatch(/^# kernwatt report$/m);
    expect(out).toMatch(/^\| one \|/m);
    expect(kernwatt('good.jsonl', '--md').out).toBe(out);
    expect(kernwatt('good.jsonl', '--csv').out.split('\r\n')).toHaveLength(4);
    expect(JSON.parse(kernwatt('good.jsonl', '--json').out)).toMatchObject({
      schema: 'kernwatt.report/0',
      problems: [],
    });
  });

  test('one HTML page, and nothing on standard output beside it', () => {
    const { code, out, err } = kernwatt('good.jsonl', '--html', 'out.html');
    expect({ code, out, err }).toEqual({ code: 0, out: '', err: 'wrote out.html\n' });
    const page = readFileSync(join(folder, 'out.html'), 'utf8');
    expect(page).toMatch(/^<!doctype html>/);
    // Nothing that could ask a network: no link, no source, no import.
    expect(page).not.toMatch(/(src|href)="(?!data:)|@import|url\(/);
  });

  test('weights and ranking across different work', () => {
    const { out } = kernwatt('good.jsonl', '--together', '--weights', 'al=3,PCU=0', '--json');
    const { weights, groups } = JSON.parse(out);
    expect(weights).toEqual({ AMU: 1, PCU: 0, AL: 3, AT: 1, AEC: 1, MCR: 1 });
    expect(groups[0].sets.map(({ label }: { label: string }) => label)).toEqual(['all records of this device']);
  });
});

describe('bad input', () => {
  test('bad lines are named, good records reported, and the exit code says so', () => {
    const { code, out, err } = kernwatt('bad.jsonl');
    expect(code).toBe(1);
    expect(err.split('\n').map((text) => text.split(':').slice(0, 2).join(':'))).toEqual([
      ...['bad.jsonl:2', 'bad.jsonl:3', 'bad.jsonl:4'],
      '',
    ]);
    expect(out).toMatch(/^\| one \|/m);
    expect(out).toMatch(/3 lines could not be used/);
  });

  test('a record that stands in two files counts once', () => {
    writeFileSync(join(folder, 'copy.jsonl'), readFileSync(join(folder, 'good.jsonl')));
    const { code, out, err } = kernwatt('good.jsonl', 'copy.jsonl', '--json');
    expect(code).toBe(1);
    expect(err).toMatch(/^copy\.jsonl:1: repeats the record of good\.jsonl:1, id /);
    expect(JSON.parse(out).groups[0].rows).toHaveLength(2);
  });

  test('no record at all is a failure, and no report', () => {
    const { code, out, err } = kernwatt('none.jsonl');
    expect({ code, out }).toEqual({ code: 1, out: '' });
    expect(err).toMatch(/^none\.jsonl:1: .*\nkernwatt: report: none\.jsonl holds 0 records, expected 1 or more\n$/);
  });

  test('what makes no sense exits with 2', () => {
    for (const args of [
      ['absent.jsonl'],
      ['good.jsonl', '--csv', '--json'],
      ['good.jsonl', '--weights', 'speed=1'],
      ['good.jsonl', '--weights', 'AL=-1'],
      ['good.jsonl', '--weights', 'AMU=0,PCU=0,AL=0,AT=0,AEC=0,MCR=0'],
      ['good.jsonl', '--html', 'no/such/folder.html'],
      ['good.jsonl', '--html', './good.jsonl'],
      [],
    ]) {
      const { code, err } = kernwatt(...args);
      expect(code, args.join(' ')).toBe(2);
      expect(err, args.join(' ')).toMatch(/absent|exclude|expected|missing required argument/);
    }
  });
});
