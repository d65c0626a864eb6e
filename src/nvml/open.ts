// Opening NVML, and what the driver as a whole can be asked.

import { KernwattError } from '../errors.js';
import { type NvmlOpened, native } from '../native.js';
import { NvmlError } from './errors.js';
import { Asker, type Gpu, type Promised, type RawGpu } from './gpu.js';
import type { Answering, Table } from './queries.js';
import type { RefusedGpu } from './types.js';

/** What the driver can be asked; throws and rejects as `GpuQueries`. */
export interface NvmlQueries {
  /** Of the kernel driver, for example `580.95.05`. */
  driverVersion(): string;
  nvmlVersion(): string;
  /** Newest version of CUDA that the driver runs, for example `13.0`. */
  cudaVersion(): string;
  /** Every GPU that the driver opens for this process, in NVML's order. */
  devices(): Gpu[];
  /** Those that it counts and does not open, each with its reason. */
  refused(): RefusedGpu[];
  /**
   * One GPU, by NVML's index, by UUID (`GPU-...`, `MIG-...`) or by PCI address (`0000:17:00.0`). CUDA's index is another: of a device of
   * kernwatt use `device.info.pci`.
   */
  device(which: number | string): Gpu;
}

/** NVML, opened. It stays open while the process lives, as energy counters start again once nobody uses the driver. */
export interface Nvml extends Promised<NvmlQueries> {
  /** The library, as the loader found it. */
  readonly path: string;
  /** The same queries on the calling thread, which they block. */
  readonly sync: NvmlQueries;
}

const refusing = (one: object): one is RefusedGpu => 'reason' in one;

const queries: Table<NvmlQueries> = {
  driverVersion: {},
  nvmlVersion: {},
  cudaVersion: {},
  devices: {
    result: (list: (RawGpu | RefusedGpu)[], { gpu }: Answering) => list.filter((one) => !refusing(one)).map(gpu),
  },
  refused: { query: 'devices', result: (list: (RawGpu | RefusedGpu)[]) => list.filter(refusing) },
  device: {
    args: (which) => {
      if (typeof which === 'string' || (Number.isInteger(which) && which >= 0 && which < 2 ** 32)) return [which];
      throw new KernwattError(
        'ARGUMENT',
        `device: which is ${String(which)}, expected an index, a UUID or a PCI address`,
      );
    },
    result: (raw: unknown, { gpu }: Answering) => gpu(raw),
  },
};

function opened(answer: NvmlOpened): Nvml {
  if (answer.state !== 'ok') throw new NvmlError('openNvml', answer);
  const { promised, sync } = new Asker(answer.library, null).methods<NvmlQueries>(queries);
  return { path: answer.path, sync, ...promised };
}

/** Tests name another library; empty means the driver's. */
const named = (): string => process.env.KERNWATT_NVML_LIBRARY ?? '';

/**
 * Opens the NVML of the driver on this machine, on a thread of ours; again it costs nothing.
 * @throws {NvmlError} `NVML` where it does not load or the driver does not answer, with what was tried and what to do; `LIBRARY` where
 *   the addon does not load.
 */
export async function openNvml(): Promise<Nvml> {
  return opened(await native().nvmlOpen(named(), false));
}

/** As `openNvml`, on the calling thread: the first time that may take a second. */
export function openNvmlSync(): Nvml {
  return opened(native().nvmlOpen(named(), true) as NvmlOpened);
}
