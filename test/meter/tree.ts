// Made-up sysfs trees in temporary folders.
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach } from 'vitest';

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

export function temporary(): string {
  const root = mkdtempSync(join(tmpdir(), 'kernwatt-'));
  roots.push(root);
  return root;
}

export function tree(files: Record<string, string>): string {
  const root = temporary();
  for (const [path, text] of Object.entries(files)) write(root, path, text);
  return root;
}

/** Whoever reads at the same time sees the old text or the new one, as from a sysfs. */
export function write(root: string, path: string, text: string): void {
  const file = join(root, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(`${file}.new`, text);
  renameSync(`${file}.new`, file);
}

/** Files of one powercap zone. */
export const zone = (id: string, name: string, microjoules: number | string = 1000, range = 262143328850) => ({
  [`class/powercap/${id}/name`]: `${name}\n`,
  [`class/powercap/${id}/energy_uj`]: `${microjoules}\n`,
  [`class/powercap/${id}/max_energy_range_uj`]: `${range}\n`,
});

/** Files of the perf PMU `power` whose events are the CPU clock, which every Linux has: it counts exactly 1 J a second. */
export function power(cpus: string, events: readonly string[] = ['energy-pkg']): Record<string, string> {
  const folder = 'bus/event_source/devices/power';
  return {
    [`${folder}/type`]: '1\n',
    [`${folder}/cpumask`]: `${cpus}\n`,
    ...Object.fromEntries(
      events.flatMap((event) => [
        [`${folder}/events/${event}`, 'event=0x00\n'],
        [`${folder}/events/${event}.scale`, '1e-9\n'],
        [`${folder}/events/${event}.unit`, 'Joules\n'],
      ]),
    ),
  };
}

/** Runs f without the rights of root, which reads any file. */
export function unprivileged<T>(f: () => T): T {
  if (process.geteuid!() !== 0) return f();
  process.seteuid!(65534);
  try {
    return f();
  } finally {
    process.seteuid!(0);
  }
}
