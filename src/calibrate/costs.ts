// What measure() and compare() take from a calibration: the costs of the device at hand, from the cache, by what multiplies.
import { noteCeiling } from '../ceilings.js';
import type { Device } from '../device.js';
import type { EnergyCalibration } from '../measure/energy_floor.js';
import type { Peaks } from '../measure/peaks.js';
import { missing } from '../measure/quantity.js';
import { identify, readCalibration } from './cache.js';
import type { Calibration, Multiplier } from './calibration.js';

const read = new WeakMap<Device, Promise<Calibration | null>>();

/** The calibration of a device; asked of the disk once for each open device. */
function calibrationOf(device: Device): Promise<Calibration | null> {
  const before = read.get(device);
  if (before) return before;
  const found = identify(device).then((identity) => readCalibration(identity).calibration);
  read.set(device, found);
  return found;
}

/** A calibration made or read just now: what is measured and explained on this device from now on uses it. */
export function useCalibration(device: Device, calibration: Calibration): void {
  read.set(device, Promise.resolve(calibration));
  for (const peak of calibration.peaks) noteCeiling(device, peak.name, peak);
  for (const { name, reason } of calibration.missing) noteCeiling(device, name, missing('', reason));
}

/** Costs for work whose ceiling is `flops`; null where the device has not been calibrated. */
export async function costsFor(device: Device | null, { flops }: Peaks): Promise<EnergyCalibration | null> {
  if (device === null || device.info.emulated) return null;
  const calibration = await calibrationOf(device);
  if (calibration === null) return null;
  const { id, createdAt, energy } = calibration;
  const kind = 'provenance' in flops ? energy.joulesPerFlop[flops.name as Multiplier] : undefined;
  return {
    joulesPerFlop: kind ?? missing('J/FLOP', 'no ceiling says what multiplies here'),
    joulesPerByte: energy.joulesPerByte,
    constantW: energy.constantW,
    source: `calibration ${id.slice(0, 8)} of ${createdAt.slice(0, 10)} on this device`,
  };
}
