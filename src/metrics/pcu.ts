// PCU, "peak compute utilization": (1/T) * integral over T of util(t) / util_peak dt   (EfficientLLM eq. 2).
// A mean, not a peak; the paper's code averages NVML's utilization.gpu, the share of time in which any kernel was resident,
// which is 1 for a single busy multiprocessor. Here: that share, and beside it achieved over peak with the peak named.
import type { Quantity } from '../measure/quantity.js';

export interface Pcu {
  paper: { PCU: Quantity };
  honest: { ofPeakFlops: Quantity; ofPeakBandwidth: Quantity };
}

export const pcu = (busyShare: Quantity, ofPeakFlops: Quantity, ofPeakBandwidth: Quantity): Pcu => ({
  paper: { PCU: busyShare },
  honest: { ofPeakFlops, ofPeakBandwidth },
});
