// `kernwatt bench`: measures operators, suites of the paper or a user's script, prints the tables, writes the records.
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import type { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import { compare } from '../measure/compare.js';
import { packageRoot } from '../measure/environment.js';
import { measure } from '../measure/measure.js';
import { meterOverhead, overheadText } from '../measure/meter_overhead.js';
import type { MeasureRecord } from '../measure/record.js';
import { benchReport } from '../report/bench.js';
import { table } from '../report/table.js';
import { type BenchCase, BoundCase, chooseCases, type Selection } from './cases.js';
import { type DeviceFlags, openDevices } from './devices.js';
import { type ProgressLine, progressLine } from './progress.js';
import { RecordFile } from './records.js';
import { planSuites, SuiteRun, skippable, suiteNames } from './suite.js';
import { exit, ScriptError, UsageError } from './usage.js';

export interface BenchFlags extends DeviceFlags, Selection {
  cache?: 'cold' | 'hot';
  seed?: number;
  quick?: boolean;
  group?: string;
  energy?: boolean;
  self?: boolean;
  out?: string;
  force?: boolean;
  json?: boolean;
}

/** A path, or what ends like a program; TypeScript where this Node runs it. */
const isScript = (what: string): boolean => /\.[cm]?[jt]s$|[\\/]/.test(what);

/** What only operators and suites can take. */
const notOfScripts = ['shape', 'dtype', 'cache', 'seed', 'group'] as const;

/** Everything a run has to say. */
interface Outcome {
  records: MeasureRecord[];
  notes: string[];
  /** What a script returned, or the groups of suites. */
  result?: unknown;
  /** What suites print in place of the tables of records. */
  text?: string;
}

export async function bench(what: string[], flags: BenchFlags): Promise<number> {
  const scripts = flags.self ? [`${packageRoot}/bench/overhead.mjs`] : what.filter(isScript);
  const names = what.filter((one) => !isScript(one));
  if (scripts.length > 0 && (names.length > 0 || scripts.length > 1))
    throw new UsageError('bench: a script runs alone, without operators, suites or other scripts');
  if (scripts.length > 0) refuseScript(scripts[0]!, flags);
  const planned = scripts.length > 0 ? null : planSuites(names, flags);
  const cases = scripts.length > 0 || planned ? [] : chooseCases('bench', names, flags, suiteNames);
  const file = flags.out === undefined ? null : new RecordFile(flags.out, flags.force);
  // Its own overhead is that of the CPU device, whatever else there is.
  const { devices, notes } = await openDevices('bench', flags.self ? { ...flags, backend: 'cpu' } : flags);
  const interrupt = new AbortController();
  const stop = () => interrupt.abort(new Error('interrupted'));
  process.once('SIGINT', stop);
  const outcome: Outcome = { records: [], notes };
  const keep = (record: MeasureRecord) => {
    outcome.records.push(record);
    file?.append(record);
  };
  const suite = planned && new SuiteRun(planned, flags, keep, notes);
  try {
    const line = progressLine(process.stderr, flags.json);
    try {
      if (scripts.length > 0) {
        outcome.result = await runScript(scripts[0]!, devices.at(-1)!, flags, keep, interrupt.signal);
        if (flags.self) Object.assign(outcome, await self(outcome.result, devices[0]!, flags, interrupt.signal));
      } else if (suite) await suite.run(devices, line, interrupt.signal);
      else await runCases(cases, devices, flags, keep, outcome.notes, line, interrupt.signal);
    } finally {
      line.stop();
    }
  } catch (error) {
    // What had been measured until then is not lost with the rest.
    if (error instanceof ScriptError && outcome.records.length > 0) print(outcome, flags);
    if (!interrupt.signal.aborted) throw error;
    const rest = suite && flags.out !== undefined ? '; the same command goes on from there' : '';
    outcome.notes.push(`interrupted: what had been measured until then is above${rest}`);
  } finally {
    process.off('SIGINT', stop);
    for (const device of devices) await device.close();
  }
  if (scripts.length > 0 && outcome.records.length === 0 && outcome.result === undefined && !interrupt.signal.aborted)
    notes.push(`${scripts[0]} measured nothing and returned nothing`);
  if (suite) Object.assign(outcome, { text: suite.text(), result: suite.result() });
  print(outcome, flags);
  if (interrupt.signal.aborted) return exit.interrupted;
  return outcome.records.some(({ verdict }) => verdict === 'invalid') ? exit.failed : exit.ok;
}

/** What calls cost, as the script of `--self` returned it, and what the meter costs beside it. */
async function self(
  calls: unknown,
  device: Device,
  { quick = false }: BenchFlags,
  signal: AbortSignal,
): Promise<Pick<Outcome, 'result' | 'text'>> {
  const meter = await meterOverhead(device, { seconds: quick ? 5 : 15, signal });
  return { result: { calls, meter }, text: `${isRows(calls) ? rowTable(calls) : ''}\n${overheadText(meter)}\n` };
}

/** What can be known about a script before a device is opened. */
function refuseScript(script: string, flags: BenchFlags): void {
  for (const name of notOfScripts)
    if (flags[name] !== undefined)
      throw new UsageError(`bench: --${name} is given with a script, which chooses that itself, expected without one`);
  const found = statSync(script, { throwIfNoEntry: false });
  if (!found?.isFile())
    throw new UsageError(`bench: script is ${script}, ${found ? 'a folder' : 'which is not there'}, expected a file`);
}

async function runCases(
  cases: readonly BenchCase[],
  devices: readonly Device[],
  flags: BenchFlags,
  keep: (record: MeasureRecord) => void,
  notes: string[],
  line: ProgressLine,
  signal: AbortSignal,
): Promise<void> {
  const caches = flags.cache ? [flags.cache] : (['cold', 'hot'] as const);
  const total = devices.length * cases.length * caches.length;
  let done = 0;
  for (const device of devices) {
    for (const one of cases) {
      try {
        using bound = new BoundCase(one, device, flags.seed ?? 1);
        for (const cache of caches) {
          const name = one.model.name;
          const record = await measure(bound.plan, {
            name,
            cache,
            // Tables show two digits; the library's own default goes further.
            target: flags.quick ? 0.05 : 0.02,
            maxSeconds: flags.quick ? 0.5 : 1,
            quick: flags.quick ?? false,
            check: { seconds: flags.quick ? 0.2 : 0.5 },
            energy: flags.energy ?? true,
            signal,
            onProgress: (p) => line.update(`${device.name} ${name}, ${cache}, ${p.phase}`, (done + p.done) / total),
          });
          keep(record);
          done++;
        }
      } catch (error) {
        if (signal.aborted || !(error instanceof KernwattError) || !skippable.has(error.code)) throw error;
        notes.push(`skipped ${one.model.name} on ${device.name}: ${error.message}`);
        done = Math.ceil(done / caches.length + 1e-9) * caches.length;
      }
    }
  }
}

/** What a script's default export is called with. Records of its measure() and compare() are printed and written like any other. */
export interface ScriptContext {
  device: Device;
  measure: typeof measure;
  compare: typeof compare;
  signal: AbortSignal;
}

async function runScript(
  path: string,
  device: Device,
  flags: BenchFlags,
  keep: (record: MeasureRecord) => void,
  signal: AbortSignal,
): Promise<unknown> {
  const defaults = { signal, quick: flags.quick ?? false, energy: flags.energy ?? true };
  const context: ScriptContext = {
    device,
    signal,
    measure: async (what, options) => {
      const record = await measure(what, { ...defaults, ...options });
      keep(record);
      return record;
    },
    compare: async (cases, options) => {
      const result = await compare(cases, { ...defaults, ...options });
      for (const record of Object.values(result.records)) keep(record);
      return result;
    },
  };
  let script: { default?: unknown };
  try {
    script = (await import(pathToFileURL(resolve(path)).href)) as typeof script;
  } catch (error) {
    throw new ScriptError(path, 'cannot be loaded', error);
  }
  if (typeof script.default !== 'function')
    throw new UsageError(
      `bench: the default export of ${path} is ${inspect(script.default)}, expected a function: ` +
        'export default async ({ device, measure, compare, signal }) => { ... }',
    );
  try {
    return await script.default(context);
  } catch (error) {
    if (signal.aborted) throw error;
    throw new ScriptError(path, 'failed', error);
  }
}

function print({ records, notes, result, text }: Outcome, flags: BenchFlags): void {
  if (flags.json) {
    const report = { schema: 'kernwatt.bench/0', notes, records, ...(result === undefined ? {} : { result }) };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
    return;
  }
  if (text !== undefined) process.stdout.write(text);
  else if (records.length > 0) process.stdout.write(`${benchReport(records)}\n`);
  if (text === undefined && result !== undefined)
    process.stdout.write(`${isRows(result) ? rowTable(result) : inspect(result)}\n`);
  for (const note of notes) process.stdout.write(`${note}\n`);
}

const isRows = (result: unknown): result is Record<string, unknown>[] =>
  Array.isArray(result) && result.length > 0 && result.every((row) => typeof row === 'object' && row !== null);

/** Rows that a script returned: one column for each field of the first; numbers to the right. */
function rowTable(rows: readonly Record<string, unknown>[]): string {
  const names = Object.keys(rows[0] ?? {});
  const columns = names.map(
    (head) => ({ head, align: typeof rows[0]![head] === 'number' ? 'right' : 'left' }) as const,
  );
  return table(
    columns,
    rows.map((row) => names.map((name) => String(row[name] ?? ''))),
  );
}
