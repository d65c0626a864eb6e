// Is there an NVIDIA driver, and is it new enough? Reads the kernel module's version and asks the dynamic loader for libcuda; needs
// neither the addon nor the library of kernels, so it can tell which of them is not at fault.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadable } from '../measure/sources.js';

/** Oldest driver branch that runs what the CUDA 13 toolkit builds. */
const driverFloor = 580;

export interface Driver {
  /** `old`: older than `driverFloor`. `unavailable`: half of it is there, the kernel module or libcuda.so.1. */
  state: 'ok' | 'missing' | 'old' | 'unavailable';
  /** Version of the kernel module, for example `580.95.05`; null where it does not say. */
  version: string | null;
  detail: string;
  fix: string | null;
}

const text = (path: string): string | null => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
};

/** Version of the kernel module that is loaded: `NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release ...`. */
function moduleVersion(root: string): string | null {
  const said = text(join(root, 'proc/driver/nvidia/version'));
  const found = said && /^NVRM version:.*?\s(\d+\.\d+(?:\.\d+)?)\s/m.exec(`${said}\n`)?.[1];
  return found || text(join(root, 'sys/module/nvidia/version'))?.trim() || null;
}

const install = `install NVIDIA driver ${driverFloor} or newer (Ubuntu: sudo apt-get install -y nvidia-driver-${driverFloor}; in a container: run it with --gpus all)`;

/** `root` and `loads` let tests present another machine. */
export function probeDriver(root = '/', loads: typeof loadable = loadable): Driver {
  const version = moduleVersion(root);
  const { ok, detail } = loads('libcuda.so.1');
  if (version !== null && Number.parseInt(version, 10) < driverFloor)
    return { state: 'old', version, detail: `version is ${version}, expected ${driverFloor} or newer`, fix: install };
  if (ok && version !== null) return { state: 'ok', version, detail: `version ${version}; ${detail}`, fix: null };
  if (ok) {
    // Under WSL libcuda.so.1 comes from Windows and there is no kernel module here; whether it works the library finds out.
    if (/microsoft/i.test(text(join(root, 'proc/version')) ?? '')) return { state: 'ok', version, detail, fix: null };
    const fix = 'sudo modprobe nvidia';
    return { state: 'unavailable', version, detail: `${detail}, but the kernel module nvidia is not loaded`, fix };
  }
  if (version === null) return { state: 'missing', version, detail, fix: install };
  return {
    state: 'unavailable',
    version,
    detail: `the kernel module has version ${version}, but ${detail}`,
    fix: `in a container: run it with --gpus all; otherwise install libcuda.so.1 of driver ${version}`,
  };
}
