// `kernwatt report`: files of records as Markdown, CSV, JSON or one HTML page. Needs neither the addon nor the machine that measured.
import { writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { place, type RecordLines, readRecords } from '../records/read.js';
import { html } from '../report/html.js';
import { report as build } from '../report/model.js';
import { equalWeights, type Weights } from '../report/quantities.js';
import { csv, json, markdown } from '../report/text.js';
import { exit, UsageError } from './usage.js';

export interface ReportFlags {
  md?: boolean;
  csv?: boolean;
  json?: boolean;
  html?: string;
  weights?: Weights;
  together?: boolean;
}

export function report(files: readonly string[], flags: ReportFlags): number {
  const formats = (['md', 'csv', 'json'] as const).filter((format) => flags[format]);
  if (formats.length > 1) throw new UsageError(`report: --${formats.join(' and --')} exclude each other`);
  if (flags.html !== undefined && files.some((file) => resolve(file) === resolve(flags.html!)))
    throw new UsageError(`report: --html is ${flags.html}, expected a file other than the records`);
  const { records, problems } = readAll(files);
  for (const problem of problems) process.stderr.write(`${place(problem)}: ${problem.reason}\n`);
  if (records.length === 0) {
    process.stderr.write(
      `kernwatt: report: ${files.join(', ')} ${files.length === 1 ? 'holds' : 'hold'} 0 records, expected 1 or more\n`,
    );
    return exit.failed;
  }
  const options = flags.together === undefined ? {} : { together: flags.together };
  const built = build(files, records, problems, options);
  const weights = flags.weights ?? equalWeights;
  if (flags.html !== undefined) writePage(flags.html, html(built, weights));
  const format = formats[0] ?? (flags.html === undefined ? 'md' : null);
  if (format !== null)
    process.stdout.write(
      format === 'csv' ? csv(built) : format === 'json' ? json(built, weights) : markdown(built, weights),
    );
  return problems.length > 0 ? exit.failed : exit.ok;
}

/** The records of all files. One that stands in two of them, as after copying, is kept once. */
function readAll(files: readonly string[]): RecordLines {
  const all: RecordLines = { records: [], problems: [] };
  const seen = new Map<string, string>();
  for (const file of files) {
    const { records, problems } = readRecords(file);
    all.problems.push(...problems);
    for (const one of records) {
      const earlier = seen.get(one.record.id);
      if (earlier === undefined) all.records.push(one);
      else all.problems.push({ file, line: one.line, reason: `repeats the record of ${earlier}, id ${one.record.id}` });
      seen.set(one.record.id, earlier ?? place(one));
    }
  }
  return all;
}

function writePage(path: string, page: string): void {
  try {
    writeFileSync(path, page);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(`report: --html is ${path}, expected a file that can be written (${code})`);
  }
  process.stderr.write(`wrote ${path}\n`);
}
