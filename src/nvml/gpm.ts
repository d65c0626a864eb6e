// Metrics of GPM: their ids and units, and samples as JavaScript holds them.
import type { GpmSampleHandle } from '../native.js';

/** Id of NVML, and what turns its percent or MiB/s into a share or bytes per second. */
const percent = (id: number) => ({ id, perUnit: 100 }) as const;
const mebibytes = (id: number) => ({ id, perUnit: 1 / 1048576 }) as const;

/** Shares of the time and of the multiprocessors between two samples; transfers in bytes per second. */
export const gpmMetrics = {
  graphicsUtilisation: percent(1),
  /** Multiprocessors with a resident warp: busy, though not how busy. */
  smUtilisation: percent(2),
  smOccupancy: percent(3),
  integerUtilisation: percent(4),
  tensorUtilisation: percent(5),
  /** Of tensor cores by kind of number: double precision two ways, half and integer. */
  dfmaUtilisation: percent(6),
  dmmaUtilisation: percent(8),
  hmmaUtilisation: percent(7),
  immaUtilisation: percent(9),
  /** Of the peak bandwidth of device memory. */
  dramUtilisation: percent(10),
  fp64Utilisation: percent(11),
  fp32Utilisation: percent(12),
  fp16Utilisation: percent(13),
  pcieTransmit: mebibytes(20),
  pcieReceive: mebibytes(21),
  nvlinkReceive: mebibytes(60),
  nvlinkTransmit: mebibytes(61),
} as const;
export type GpmMetric = keyof typeof gpmMetrics;
/** Null: this GPU or driver does not count it, or not between these samples. */
export type GpmReading<M extends GpmMetric = GpmMetric> = Record<M, number | null>;

/** Counters of one GPU at one moment; memory of the driver, which the garbage collector gives back. */
export class GpmSample {
  /** @internal */
  readonly handle: GpmSampleHandle;

  /** @internal Use `gpu.gpmSample()`. */
  constructor(handle: GpmSampleHandle) {
    this.handle = handle;
  }
}
