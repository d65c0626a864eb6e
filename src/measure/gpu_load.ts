// What NVML says of the metered GPU while energy windows run: how busy it was, and its SM clock.
import { rangeOf, readingsWithin } from '../energy/fit.js';
import type { Stretch } from '../energy/recording.js';
import type { DomainRecording } from '../meter/meter.js';
import { known, type MissingState, missing, type Quantity } from './quantity.js';

export interface GpuLoad {
  /** The mean of utilization.gpu over 100. */
  busyShare: Quantity;
  smClockHz: Quantity;
}

/** The longest time that one reading of utilization.gpu covers, seconds. */
const busySpan = 1;

const busyBasis =
  'share of time in which any kernel of any process ran, 1 for a single busy multiprocessor, by utilization.gpu of NVML';

export const noGpuLoad = (reason: string, state?: MissingState): GpuLoad => ({
  busyShare: missing('1', reason, state),
  smClockHz: missing('Hz', reason, state),
});

/** `settledSeconds`: for how long at least the load had run when a window began. */
export function gpuLoad(
  { data, scope }: Pick<DomainRecording, 'data' | 'scope'>,
  windows: readonly Stretch[],
  settledSeconds: number,
): GpuLoad {
  const over = (
    column: 'clockHz' | 'busyShare',
    unit: string,
    stretches: readonly Stretch[],
    basis: (min: number, max: number) => string,
  ): Quantity => {
    const seen = data[column] ? readingsWithin(data[column], stretches).filter(Number.isFinite) : [];
    const count = `in ${windows.length} energy window${windows.length === 1 ? '' : 's'}`;
    if (seen.length === 0) {
      const { reason = `no reading ${count} covers load alone`, state } = data.refused?.[column] ?? {};
      return missing(unit, reason, state);
    }
    const { min, mean, max } = rangeOf(seen);
    return known(mean, unit, `${basis(min, max)}: mean of ${seen.length} readings ${count}`);
  };
  // Only readings whose whole span lies under load.
  const late = windows.map(({ begin, end }) => ({ begin: begin + Math.max(0, busySpan - settledSeconds), end }));
  return {
    busyShare: scope.mig
      ? missing('1', 'NVML has a busy share of whole GPUs alone, and this one is divided (MIG)', 'unsupported')
      : over('busyShare', '1', late, () => busyBasis),
    smClockHz: over('clockHz', 'Hz', windows, (min, max) => `SM clock by NVML, ${min / 1e6} to ${max / 1e6} MHz`),
  };
}
