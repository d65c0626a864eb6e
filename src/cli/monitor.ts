// `kernwatt monitor`: power, energy, clocks, memory, utilisation, temperature and throttling of GPUs and CPU packages while they work. On a
// terminal one table that is drawn anew in place, else one line for each interval, or with --json one object.
import { setTimeout as wait } from 'node:timers/promises';
import { gpuNames, isGpu } from '../meter/meter.js';
import { Watch, type Watched, type WatchedDomain } from '../meter/watch.js';
import { bytes, duration, percent, si } from '../report/format.js';
import { table } from '../report/table.js';
import { exit, UsageError } from './usage.js';

export interface MonitorFlags {
  interval: number;
  count?: number;
  gpu?: string;
  json?: boolean;
  sysfs: string;
}

const known = <T>(value: T | null, show: (value: T) => string): string => (value === null ? '-' : show(value));
const celsius = (value: number): string => `${value.toFixed(0)} °C`;
/** `12.3 GiB`, of a whole that is said once. */
const share = (used: number | null, total: number | null): string =>
  used === null ? '-' : total === null ? bytes(used) : `${bytes(used)} of ${bytes(total)}`;
const hot = ({ temperature, memoryTemperature }: WatchedDomain): string =>
  memoryTemperature === null
    ? known(temperature, celsius)
    : `${known(temperature, celsius)}, memory ${celsius(memoryTemperature)}`;
/** `powerCap` -> `power cap`. */
const words = (name: string): string => name.replaceAll(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
const wholePercent = (value: number): string => `${(100 * value).toFixed(0)} %`;

/** `power cap 43 %`; nothing where nothing was held down, `-` where that is not known. */
const held = ({ throttled }: WatchedDomain): string =>
  known(throttled, (reasons) =>
    Object.entries(reasons)
      .filter(([, value]) => value > 0)
      .map(([reason, value]) => `${words(reason)} ${percent(Number(value.toPrecision(2)))}`)
      .join(', '),
  );

/** The table of a terminal, and below it what cannot be read. */
export function frame({ seconds, domains, memory, unreadable }: Watched, title: string): string {
  const rows = domains.map((one) => [
    one.domain,
    known(one.power, (watts) => si(watts, 'W')),
    known(one.energy, (joules) => si(joules, 'J')),
    known(one.clock, (hertz) => si(hertz, 'Hz')),
    known(one.memoryClock, (hertz) => si(hertz, 'Hz')),
    share(one.usedBytes, one.totalBytes),
    known(one.utilisation, wholePercent),
    hot(one),
    held(one),
  ]);
  const right = (head: string) => ({ head, align: 'right' as const });
  const columns = [
    { head: '' },
    ...['power', 'energy', 'clock', 'memory clock', 'memory', 'busy', 'temperature'].map(right),
    { head: 'throttled' },
  ];
  const machine = memory === null ? '' : `; machine memory ${share(memory.usedBytes, memory.totalBytes)}`;
  const notes = unreadable.map(
    ({ domain, state, reason, fix }) => `${domain} energy is ${state}: ${reason}${fix ? `; fix: ${fix}` : ''}\n`,
  );
  const missing = domains.flatMap(({ domain, missing }) =>
    missing.energy === undefined ? [] : [`${domain} energy is missing: ${missing.energy}\n`],
  );
  return `${title}, ${duration(seconds)} so far${machine}\n\n${table(columns, rows)}\n${[...missing, ...notes].join('')}`;
}

/** One reading on one line. */
export function line({ domains }: Watched, time: Date): string {
  const parts = domains.map((one) =>
    [
      one.domain,
      known(one.power, (watts) => si(watts, 'W')),
      known(one.energy, (joules) => si(joules, 'J')),
      known(one.clock, (hertz) => si(hertz, 'Hz')),
      ...(one.usedBytes === null ? [] : [bytes(one.usedBytes)]),
      `busy ${known(one.utilisation, wholePercent)}`,
      known(one.temperature, celsius),
      held(one),
    ]
      .filter((text) => text !== '' && text !== '-')
      .join(' '),
  );
  return `${time.toISOString()}  ${parts.join(' | ')}\n`;
}

/**
 * The terminal's second screen, which leaves the first as it was. Lines are cut at its right edge instead of wrapped, so that a frame is as
 * many lines as it says; a library for this would bring a dozen packages for four escape sequences.
 */
class Screen {
  constructor(readonly stream: NodeJS.WriteStream) {
    stream.write('\x1b[?1049h\x1b[?25l\x1b[?7l');
  }

  draw(text: string): void {
    const lines = text.split('\n').slice(0, Math.max(this.stream.rows - 1, 1));
    this.stream.write(`\x1b[H${lines.map((one) => `${one}\x1b[K\n`).join('')}\x1b[J`);
  }

  leave(): void {
    this.stream.write('\x1b[?7h\x1b[?25h\x1b[?1049l');
  }
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export async function monitor(flags: MonitorFlags): Promise<number> {
  if (flags.gpu !== undefined && !isGpu(flags.gpu))
    throw new UsageError(`monitor: --gpu is ${flags.gpu}, expected ${gpuNames}`);
  const stop = new AbortController();
  const end = () => stop.abort();
  for (const signal of signals) process.on(signal, end);
  // Whoever reads a pipe may have had enough.
  process.stdout.on('error', end);
  const watch = await Watch.open(flags.sysfs, flags.gpu);
  try {
    return watch.anything ? await follow(watch, flags, stop.signal) : refuse(watch);
  } finally {
    for (const signal of signals) process.off(signal, end);
    await watch.close();
  }
}

function refuse({ troubles }: Watch): number {
  process.stderr.write('kernwatt monitor: no GPU and no energy counter can be read\n');
  for (const { domain, state, reason, fix } of troubles)
    process.stderr.write(`${domain} is ${state}: ${reason}${fix ? `; fix: ${fix}` : ''}\n`);
  return exit.usage;
}

async function follow(watch: Watch, flags: MonitorFlags, signal: AbortSignal): Promise<number> {
  const screen = process.stdout.isTTY && !flags.json ? new Screen(process.stdout) : null;
  let last = '';
  try {
    const begin = performance.now();
    for (let i = 1; i <= (flags.count ?? Number.POSITIVE_INFINITY); i++) {
      // By the start, so that what a reading takes does not add up.
      await wait(begin + i * flags.interval - performance.now(), undefined, { signal }).catch(() => {});
      if (signal.aborted) break;
      last = show(await watch.read(), flags);
      if (screen) screen.draw(last);
      else process.stdout.write(last);
    }
  } finally {
    screen?.leave();
  }
  if (screen) process.stdout.write(last);
  return exit.ok;
}

function show(reading: Watched, { json, interval }: MonitorFlags): string {
  const now = new Date();
  if (json) return `${JSON.stringify({ schema: 'kernwatt.monitor/0', time: now.toISOString(), ...reading })}\n`;
  if (!process.stdout.isTTY) return line(reading, now);
  return frame(reading, `kernwatt monitor, every ${si(interval / 1000, 's')}`);
}
