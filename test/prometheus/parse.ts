// A strict reader of Prometheus's text format 0.0.4: anything that the format does not say is an error.
import { expect } from 'vitest';

export interface Parsed {
  type: string;
  help: string;
  /** By labels in the order of their names: `{clock="sm",domain="gpu:0"}`. */
  samples: Map<string, number>;
}

const name = '[a-zA-Z_:][a-zA-Z0-9_:]*';
const pair = '[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\\\\n]|\\\\["\\\\n])*"';
const sample = new RegExp(`^(${name})(?:\\{(${pair}(?:,${pair})*)\\})? (-?[0-9.]+(?:e[+-]?[0-9]+)?)$`);

export function parse(text: string): { families: Map<string, Parsed>; comments: string[] } {
  expect(text.endsWith('\n')).toBe(true);
  const families = new Map<string, Parsed>();
  const comments: string[] = [];
  let current: Parsed | undefined;
  let currentName = '';
  for (const line of text.slice(0, -1).split('\n')) {
    const help = new RegExp(`^# HELP (${name}) (.+)$`).exec(line);
    const type = new RegExp(`^# TYPE (${name}) (counter|gauge)$`).exec(line);
    if (help) {
      currentName = help[1]!;
      expect(families.has(currentName), `${currentName} comes twice`).toBe(false);
      current = { type: '', help: help[2]!, samples: new Map() };
      families.set(currentName, current);
    } else if (type) {
      expect(type[1]).toBe(currentName);
      current!.type = type[2]!;
    } else if (line.startsWith('# ')) comments.push(line.slice(2));
    else {
      const [, of, labels = '', value] = sample.exec(line) ?? [];
      expect(of, line).toBe(currentName);
      const key = labels === '' ? '' : `{${labels.match(new RegExp(pair, 'g'))!.sort().join()}}`;
      expect(current!.samples.has(key), `${line} comes twice`).toBe(false);
      current!.samples.set(key, Number(value));
    }
  }
  for (const [of, { type, help, samples }] of families) {
    expect(samples.size, of).toBeGreaterThan(0);
    // Conventions: a counter ends in _total, a gauge does not; SI units in full.
    expect(of.endsWith('_total'), of).toBe(type === 'counter');
    expect(help).toMatch(/\.$/);
    expect(of).toMatch(/^kernwatt_/);
  }
  return { families, comments };
}
