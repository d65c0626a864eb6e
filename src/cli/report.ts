// `kernwatt report`: files of records as Markdown, CSV, JSON or one HTML page. Needs neither the addon nor the machine that measured.
import { place, readRecords } from '../records/read.js';
import { report as build } from '../report/model.js';
import { equalWeights, type Weights } from '../report/quantities.js';
import { csv, json, markdown } from '../report/text.js';
import { exit, UsageError } from './usage.js';

export interface ReportFlags {
  md?: boolean;
  csv?: boolean;
  json?: boolean;
  weights?: Weights;
  together?: boolean;
}

export function report(files: readonly string[], flags: ReportFlags): number {
  const formats = (['md', 'csv', 'json'] as const).filter((format) => flags[format]);
  if (formats.length > 1) throw new UsageError(`report: --${formats.join(' and --')} exclude each other`);
  const found = files.map((file) => readRecords(file));
  const records = found.flatMap(({ records }) => records);
  const problems = found.flatMap(({ problems }) => problems);
  for (const problem of problems) process.stderr.write(`${place(problem)}: ${problem.reason}\n`);
  if (records.length === 0) {
    process.stderr.write(`kernwatt: report: ${files.join(', ')} hold 0 records, expected 1 or more\n`);
    return exit.failed;
  }
  const options = flags.together === undefined ? {} : { together: flags.together };
  const built = build(files, records, problems, options);
  const weights = flags.weights ?? equalWeights;
  const format = formats[0] ?? 'md';
  process.stdout.write(
    format === 'csv' ? csv(built) : format === 'json' ? json(built, weights) : markdown(built, weights),
  );
  return problems.length > 0 ? exit.failed : exit.ok;
}
