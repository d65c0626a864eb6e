// What NVML answers of each GPU, for `doctor`: all of it as JSON, what matters on a line.
import { type Capability, probe } from '../nvml/capabilities.js';
import { openNvml } from '../nvml/open.js';
import type { GpuIdentity } from '../nvml/types.js';

export interface GpuReport extends GpuIdentity {
  capabilities: Capability[];
}

/** None where NVML does not open: the energy source `nvml` says why. */
export async function probeGpus(): Promise<GpuReport[]> {
  const gpus = await openNvml()
    .then((nvml) => nvml.devices())
    .catch(() => []);
  return Promise.all(gpus.map(async (gpu) => ({ ...gpu, capabilities: await probe(gpu) })));
}

/** `clock (4)` for four capabilities whose names begin so. */
function grouped(names: readonly string[]): string {
  const groups = new Map<string, string[]>();
  for (const name of names) {
    const [first] = name.split(' ') as [string];
    groups.set(first, [...(groups.get(first) ?? []), name]);
  }
  return [...groups].map(([first, list]) => (list.length > 1 ? `${first} (${list.length})` : list[0]!)).join(', ');
}

/** That a GPU has not all that NVML can ask is usual, so that is counted; the other states are named. */
export function describeGpu({ name, address, capabilities }: GpuReport): string {
  const having = (state: Capability['state']) => capabilities.filter((one) => one.state === state);
  const lines = [
    `${name ?? 'a GPU'}, ${address ?? 'no PCI address'}: ${having('ok').length} of ${capabilities.length} queries answer, ` +
      `${having('unsupported').length} unsupported (--json names them)`,
  ];
  for (const state of ['denied', 'zero-stuck', 'missing', 'unavailable', 'lost'] as const) {
    const found = having(state);
    if (found.length === 0) continue;
    const fixes = [...new Set(found.map(({ fix }) => fix).filter((fix) => fix !== null))];
    lines.push(
      `  ${state}: ${grouped(found.map((one) => one.name))}${fixes.length > 0 ? `; fix: ${fixes.join('; ')}` : ''}`,
    );
  }
  return lines.join('\n');
}
