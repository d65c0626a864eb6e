// What the driver says about the GPU that was measured, for `env.gpu` of records. Each part by itself: what this driver, GPU or user
// cannot know is null, and nothing here fails a measurement.
import { createHash } from 'node:crypto';
import type { Device } from '../device.js';
import { openNvml } from '../nvml/open.js';
import type { GpuFacts } from './environment.js';

async function orNull<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch {
    return null;
  }
}

/** The GPU behind a device; null for anything but a CUDA device. */
export const gpuFacts = async (device: Device | null): Promise<GpuFacts | null> =>
  device?.kind === 'cuda' && device.info.pci !== null ? factsOf(device.info.pci, true) : null;

/** The GPU at a PCI address. `own`: this process works on it, so that one of its processes is this one. */
export async function factsOf(pci: string, own: boolean): Promise<GpuFacts | null> {
  const nvml = await orNull(openNvml());
  const gpu = nvml && (await orNull(nvml.device(pci)));
  if (!nvml || !gpu) return null;
  const [driver, version, vbios, enforced, limits, sm, memory, ecc, mig, persistence, processes] = await Promise.all([
    orNull(nvml.driverVersion()),
    orNull(nvml.nvmlVersion()),
    orNull(gpu.vbios()),
    orNull(gpu.powerLimit()),
    orNull(gpu.powerLimits()),
    orNull(gpu.maxClock('sm')),
    orNull(gpu.maxClock('memory')),
    orNull(gpu.ecc()),
    orNull(gpu.migMode()),
    orNull(gpu.persistence()),
    orNull(gpu.processes()),
  ]);
  return {
    pci: gpu.address,
    uuidHash: gpu.uuid === null ? null : createHash('sha256').update(gpu.uuid).digest('hex').slice(0, 16),
    vbios,
    driver,
    nvml: version,
    powerLimitW: {
      enforced,
      default: limits?.default ?? null,
      min: limits?.min ?? null,
      max: limits?.max ?? null,
    },
    maxClockHz: { sm, memory },
    ecc: ecc?.current ?? null,
    mig: mig?.current ?? null,
    persistence,
    otherProcesses: processes && Math.max(0, processes.length - Number(own)),
  };
}
