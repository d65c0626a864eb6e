// Opening a device by name.
import { Device, type DeviceKind } from './device.js';
import { KernwattError } from './errors.js';
import { findLibrary, type LibraryKind, prepareLibrary } from './library.js';
import { native } from './native.js';

/** `auto` takes the first GPU that opens and the CPU otherwise; `cuda` and `emu` mean number 0. */
export type DeviceName = 'auto' | DeviceKind | `cuda:${number}` | `emu:${number}`;

export interface OpenOptions {
  /** CPU worker threads; default: the cores this process may use. */
  threads?: number;
  /** Strongest CPU instruction set to use: `generic`, `avx2`, `avx512`, `avx512_bf16` or `amx_bf16`; default: the best there is. */
  isa?: string;
  /**
   * Numbers of the CPUs that worker threads are tied to, one each and in turn; default: wherever the system puts them. `threads` is
   * then as many by default. Work of one device that is opened alike in several worker threads shares one set of threads.
   */
  affinity?: readonly number[];
  /**
   * Bytes that this device's tensors and workspaces may take together, memory kept for reuse included; default: what is there. What goes
   * beyond throws `OUT_OF_MEMORY`.
   */
  memoryLimit?: number;
  /**
   * Path of libkernwatt_cuda.so or libkernwatt_emu.so. Default: `KERNWATT_CUDA_LIBRARY` or `KERNWATT_EMU_LIBRARY`, then
   * `.build/cuda/lib/` of a checkout, then beside the addon.
   */
  library?: string;
  /**
   * Use configurations that `op.tune()` has measured on this very device, driver and build: `true` from the user's cache folder, or from the
   * folder given. Default: none, so that what a call computes depends on its arguments and this package alone. Read once, when opening;
   * `device.tuned` lists what is used and what was ignored, and why.
   */
  tuned?: boolean | string;
}

/** Oldest compute capability that the kernels are built for. */
const oldest = { major: 8, minor: 0 };

/**
 * Opens a device. `emu:0`, `emu:1` and `emu:2` run the CUDA kernels under emulation, as on sm_90, sm_80 and sm_89.
 *
 * @throws {KernwattError} `ARGUMENT` for an unknown name, number or option; `LIBRARY` when the addon or the library of kernels
 *   is missing or does not load; `CUDA` when there is no driver, no device, or one older than sm_80.
 */
export async function openDevice(name: DeviceName = 'auto', options: OpenOptions = {}): Promise<Device> {
  checkOptions(options);
  const device = await openNamed(name, options);
  if (options.tuned === undefined || options.tuned === false) return device;
  try {
    const { openTuned } = await import('./tune/store.js');
    return Object.assign(device, {
      tuned: await openTuned(device, options.tuned === true ? undefined : options.tuned),
    });
  } catch (error) {
    await device.close();
    throw error;
  }
}

async function openNamed(name: DeviceName, options: OpenOptions): Promise<Device> {
  const match = /^(?:(auto|cpu)|(cuda|emu)(?::(\d+))?)$/.exec(name);
  if (!match)
    throw new KernwattError(
      'ARGUMENT',
      `openDevice: device is ${name}, expected auto, cpu, cuda, cuda:N, emu or emu:N`,
    );
  const [, host, kind, index] = match;
  if (host === 'cpu') return openCpu(options);
  if (kind) return openLibrary(kind as LibraryKind, Number(index ?? 0), options);
  try {
    return await openLibrary('cuda', 0, options);
  } catch (error) {
    // Naming a library asks for that library; otherwise the CPU is what there is.
    if (options.library !== undefined || !(error instanceof KernwattError)) throw error;
    return openCpu(options);
  }
}

/** A limit of memory is of one device's tensors, not of those that ceilings are measured with. */
const unlimited = ({ memoryLimit: _, ...options }: OpenOptions): OpenOptions => options;

async function openCpu(options: OpenOptions): Promise<Device> {
  const { threads, isa, affinity, memoryLimit } = options;
  if (isa !== undefined) {
    const usable = native().cpu().isa;
    if (!usable.includes(isa))
      throw new KernwattError('ARGUMENT', `openDevice: isa is ${isa}, expected one usable here: ${usable.join(', ')}`);
  }
  const handle = await native().openDevice({
    kind: 'cpu',
    ...(threads === undefined ? {} : { threads }),
    ...(isa === undefined ? {} : { isa }),
    ...(affinity === undefined ? {} : { affinity }),
    ...(memoryLimit === undefined ? {} : { memoryLimit }),
  });
  return new Device(handle, 'cpu', 'cpu', null, () => openCpu(unlimited(options)));
}

async function openLibrary(kind: LibraryKind, index: number, options: OpenOptions): Promise<Device> {
  await prepareLibrary(kind, options.library);
  const library = findLibrary(kind, options.library);
  const name = `${kind}:${index}`;
  if (library.deviceCount === 0)
    throw new KernwattError(
      'CUDA',
      `openDevice: no device for ${name}: ${library.reason || 'the library reports none'}`,
    );
  if (index >= library.deviceCount)
    throw new KernwattError(
      'ARGUMENT',
      `openDevice: device is ${name}, expected ${kind}:0 to ${kind}:${library.deviceCount - 1}`,
    );
  const { memoryLimit } = options;
  const handle = await native().openDevice({
    kind: 'library',
    library: library.path,
    index,
    ...(memoryLimit === undefined ? {} : { memoryLimit }),
  });
  const { ccMajor, ccMinor, name: product } = native().deviceInfo(handle);
  if (ccMajor < oldest.major) {
    await native().closeDevice(handle);
    throw new KernwattError(
      'CUDA',
      `openDevice: ${name} (${product}) has compute capability ${ccMajor}.${ccMinor}, expected ${oldest.major}.${oldest.minor} or newer`,
    );
  }
  return new Device(handle, kind, name, library, () => openLibrary(kind, index, unlimited(options)));
}

const optionNames = ['threads', 'isa', 'affinity', 'memoryLimit', 'library', 'tuned'];

function checkOptions(options: OpenOptions): void {
  for (const key of Object.keys(options))
    if (!optionNames.includes(key))
      throw new KernwattError('ARGUMENT', `openDevice: ${key} is not an option, expected ${optionNames.join(', ')}`);
  const { threads, affinity, memoryLimit, tuned } = options;
  if (tuned !== undefined && typeof tuned !== 'boolean' && (typeof tuned !== 'string' || tuned === ''))
    throw new KernwattError('ARGUMENT', `openDevice: tuned is ${String(tuned)}, expected true, false or a folder`);
  if (threads !== undefined && !(Number.isInteger(threads) && threads >= 1 && threads <= 1024))
    throw new KernwattError('ARGUMENT', `openDevice: threads is ${threads}, expected a whole number from 1 to 1024`);
  const cpus: unknown = affinity;
  const numbered = (cpu: unknown) => Number.isInteger(cpu) && (cpu as number) >= 0 && (cpu as number) < 65_536;
  if (cpus !== undefined && !(Array.isArray(cpus) && cpus.length >= 1 && cpus.length <= 1024 && cpus.every(numbered)))
    throw new KernwattError('ARGUMENT', `openDevice: affinity is ${String(cpus)}, expected 1 to 1024 CPU numbers`);
  if (memoryLimit !== undefined && !(Number.isSafeInteger(memoryLimit) && memoryLimit >= 1))
    throw new KernwattError(
      'ARGUMENT',
      `openDevice: memoryLimit is ${memoryLimit}, expected a whole number of bytes from 1 to 2^53 - 1`,
    );
}
