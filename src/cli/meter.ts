// `kernwatt meter -- COMMAND`: wall time and CPU energy of any program. Standard output stays the program's own: what is known is
// printed on standard error at its end, or written to a file. Needs no addon.
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { describeTool, type Tool } from '../measure/environment.js';
import { isVirtual } from '../measure/sources.js';
import { CpuMeter, type DomainEnergy, type SourceState } from '../meter/cpu.js';
import { type MeteredRun, runMetered } from '../meter/run.js';
import { si } from '../report/format.js';
import { table } from '../report/table.js';
import { UsageError } from './usage.js';

export interface MeterFlags {
  json?: boolean;
  out?: string;
  interval: number;
  sysfs: string;
}

/** What `meter --json` prints; docs/measuring.md lists the fields. */
export interface MeterReport extends MeteredRun {
  schema: 'kernwatt.meter/0';
  tool: Tool;
  command: readonly string[];
  intervalSeconds: number;
  sources: SourceState[];
}

/** As a shell answers to a command that is not there, and to one that may not be run. */
const notFound = 127;
const notRunnable = 126;

export async function meter(command: readonly string[], flags: MeterFlags): Promise<number> {
  const [program] = command;
  if (!program) throw new UsageError('meter: the command is "", expected the name of a program');
  // Before the command runs: hours of it must not end in a file that cannot be written.
  const file = flags.out === undefined ? null : open(flags.out);
  const gauge = new CpuMeter(flags.sysfs, isVirtual());
  let run: MeteredRun;
  try {
    run = await runMetered(gauge, command as [string, ...string[]], flags.interval);
  } catch (error) {
    if (file !== null) closeSync(file);
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'command not found' : `cannot be run (${code ?? message})`;
    process.stderr.write(`kernwatt meter: ${program}: ${why}\n`);
    return code === 'ENOENT' ? notFound : notRunnable;
  }
  const report: MeterReport = {
    schema: 'kernwatt.meter/0',
    tool: describeTool(),
    command,
    intervalSeconds: flags.interval / 1000,
    ...run,
    sources: gauge.sources,
  };
  const json = `${JSON.stringify(report, null, 2)}\n`;
  if (file !== null) {
    writeFileSync(file, json);
    closeSync(file);
  }
  process.stderr.write(flags.json ? json : render(report));
  return run.exitCode;
}

function open(path: string): number {
  try {
    return openSync(path, 'w');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new UsageError(`meter: --out is ${path}, expected a file that can be written (${code})`);
  }
}

export function render({ exitCode, signal, wallSeconds, energy }: MeterReport): string {
  const how = signal === null ? `exit code ${exitCode}` : `ended by ${signal}`;
  const read = energy.filter(({ joules }) => joules.value !== null);
  const lines = [`kernwatt meter: ${si(wallSeconds, 's')}, ${how}\n`];
  if (read.length > 0)
    lines.push(
      table(
        [
          { head: 'energy' },
          { head: 'joules', align: 'right' },
          { head: 'at least', align: 'right' },
          { head: 'at most', align: 'right' },
          { head: 'source' },
          { head: 'covers' },
        ],
        read.map(({ domain, joules, bounds, source, scope }) => [
          domain,
          si(joules.value!, 'J'),
          ...(bounds ?? [null, null]).map((bound) => (bound === null ? 'n/a' : si(bound, 'J'))),
          source ?? '',
          scope,
        ]),
      ),
    );
  lines.push(...energy.filter(({ joules }) => joules.value === null).map(absent));
  return lines.join('');
}

function absent({ domain, joules, fix, bounds, scope }: DomainEnergy): string {
  if (joules.value !== null) return '';
  const between = bounds ? `; between ${si(bounds[0], 'J')} and ${si(bounds[1], 'J')} (${scope})` : '';
  return `${domain} energy is ${joules.state}: ${joules.reason}${between}${fix ? `; fix: ${fix}` : ''}\n`;
}
