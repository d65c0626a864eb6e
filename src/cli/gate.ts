// `kernwatt gate`: fails a build when a metric grew. Reads two files of records; needs neither the addon nor the machine.
import { writeFileSync } from 'node:fs';
import { type GateReport, gate as judge } from '../gate/gate.js';
import { metrics } from '../gate/metrics.js';
import { junit, markdown, summary, text } from '../gate/text.js';
import { place, readRecords } from '../records/read.js';
import { gateExit, isUsage, pick, UsageError } from './usage.js';

export interface GateFlags {
  metric: string;
  maxRatio: number;
  json?: boolean;
  md?: string;
  junit?: string;
}

export function gate(base: string, news: string, flags: GateFlags): number {
  try {
    const metric = pick('gate: --metric', flags.metric, metrics, ({ name }) => name);
    const report = judge(readRecords(base), readRecords(news), metric, flags.maxRatio);
    if (flags.md !== undefined) write('--md', flags.md, markdown(report));
    if (flags.junit !== undefined) write('--junit', flags.junit, junit(report));
    print(report, flags.json ?? false);
    return gateExit[report.verdict];
  } catch (error) {
    if (!isUsage(error)) throw error;
    process.stderr.write(`kernwatt: ${(error as Error).message}\n`);
    return gateExit['bad-input'];
  }
}

function print(report: GateReport, json: boolean): void {
  for (const problem of report.problems) process.stderr.write(`${place(problem)}: ${problem.reason}\n`);
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : text(report));
  if (json) process.stderr.write(`${summary(report)}\n`);
}

function write(option: string, path: string, content: string): void {
  try {
    writeFileSync(path, content);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(`gate: ${option} is ${path}, expected a file that can be written (${code})`);
  }
}
