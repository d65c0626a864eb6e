// Reads files of records (JSON lines, kernwatt.measure/1 and earlier). Every line is judged on its own: a good record is kept whatever
// stands beside it, a bad line becomes one sentence with its number. Works without the addon.
import { readFileSync } from 'node:fs';
import { KernwattError } from '../errors.js';
import type { Quantity } from '../measure/quantity.js';
import { type MeasureRecord, schema } from '../measure/record.js';
import { type Check, compile, type Schema } from './schema.js';
import { readable, upgraded } from './upgrade.js';

export interface FileRecord {
  record: MeasureRecord;
  file: string;
  /** From 1. */
  line: number;
}

export interface LineProblem {
  file: string;
  line: number;
  reason: string;
}

export interface RecordLines {
  records: FileRecord[];
  problems: LineProblem[];
}

/** Where something stands, as editors and terminals understand it: `base.jsonl:3`. */
export const place = ({ file, line }: { file: string; line: number }): string => `${file}:${line}`;

let published: Check | undefined;

/** The published schema, which both other programs and this reader go by. */
const checkRecord: Check = (value) => {
  published ??= compile(JSON.parse(readFileSync(new URL('../schema/measure.json', import.meta.url), 'utf8')) as Schema);
  return published(value);
};

/** What the schema cannot say: numbers that no measurement gives, and clocks that run backwards. */
function impossible({ energy, time, roofline, comparison, metrics }: MeasureRecord): string | null {
  const metered = Object.entries(energy).filter((entry): entry is [string, Quantity] => isQuantity(entry[1]));
  const quantities: [string, Quantity | undefined][] = [
    ...metered.map(([name, q]): [string, Quantity] => [`energy.${name}`, q]),
    ['metrics.AEC.paper.AEC', metrics?.AEC.paper.AEC],
    ['roofline.energyFloorJ', roofline?.energyFloorJ],
    ['comparison.energyRatio', comparison?.energyRatio],
  ];
  for (const [name, q] of quantities) {
    if (q === undefined || q.value === null) continue;
    // Net of idle may be below 0: then the load drew less than idle, and the record is flagged.
    if (q.value < 0 && name !== 'energy.netPerCallJ') return `${name} is ${q.value} ${q.unit}, expected 0 or more`;
    if (q.ci95 && q.ci95[0] > q.ci95[1]) return `${name}.ci95 is ${JSON.stringify(q.ci95)}, expected low before high`;
  }
  for (const [i, { windows }] of energy.domains.entries())
    for (const [j, { begin, end, perCallJ }] of windows.entries()) {
      const name = `energy.domains.${i}.windows.${j}`;
      if (!(end > begin)) return `${name}.end is ${end} s, expected after its begin at ${begin} s: the clock went back`;
      if (perCallJ < 0) return `${name}.perCallJ is ${perCallJ} J, expected 0 or more`;
    }
  for (const clock of ['device', 'stream', 'host'] as const) {
    const stat = time?.[clock];
    if (stat && !(stat.min >= 0)) return `time.${clock}.min is ${stat.min} s, expected 0 or more`;
  }
  return null;
}

const isQuantity = (value: unknown): value is Quantity =>
  typeof value === 'object' && value !== null && 'unit' in value;

/** What is wrong with one line, or its record. */
function judge(text: string, last: boolean): MeasureRecord | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    if (last && text.startsWith('{')) return 'is cut off: the file ends in the middle of a record';
    return `is not JSON (${(error as Error).message})`;
  }
  const given = (value as { schema?: unknown } | null)?.schema;
  const family = schema.split('/')[0]!;
  if (typeof given !== 'string' || !given.startsWith(`${family}/`))
    return `is not a record: schema is ${JSON.stringify(given) ?? 'missing'}, expected "${schema}"`;
  if (!readable.includes(given))
    return `schema is "${given}", expected ${readable.map((one) => `"${one}"`).join(' or ')}, which this kernwatt reads`;
  const record = upgraded(value as { schema: string });
  const found = checkRecord(record);
  if (found) return `${found.path.join('.') || 'the record'} ${found.sentence}`;
  return impossible(record as MeasureRecord) ?? (record as MeasureRecord);
}

/** Records and problems of a text in the order of its lines. Empty lines are nothing; a record that repeats an id is kept once. */
export function parseRecords(text: string, file: string): RecordLines {
  const found: RecordLines = { records: [], problems: [] };
  const lines = text.replace(/^\uFEFF/, '').split(/\r?\n/);
  if (lines[0]?.trim() === '{') {
    const reason = 'is JSON over several lines, expected one record on each line, as bench --out writes';
    return { records: [], problems: [{ file, line: 1, reason }] };
  }
  const seen = new Map<string, number>();
  for (const [i, content] of lines.entries()) {
    const line = i + 1;
    if (content.trim() === '') continue;
    const judged = judge(content, line === lines.length);
    if (typeof judged === 'string') {
      found.problems.push({ file, line, reason: judged });
      continue;
    }
    const earlier = seen.get(judged.id);
    if (earlier === undefined) found.records.push({ record: judged, file, line });
    else found.problems.push({ file, line, reason: `repeats the record of line ${earlier}, id ${judged.id}` });
    seen.set(judged.id, earlier ?? line);
  }
  return found;
}

/**
 * Reads a file of records. Bad lines do not throw; they are listed beside the records.
 * @throws {KernwattError} ARGUMENT when the file cannot be read.
 */
export function readRecords(path: string): RecordLines {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new KernwattError('ARGUMENT', `readRecords: file is ${path}, expected one that can be read (${code})`, {
      cause: error,
    });
  }
  return parseRecords(text, path);
}
