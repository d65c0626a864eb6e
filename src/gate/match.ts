// Which records of two files are about the same thing, and whether they come from the same kind of machine.
import type { MeasureRecord } from '../measure/record.js';
import { type FileRecord, type LineProblem, place } from '../records/read.js';

/** JSON with the keys of every object sorted, so that equal things are spelt equally. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, inner) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );

/** What was measured: name, operator, sizes, types, arguments and inputs, on which device. The kernel may differ: it is what changes. */
export const identity = ({ case: what, kernel, env }: MeasureRecord): string =>
  canonical([what, kernel?.device ?? env.device?.name ?? null]);

/** The identity, and the state of the cache, which one case may be measured in twice; null where the output was wrong. */
export const cacheOf = ({ time }: MeasureRecord): string | null => time?.cache ?? null;

/** What must be equal for two times to be of the same machine. Versions of drivers, Node and kernels may be what is compared. */
function machine({ env: { cpu, device, os } }: MeasureRecord): Record<string, string | number | null> {
  return {
    'cpu.model': cpu.model,
    'cpu.cores': cpu.cores,
    'os.platform': os.platform,
    'os.arch': os.arch,
    'device.product': device?.product ?? null,
    'device.isa': device?.isa ?? null,
    'device.threads': device?.threads ?? null,
    'device.computeCapability': device?.computeCapability ?? null,
  };
}

export interface Group {
  first: FileRecord;
  base: FileRecord[];
  news: FileRecord[];
}

/** Records of both files by what they are about, in the order of NEW; those of BASE alone last. Empty groups do not exist. */
export function groups(base: readonly FileRecord[], news: readonly FileRecord[]): Group[] {
  const found = new Map<string, Group>();
  for (const [side, records] of [
    ['news', news],
    ['base', base],
  ] as const)
    for (const one of records) {
      const key = `${identity(one.record)} ${cacheOf(one.record)}`;
      const group = found.get(key) ?? { first: one, base: [], news: [] };
      group[side].push(one);
      found.set(key, group);
    }
  return [...found.values()];
}

/** One sentence for each record of a group that was not measured on the machine of its first. */
export function strangers({ first, base, news }: Group): LineProblem[] {
  const expected = machine(first.record);
  return [...news, ...base].flatMap((one) => {
    const [name, value] = Object.entries(machine(one.record)).find(([key, value]) => value !== expected[key]) ?? [];
    if (name === undefined) return [];
    const reason = `${name} is ${value}, but ${expected[name]} in ${place(first)}; numbers of different machines cannot be compared`;
    return [{ file: one.file, line: one.line, reason }];
  });
}
