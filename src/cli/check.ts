// `kernwatt check`: every case of the operators against their definition, with a line that repeats each failure.
import { type CheckOutcome, checkOp } from '../check.js';
import type { Operator } from '../op.js';
import { type DeviceName, openDevice } from '../open.js';
import type { Backend } from '../plan.js';
import { operators } from './ops.js';
import { progressLine } from './progress.js';
import { exit, pick, UsageError } from './usage.js';

export interface CheckFlags {
  backend?: 'cpu' | 'ref' | 'cuda' | 'emu';
  device?: string;
  case?: string;
  seed?: number;
  fuzz?: number;
  threads?: number;
  isa?: string;
  json?: boolean;
}

/** Operators named on the command line, all without names. */
const pickOperators = (names: readonly string[]): readonly Operator[] =>
  names.length === 0 ? operators : names.map((name) => pick('operator', name, operators, ({ spec }) => spec.name));

/** How many cases will run, for the progress line. */
const count = (op: Operator, { fuzz, case: name }: CheckFlags): number => fuzz ?? (name ? 1 : op.spec.cases().length);

export async function check(names: string[], flags: CheckFlags): Promise<number> {
  const chosen = pickOperators(names);
  if (flags.case !== undefined && flags.fuzz !== undefined)
    throw new UsageError('check: --case and --fuzz exclude each other: random cases have a seed, not a name');
  const withCase = (op: Operator) => op.spec.cases().some(({ name }) => name === flags.case);
  if (flags.case !== undefined && !chosen.some(withCase)) {
    const all = chosen.flatMap((op) => op.spec.cases().map(({ name }) => ({ name })));
    pick('case', flags.case, all, ({ name }) => name);
  }
  const usual = { cpu: 'cpu', ref: 'cpu', cuda: 'cuda', emu: 'emu' } as const;
  const name = (flags.device ?? usual[flags.backend ?? 'cpu']) as DeviceName;
  const backend: Backend | undefined = flags.backend === 'emu' ? 'cuda' : flags.backend;
  const { threads, isa } = flags;
  const device = await openDevice(name, { ...(threads && { threads }), ...(isa && { isa }) });
  const reference = device.kind === 'cpu' ? device : await openDevice('cpu');
  const line = progressLine(process.stderr, flags.json);
  const outcomes: CheckOutcome[] = [];
  const total = chosen.reduce((sum, op) => sum + count(op, flags), 0);
  try {
    for (const op of chosen) {
      if (flags.case !== undefined && !withCase(op)) continue;
      const options = {
        device,
        reference,
        ...(backend && { backend }),
        ...(flags.seed !== undefined && { seed: flags.seed }),
        ...(flags.fuzz !== undefined && { fuzz: flags.fuzz }),
        ...(flags.case !== undefined && { only: (c: { name: string }) => c.name === flags.case }),
      };
      for await (const outcome of checkOp(op, options)) {
        outcomes.push(outcome);
        line.update(`${op.spec.name}: ${outcome.case.name}`, outcomes.length / total);
        if (outcome.state !== 'failed' || flags.json) continue;
        line.stop();
        process.stdout.write(describe(outcome));
      }
    }
  } finally {
    line.stop();
    await device.close();
    if (reference !== device) await reference.close();
  }
  const tally = (state: CheckOutcome['state']) => outcomes.filter((outcome) => outcome.state === state).length;
  const [passed, failed, skipped] = [tally('passed'), tally('failed'), tally('declined')];
  if (flags.json) {
    const report = { schema: 'kernwatt.check/0', device: device.name, passed, failed, skipped, outcomes };
    process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
  } else {
    process.stdout.write(skips(outcomes));
    process.stdout.write(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`);
  }
  // A run that checked nothing must not look like one in which everything was right.
  return failed > 0 || passed === 0 ? exit.failed : exit.ok;
}

const describe = ({ op, case: { name }, reasons, repro }: CheckOutcome): string =>
  `FAILED ${op} "${name}"\n${reasons.map((reason) => `  ${reason}\n`).join('')}  again: ${repro}\n`;

/** Why cases were declined, each reason once. */
function skips(outcomes: readonly CheckOutcome[]): string {
  const counts = new Map<string, number>();
  for (const { state, op, reasons } of outcomes)
    if (state === 'declined')
      counts.set(`${op}: ${reasons.join('; ')}`, (counts.get(`${op}: ${reasons.join('; ')}`) ?? 0) + 1);
  return [...counts].map(([reason, times]) => `skipped ${times}: ${reason}\n`).join('');
}
