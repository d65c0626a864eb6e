// `kernwatt meter -- COMMAND`: wall time of any program, and the energy of CPU packages and GPUs meanwhile. Standard output stays the
// program's own: what is known is printed on standard error at its end, or written to a file. Without the addon, energy is unavailable.
import { closeSync, openSync, writeFileSync } from 'node:fs';
import { describeTool, type Tool } from '../measure/environment.js';
import type { SourceState } from '../meter/cpu.js';
import { type DomainEnergy, gpuNames, isGpu, type MeterDomain, openAll } from '../meter/meter.js';
import { type MeteredRun, runMetered } from '../meter/run.js';
import { si } from '../report/format.js';
import { table } from '../report/table.js';
import { UsageError } from './usage.js';

export interface MeterFlags {
  json?: boolean;
  out?: string;
  gpu?: string;
  /** Milliseconds. */
  interval?: number;
  sysfs: string;
}

/** One domain: its identity and its state, with the name as `domain`, and its energy. */
type Entry = Pick<MeterDomain, 'source' | 'scope' | 'covers' | 'exclusive' | 'fix'> &
  Pick<DomainEnergy, 'joules' | 'bounds' | 'powerJ'> & { domain: string };

/** What `meter --json` prints; docs/measuring.md lists the fields. */
export interface MeterReport extends Omit<MeteredRun, 'energy'> {
  schema: 'kernwatt.meter/1';
  tool: Tool;
  command: readonly string[];
  energy: Entry[];
  sources: SourceState[];
}

/** As a shell answers to a command that is not there, and to one that may not be run. */
const notFound = 127;
const notRunnable = 126;

export async function meter(command: readonly string[], flags: MeterFlags): Promise<number> {
  const [program] = command;
  if (!program) throw new UsageError('meter: the command is "", expected the name of a program');
  if (flags.gpu !== undefined && !isGpu(flags.gpu))
    throw new UsageError(`meter: --gpu is ${flags.gpu}, expected ${gpuNames}`);
  // Before the command runs: hours of it must not end in a file that cannot be written.
  const file = flags.out === undefined ? null : open(flags.out);
  const intervalSeconds = flags.interval === undefined ? undefined : flags.interval / 1000;
  const { meter: all, sources } = await openAll(flags.sysfs, flags.gpu, intervalSeconds);
  let run: MeteredRun;
  try {
    run = await runMetered(all, command as [string, ...string[]]);
  } catch (error) {
    if (file !== null) closeSync(file);
    const { code, message } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'command not found' : `cannot be run (${code ?? message})`;
    process.stderr.write(`kernwatt meter: ${program}: ${why}\n`);
    return code === 'ENOENT' ? notFound : notRunnable;
  } finally {
    await all.close();
  }
  const report: MeterReport = {
    schema: 'kernwatt.meter/1',
    tool: describeTool(),
    command,
    ...run,
    energy: run.energy.map(entryOf),
    sources,
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

const entryOf = ({ domain, joules, bounds, powerJ }: DomainEnergy): Entry => {
  const { name, source, scope, covers, exclusive, fix } = domain;
  const needed = joules.value === null ? fix : null;
  return { domain: name, source, scope, covers, exclusive, joules, bounds, powerJ, fix: needed };
};

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
        read.map(({ domain, joules, bounds, source, covers }) => [
          domain,
          si(joules.value!, 'J'),
          ...(bounds ?? [null, null]).map((bound) => (bound === null ? 'n/a' : si(bound, 'J'))),
          source ?? '',
          covers,
        ]),
      ),
    );
  lines.push(...energy.filter(({ joules }) => joules.value === null).map(absent));
  return lines.join('');
}

function absent({ domain, joules, fix, bounds, covers, powerJ }: Entry): string {
  if (joules.value !== null) return '';
  const between = bounds ? `; between ${si(bounds[0], 'J')} and ${si(bounds[1], 'J')} (${covers})` : '';
  const about = powerJ.value === null ? '' : `; about ${si(powerJ.value, 'J')} by power readings (${covers})`;
  return `${domain} energy is ${joules.state}: ${joules.reason}${between}${about}${fix ? `; fix: ${fix}` : ''}\n`;
}
