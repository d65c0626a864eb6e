// The devices that a command measures on.
import type { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import { openDevice } from '../open.js';
import { UsageError } from './usage.js';

export interface DeviceFlags {
  backend: 'auto' | 'cpu' | 'cuda' | 'emu';
  threads?: number;
}

/** Devices to measure on, and one line for each that was wanted and is not there. */
export async function openDevices(
  command: string,
  { backend, threads }: DeviceFlags,
): Promise<{ devices: Device[]; notes: string[] }> {
  if (backend === 'emu')
    throw new UsageError(
      `${command}: --backend is emu, expected auto, cpu or cuda: emulated kernels are right or wrong, never fast`,
    );
  const devices: Device[] = [];
  if (backend !== 'cuda') devices.push(await openDevice('cpu', threads === undefined ? {} : { threads }));
  if (backend === 'cpu') return { devices, notes: [] };
  try {
    devices.push(await openDevice('cuda'));
    return { devices, notes: [] };
  } catch (error) {
    if (backend === 'cuda' || !(error instanceof KernwattError)) throw error;
    return { devices, notes: [`no CUDA rows: ${error.message} (see kernwatt doctor)`] };
  }
}
