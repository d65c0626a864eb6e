// `kernwatt calibrate`: measured ceilings of a device and what an operation, a byte and a second cost in energy, kept for later runs.
import { type CalibrationResult, calibrate as calibrateDevice } from '../calibrate/calibrate.js';
import type { Quantity } from '../measure/quantity.js';
import { openDevice } from '../open.js';
import { percent, si } from '../report/format.js';
import { table } from '../report/table.js';
import { progressLine } from './progress.js';
import { exit } from './usage.js';

export interface CalibrateFlags {
  backend: 'auto' | 'cpu' | 'cuda';
  threads?: number;
  quick?: boolean;
  force?: boolean;
  json?: boolean;
}

export async function calibrate({ backend, threads, quick, force, json }: CalibrateFlags): Promise<number> {
  const interrupt = new AbortController();
  const stop = () => interrupt.abort(new Error('interrupted'));
  process.once('SIGINT', stop);
  const device = await openDevice(backend, threads === undefined ? {} : { threads });
  const line = progressLine(process.stderr, json);
  try {
    const result = await calibrateDevice(device, {
      quick: quick ?? false,
      force: force ?? false,
      signal: interrupt.signal,
      onProgress: ({ phase, name, done }) => line.update(`${device.name} ${phase}, ${name}`, done),
    });
    line.stop();
    process.stdout.write(
      json ? `${JSON.stringify({ schema: 'kernwatt.calibrate/1', ...result }, null, 2)}\n` : text(result),
    );
    return exit.ok;
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    process.stderr.write('interrupted: nothing was kept\n');
    return exit.interrupted;
  } finally {
    line.stop();
    process.off('SIGINT', stop);
    await device.close();
  }
}

function text({ calibration, cached, file, notes }: CalibrationResult): string {
  const { device, createdAt, id, peaks, missing, energy } = calibration;
  const ceilings = table(
    [{ head: 'ceiling' }, { head: 'value', align: 'right' }, { head: 'source' }],
    peaks.map(({ name, value, unit, source, provenance }) => [name, si(value, unit), `${source}: ${provenance}`]),
  );
  const costs: [string, Quantity][] = [
    ...Object.entries(energy.joulesPerFlop).map(([name, cost]): [string, Quantity] => [
      `an operation of ${name}`,
      cost,
    ]),
    ['a byte of memory', energy.joulesPerByte],
    ['a second', energy.constantW],
  ];
  const known = costs.some(([, cost]) => cost.value !== null);
  const reasons = [...new Set(costs.flatMap(([, cost]) => (cost.value === null ? [cost.reason] : [])))];
  const rows = costs.map(([name, cost]) => [
    name,
    cost.value === null ? 'n/a' : si(cost.value, cost.unit),
    cost.value === null ? cost.reason : cost.ci95 ? cost.ci95.map((end) => si(end, cost.unit)).join(' to ') : '',
  ]);
  const { fit } = energy;
  return [
    `${device.name}, ${device.product}: calibration ${id.slice(0, 8)} of ${createdAt}${cached ? ', as cached (--force renews it)' : ''}`,
    '',
    ceilings,
    ...missing.map(({ name, reason }) => `no ${name}: ${reason}`),
    '',
    ...(known
      ? [table([{ head: 'costs' }, { head: 'energy', align: 'right' }, { head: '95 % CI' }], rows)]
      : reasons.map((reason) => `no energy costs: ${reason}`)),
    ...(fit
      ? [
          `${fit.windows} windows of ${fit.loads} loads; power is ${percent(fit.residual ?? 0)} off the line${fit.misfit ? ', more than the windows scatter: the intervals include that' : ''}`,
        ]
      : []),
    ...energy.caveats,
    file === null ? 'kept nowhere' : `kept in ${file}`,
    ...notes,
  ]
    .join('\n')
    .concat('\n');
}
