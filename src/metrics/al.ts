// AL, average latency: sum over i of (computation_i + communication_i) / N, seconds   (EfficientLLM eq. 3).
// The paper's code takes wall-clock time around a step: the mean of the host clock. Here: that mean, and beside it the median
// of each clock with its 95 % interval. One device, so no communication.
import { known, missing, type Quantity } from '../measure/quantity.js';
import type { Stat } from '../measure/stats.js';

/** Seconds per call by clock; null where a clock was not asked for or does not exist. */
export interface Clocks {
  device: Stat | null;
  stream: Stat | null;
  host: Stat | null;
}

export interface Al {
  paper: { AL: Quantity };
  honest: { deviceSeconds: Quantity; streamSeconds: Quantity; hostSeconds: Quantity };
}

const unread = (clock: string) => missing('s', `the ${clock} clock was not read in this measurement`);

const middle = (stat: Stat | null, clock: string): Quantity =>
  stat ? known(stat.median, 's', `median of ${stat.n} samples, ${clock} clock`, stat.ci95Median) : unread(clock);

export function al({ device, stream, host }: Clocks): Al {
  return {
    paper: {
      AL: host ? known(host.mean, 's', `mean of ${host.n} samples, host clock`, host.ci95Mean) : unread('host'),
    },
    honest: {
      deviceSeconds: middle(device, 'device'),
      streamSeconds: middle(stream, 'stream'),
      hostSeconds: middle(host, 'host'),
    },
  };
}
