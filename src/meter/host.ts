// What Linux says of CPU packages at this moment: how busy, how fast, how hot, how long held down; and of the machine's memory. Energy is
// the meter's affair.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface PackageState {
  /** As meters name it: `package-0`. */
  domain: string;
  /** Share of the time since the reading before in which its cores did not idle; null at first. */
  utilisation: number | null;
  /** Mean of its cores, hertz. */
  clock: number | null;
  temperature: number | null;
  /** Seconds since boot in which heat held its clocks down. */
  throttled: number | null;
}

export interface HostState {
  packages: PackageState[];
  /** Of the whole machine; `usedBytes`: what is not available to programs without swapping. */
  memory: { usedBytes: number; totalBytes: number } | null;
}

interface Times {
  busy: number;
  all: number;
}

function text(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}

function number(path: string): number | null {
  const found = text(path);
  return found !== null && /^-?\d+$/.test(found) ? Number(found) : null;
}

function names(folder: string, pattern: RegExp): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => pattern.test(name))
      .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  } catch {
    return [];
  }
}

const scaled = (value: number | null, unit: number): number | null => (value === null ? null : value * unit);

function mean(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : known.reduce((a, b) => a + b, 0) / known.length;
}

export class HostReader {
  readonly #cpus: string;
  readonly #proc: string;
  /** CPUs by package. */
  readonly #packages = new Map<number, number[]>();
  /** Files of millidegrees, by package. */
  readonly #sensors: ReadonlyMap<number, string>;
  #before = new Map<number, Times>();

  constructor(sysfs = '/sys', proc = '/proc') {
    this.#cpus = join(sysfs, 'devices/system/cpu');
    this.#proc = proc;
    for (const name of names(this.#cpus, /^cpu\d+$/)) {
      const id = number(join(this.#cpus, name, 'topology/physical_package_id'));
      if (id === null || id < 0) continue;
      const cpus = this.#packages.get(id) ?? [];
      this.#packages.set(id, [...cpus, Number(name.slice(3))]);
    }
    this.#sensors = sensors(join(sysfs, 'class/hwmon'));
    this.#before = this.#times();
  }

  read(): HostState {
    const before = this.#before;
    const now = this.#times();
    this.#before = now;
    const packages = [...this.#packages].map(([id, cpus]): PackageState => {
      const sensor = this.#sensors.get(id);
      const throttle = `cpu${cpus[0]}/thermal_throttle/package_throttle_total_time_ms`;
      return {
        domain: `package-${id}`,
        utilisation: utilisation(cpus, before, now),
        clock: scaled(mean(cpus.map((cpu) => number(join(this.#cpus, `cpu${cpu}/cpufreq/scaling_cur_freq`)))), 1e3),
        temperature: sensor === undefined ? null : scaled(number(sensor), 1e-3),
        throttled: scaled(number(join(this.#cpus, throttle)), 1e-3),
      };
    });
    return { packages, memory: this.#memory() };
  }

  /** Ticks of each CPU since boot. */
  #times(): Map<number, Times> {
    const lines = (text(join(this.#proc, 'stat')) ?? '').matchAll(/^cpu(\d+) (.+)$/gm);
    return new Map(
      [...lines].map(([, cpu, rest]) => {
        // user nice system idle iowait irq softirq steal; what guests took is in user.
        const ticks = rest!.split(' ').slice(0, 8).map(Number);
        const all = ticks.reduce((a, b) => a + b, 0);
        return [Number(cpu), { all, busy: all - ticks[3]! - (ticks[4] ?? 0) }];
      }),
    );
  }

  #memory(): HostState['memory'] {
    const found = text(join(this.#proc, 'meminfo')) ?? '';
    const kibibytes = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(found)?.[1]);
    const [total, available] = [kibibytes('MemTotal'), kibibytes('MemAvailable')];
    return Number.isFinite(total - available)
      ? { usedBytes: 1024 * (total - available), totalBytes: 1024 * total }
      : null;
  }
}

function utilisation(cpus: readonly number[], before: Map<number, Times>, now: Map<number, Times>): number | null {
  const sum = { busy: 0, all: 0 };
  for (const cpu of cpus) {
    const [from, to] = [before.get(cpu), now.get(cpu)];
    if (!from || !to) continue;
    sum.busy += to.busy - from.busy;
    sum.all += to.all - from.all;
  }
  return sum.all > 0 ? Math.min(Math.max(sum.busy / sum.all, 0), 1) : null;
}

/** coretemp names the package; of k10temp, which does not, there is one for each, in their order. */
function sensors(folder: string): Map<number, string> {
  const found = new Map<number, string>();
  let next = 0;
  for (const hwmon of names(folder, /^hwmon\d+$/)) {
    const kind = text(join(folder, hwmon, 'name'));
    if (kind !== 'coretemp' && kind !== 'k10temp') continue;
    for (const file of names(join(folder, hwmon), /^temp\d+_label$/)) {
      const label = text(join(folder, hwmon, file)) ?? '';
      const input = join(folder, hwmon, file.replace('label', 'input'));
      const id = kind === 'coretemp' ? /^Package id (\d+)$/.exec(label)?.[1] : label === 'Tctl' ? next++ : undefined;
      if (id !== undefined) found.set(Number(id), input);
    }
  }
  return found;
}
