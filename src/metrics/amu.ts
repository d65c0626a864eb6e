// AMU, average memory utilisation: (1/T) * integral over T of memory(t) dt   (EfficientLLM eq. 1).
// The paper calls it utilisation and prints GB; its code divides bytes by 2^30. Here: that number, and beside it the exact
// bytes of the library's own allocator (integrated at every allocation, nothing sampled), the peak, and the share of capacity.
import { derived, missing, type Quantity } from '../measure/quantity.js';

export interface Amu {
  paper: { AMU: Quantity };
  honest: { averageBytes: Quantity; peakBytes: Quantity; shareOfCapacity: Quantity };
}

export function amu(averageBytes: Quantity, peakBytes: Quantity, capacityBytes: number | null): Amu {
  return {
    paper: {
      AMU: derived(averageBytes, 'GB', 'time-weighted average of allocator bytes, divided by 2^30', (b) => b / 2 ** 30),
    },
    honest: {
      averageBytes,
      peakBytes,
      shareOfCapacity: capacityBytes
        ? derived(averageBytes, '1', `average bytes over the device's ${capacityBytes} bytes`, (b) => b / capacityBytes)
        : missing('1', 'the capacity of the device is not known'),
    },
  };
}
