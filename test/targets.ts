// Where operators can be tested on this machine, and what is missing for the rest.
import { existsSync } from 'node:fs';
import { ops } from '../src/index.js';
import { findLibrary, type LibraryKind, librarySearch } from '../src/library.js';
import { native } from '../src/native.js';
import type { DeviceName, OpenOptions } from '../src/open.js';
import type { Backend } from '../src/plan.js';

export interface Target {
  name: string;
  device: DeviceName;
  backend: Backend;
  options: OpenOptions;
}

export interface Missing {
  name: string;
  /** Why, and the line that enables it. */
  reason: string;
  /** Tests that did not run for it. */
  cases: number;
}

/** Emulated devices: sm_90, sm_80 and sm_89 with their shared memory. */
const emulated = ['emu:0', 'emu:1', 'emu:2'] as const;
const caseCount = () => Object.values(ops).reduce((sum, op) => sum + op.spec.cases().length, 0);

/** A library that is there but does not load is an error, not a reason to skip. */
const present = (kind: LibraryKind) => librarySearch(kind).some(({ path }) => existsSync(path));

export function targets(): { targets: Target[]; missing: Missing[] } {
  const found: Target[] = [{ name: 'ref', device: 'cpu', backend: 'ref', options: {} }];
  const missing: Missing[] = [];
  for (const isa of native().cpu().isa)
    found.push({ name: `cpu ${isa}`, device: 'cpu', backend: 'cpu', options: { isa } });

  const host = process.env.KERNWATT_TEST_HOST === '1';
  if (present('emu') && !host)
    for (const device of emulated) found.push({ name: device, device, backend: 'cuda', options: {} });
  else
    missing.push({
      name: emulated.join(', '),
      reason: host ? 'KERNWATT_TEST_HOST leaves it out' : 'build it with npm run build:cuda',
      cases: emulated.length * caseCount(),
    });

  const library = present('cuda') ? findLibrary('cuda') : undefined;
  if (library && library.deviceCount > 0)
    found.push({ name: 'cuda:0', device: 'cuda:0', backend: 'cuda', options: {} });
  else {
    const reason = library
      ? `no GPU: ${library.reason}`
      : 'build it with npm run build:cuda, on a machine with an NVIDIA GPU';
    missing.push({ name: 'cuda', reason, cases: caseCount() });
  }
  return { targets: found, missing };
}
