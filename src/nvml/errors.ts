// Why NVML has no answer, as an error that says what to do about it.
import { KernwattError } from '../errors.js';
import { noNvml } from '../meter/fixes.js';
import type { NvmlFailure } from '../native.js';

/**
 * `unsupported`: this GPU, driver or mode has no such thing. `denied`: permission lacks. `missing`: the library does not load, or has no
 * such function. `unavailable`: no value at this moment. `lost`: the GPU is gone until it is reset.
 */
export type NvmlState = NvmlFailure['state'];

/** A query without an answer, code `ERR_KERNWATT_NVML`. */
export class NvmlError extends KernwattError {
  readonly state: NvmlState;
  /** nvmlReturn_t; null where no function of the library answered. */
  readonly status: number | null;
  /** The function of NVML that answered; null where the library does not load. */
  readonly function: string | null;
  /** What the driver or the loader said. */
  readonly detail: string;
  /** One line that may change it; null where nothing is known to. */
  readonly fix: string | null;

  /** @internal */
  constructor(where: string, failure: NvmlFailure) {
    const fix = fixOf(failure);
    const expected = `expected ${failure.function === '' ? 'one that loads' : 'a value'}`;
    super(
      'NVML',
      `${where}: ${failure.function === '' ? 'NVML' : 'the answer'} is ${failure.state} (${failure.message}), ${expected}${fix ? `; ${fix}` : ''}`,
    );
    this.state = failure.state;
    this.status = failure.status < 0 || failure.function === '' ? null : failure.status;
    this.function = failure.function || null;
    this.detail = failure.message;
    this.fix = fix;
  }
}

/** By nvmlReturn_t; what is not here has no remedy, or several. */
const fixes: Readonly<Record<number, string>> = {
  4: 'run as root',
  9: 'sudo modprobe nvidia',
  15: 'reset the GPU (sudo nvidia-smi --gpu-reset) or restart the machine',
  16: 'reset the GPU (sudo nvidia-smi --gpu-reset) or restart the machine',
  17: 'give the container or control group the device files /dev/nvidia*',
  18: 'restart the machine, so that the kernel module and the libraries of the driver are of one version',
};

/** @internal One line that may change a status; `function` is empty where the library does not load. */
export function fixOf({ function: name, status }: Pick<NvmlFailure, 'function' | 'status'>): string | null {
  if (name === '') return noNvml;
  return fixes[status] ?? (status === -1 ? 'a newer driver may have it' : null);
}
