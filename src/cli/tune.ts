// `kernwatt tune`: measures every configuration of the operators for shapes of served models, or one shape, and keeps what is faster.
import { dirname } from 'node:path';
import { KernwattError } from '../errors.js';
import { sizes, types } from '../report/describe.js';
import { digits, si } from '../report/format.js';
import { table } from '../report/table.js';
import type { Tuning } from '../tune/tune.js';
import { BoundCase, chooseCases, type Selection } from './cases.js';
import { type DeviceFlags, openDevices } from './devices.js';
import { progressLine } from './progress.js';
import { skippable } from './suite.js';
import { exit } from './usage.js';

export interface TuneFlags extends DeviceFlags, Selection {
  seed?: number;
  quick?: boolean;
  folder?: string;
  json?: boolean;
}

/** One problem as it was tuned, `case` being the name of its shape. */
interface Tuned extends Tuning {
  device: string;
  case: string;
  shape: Record<string, number>;
  dtype: Record<string, string>;
}

export async function tune(names: string[], flags: TuneFlags): Promise<number> {
  const cases = chooseCases('tune', names, flags);
  const { devices, notes } = await openDevices('tune', flags);
  const interrupt = new AbortController();
  const stop = () => interrupt.abort(new Error('interrupted'));
  process.once('SIGINT', stop);
  const line = progressLine(process.stderr, flags.json);
  const results: Tuned[] = [];
  let done = 0;
  try {
    for (const device of devices) {
      for (const one of cases) {
        const { name } = one.model;
        try {
          using bound = new BoundCase(one, device, flags.seed ?? 1);
          const { args, params, dims } = bound.plan;
          const tuning = await one.op.tune(
            { ...args, ...params },
            {
              quick: flags.quick ?? false,
              seed: flags.seed ?? 1,
              signal: interrupt.signal,
              ...(flags.folder === undefined ? {} : { folder: flags.folder }),
              onProgress: ({ phase, done: part }) =>
                line.update(
                  `${device.name} ${name}, ${phase}`,
                  (done + (phase === 'decide' ? 1 + part : part) / 2) / (devices.length * cases.length),
                ),
            },
          );
          const dtype = Object.fromEntries(Object.entries(args).map(([key, tensor]) => [key, tensor.dtype]));
          results.push({ device: device.name, case: name, shape: { ...dims }, dtype, ...tuning });
        } catch (error) {
          if (interrupt.signal.aborted || !(error instanceof KernwattError) || !skippable.has(error.code)) throw error;
          notes.push(`skipped ${name} on ${device.name}: ${error.message}`);
        }
        done++;
      }
    }
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    notes.push('interrupted: what had been measured until then is above, and kept');
  } finally {
    line.stop();
    process.off('SIGINT', stop);
    for (const device of devices) await device.close();
  }
  process.stdout.write(
    flags.json
      ? `${JSON.stringify({ schema: 'kernwatt.tune/0', notes, results }, null, 2)}\n`
      : [...text(results), ...notes].map((part) => `${part}\n`).join(''),
  );
  if (interrupt.signal.aborted) return exit.interrupted;
  return wrong(results).length > 0 ? exit.failed : exit.ok;
}

/** Configurations that did not compute what they should, or threw. */
const wrong = (results: readonly Tuned[]): string[] =>
  results.flatMap((result) =>
    result.candidates.flatMap(({ configuration, failed }) =>
      failed === null ? [] : [`FAILED ${result.case} on ${result.device} as ${configuration}: ${failed}`],
    ),
  );

function text(results: readonly Tuned[]): string[] {
  if (results.length === 0) return [];
  const left = (head: string) => ({ head });
  const right = (head: string) => ({ head, align: 'right' }) as const;
  const rows = results.map((result) => {
    const { candidates, chosen, configuration, speedup } = result;
    const own = candidates.find((one) => one.configuration === chosen)?.seconds ?? null;
    const record = { case: result };
    return [
      result.case,
      sizes(record),
      types(record),
      result.device,
      String(Math.max(candidates.length, 1)),
      chosen,
      own === null ? '' : si(own, 's'),
      configuration === chosen ? '' : configuration,
      ...(speedup
        ? [`${digits(speedup.value)}x`, speedup.ci95.map((end) => `${digits(end)}x`).join(' to ')]
        : ['', '']),
    ];
  });
  const columns = [
    left('case'),
    left('shape'),
    left('type'),
    left('device'),
    right('ways'),
    left("the backend's own"),
    right('median'),
    left('faster'),
    right('speedup'),
    left('95 % CI'),
  ];
  const folders = new Set(results.flatMap(({ file }) => (file === null ? [] : [dirname(file)])));
  return [
    table(columns, rows).trimEnd(),
    '',
    ...wrong(results),
    ...[...folders].map((folder) => `kept in ${folder}: openDevice(name, { tuned: true or the folder }) uses it`),
    ...new Set(results.flatMap((result) => result.notes)),
  ];
}
