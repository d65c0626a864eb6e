// What GPUs say of themselves at this moment, for whoever shows it: every reading that there is, and why the others are not.
import { KernwattError } from '../errors.js';
import { NvmlError } from '../nvml/errors.js';
import {
  type ClockEvent,
  type Gpu,
  type GpuMemory,
  type GpuThrottle,
  type GpuUtilisation,
  openNvml,
} from '../nvml/index.js';

/** Readings of a GPU, SI units; each is there or missing by itself. */
export interface GpuReadings {
  /** Watts of the board at this moment, and over the last second. */
  instantPower: number;
  averagePower: number;
  /** Watts of the memory, over the last second; part of the board's. */
  memoryPower: number;
  powerLimit: number;
  /** Hertz. */
  smClock: number;
  memoryClock: number;
  memory: GpuMemory;
  utilisation: GpuUtilisation;
  temperature: number;
  memoryTemperature: number;
  throttle: GpuThrottle;
  clockEvents: ClockEvent[];
}

export interface GpuState {
  /** As meters name it: `gpu:0`, by the driver's index; a MIG device by its UUID, as meters know the whole GPU alone. */
  domain: string;
  name: string | null;
  uuid: string | null;
  address: string | null;
  readings: Partial<GpuReadings>;
  /** Why a reading is not there. */
  missing: Partial<Record<keyof GpuReadings, string>>;
}

const queries: { [K in keyof GpuReadings]: (gpu: Gpu) => Promise<GpuReadings[K]> } = {
  instantPower: (gpu) => gpu.instantPower(),
  averagePower: (gpu) => gpu.power(),
  memoryPower: (gpu) => gpu.averagePower('memory'),
  powerLimit: (gpu) => gpu.powerLimit(),
  smClock: (gpu) => gpu.clock('sm'),
  memoryClock: (gpu) => gpu.clock('memory'),
  memory: (gpu) => gpu.memory(),
  utilisation: (gpu) => gpu.utilisation(),
  temperature: (gpu) => gpu.temperature(),
  memoryTemperature: (gpu) => gpu.memoryTemperature(),
  throttle: (gpu) => gpu.throttle(),
  clockEvents: (gpu) => gpu.clockEvents(),
};
const names = Object.keys(queries) as (keyof GpuReadings)[];

async function stateOf(gpu: Gpu): Promise<GpuState> {
  const { index, name, uuid, address } = gpu;
  const domain = index === null ? (uuid ?? 'gpu') : `gpu:${index}`;
  const state: GpuState = { domain, name, uuid, address, readings: {}, missing: {} };
  const ask = async (reading: keyof GpuReadings) => {
    try {
      Object.assign(state.readings, { [reading]: await queries[reading](gpu) });
    } catch (error) {
      if (!(error instanceof NvmlError)) throw error;
      state.missing[reading] = `${error.state} (${error.detail})`;
    }
  };
  await Promise.all(names.map(ask));
  return state;
}

/** The GPUs of this machine, or why there are none. */
export type GpusFound = { gpus: Gpu[]; refused: string[] } | { reason: string };

/** @param which one GPU, as `openMeter` takes it; all where it is undefined. Never rejects because there is none. */
export async function findGpus(which?: string | number): Promise<GpusFound> {
  try {
    const nvml = await openNvml();
    const index = /^\d+$/.test(String(which)) ? Number(which) : which;
    if (index !== undefined) return { gpus: [await nvml.device(index)], refused: [] };
    const refused = (await nvml.refused()).map(({ index, reason }) => `gpu:${index}: ${reason}`);
    return { gpus: await nvml.devices(), refused };
  } catch (error) {
    // Or the addon does not load.
    if (!(error instanceof KernwattError)) throw error;
    return { reason: error.message };
  }
}

/** Readings of all at once; a GPU that is lost has none, with the reason for each. */
export const readGpus = (gpus: readonly Gpu[]): Promise<GpuState[]> => Promise.all(gpus.map(stateOf));
