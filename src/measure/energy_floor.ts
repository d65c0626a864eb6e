// The energy roofline: the least energy that work can take on a device whose costs per operation, per byte and per second are
// calibrated,   E_floor = W * joulesPerFlop + Q * joulesPerByte + constantW * max(W / peak FLOP/s, Q / peak B/s).
import { derived, known, missing, type Quantity } from './quantity.js';
import type { WorkRecord } from './record.js';

/** What a calibration of a device found by least squares; each with its interval. */
export interface EnergyCalibration {
  joulesPerFlop: Quantity;
  joulesPerByte: Quantity;
  /** Drawn as long as the device is busy, whatever it does. */
  constantW: Quantity;
  /** Which calibration, of when. */
  source: string;
}

/** Joules of the floor; `floorSeconds` is the shortest time that the peaks allow. Null: the device is not calibrated. */
export function energyFloor(
  { flops, minBytes }: WorkRecord,
  floorSeconds: number,
  calibration: EnergyCalibration | null,
): Quantity {
  if (calibration === null)
    return missing('J', 'the energy of this device has not been calibrated; kernwatt calibrate does that');
  const { joulesPerFlop, joulesPerByte, constantW, source } = calibration;
  if (flops === null || minBytes === null) return missing('J', 'the work of this case is not known');
  const terms = [
    derived(joulesPerFlop, 'J', 'operations', (joules) => joules * flops),
    derived(joulesPerByte, 'J', 'bytes', (joules) => joules * minBytes),
    derived(constantW, 'J', 'time', (watts) => watts * floorSeconds),
  ];
  let [value, low, high, whole] = [0, 0, 0, true];
  for (const term of terms) {
    if (term.value === null) return term;
    value += term.value;
    // The three come from one fit, so their errors may all point the same way.
    low += term.ci95?.[0] ?? 0;
    high += term.ci95?.[1] ?? 0;
    whole &&= term.ci95 !== undefined;
  }
  return known(value, 'J', `operations, bytes and busy time at the costs of ${source}`, whole ? [low, high] : null);
}

/** The share of the floor in what a call took. */
export function energyEfficiency(floor: Quantity, perCallJ: Quantity): Quantity {
  if (floor.value === null) return { ...floor, unit: '1' };
  const least = floor.value;
  return derived(perCallJ, '1', 'least energy by calibration over energy per call', (joules) => least / joules);
}
