// What a device says about itself, as data: unknown values are null, never zero.
import type { Library } from './library.js';
import type { NativeDeviceInfo } from './native.js';

/** What the addon says of this machine's CPU, whether or not a device is open. */
export interface CpuInfo {
  model: string;
  cores: number;
  /** Instruction sets usable here, weakest first: generic, avx2, avx512, avx512_bf16, amx_bf16. */
  isa: string[];
  /** Every relevant cpuid flag found (avx2, avx512f, avx512_bf16, avx512_vnni, amx_bf16 ...). */
  flags: string[];
  /** Why `amx_bf16` is not usable on a CPU that has it; empty otherwise. */
  amxWithheld: string;
  l2Bytes: number;
  llcBytes: number;
  memoryBytes: number;
  /** Memory still to be had: the smaller of MemAvailable and what the cgroup leaves. */
  availableBytes: number;
}

/** What a device is. Null means unknown or not applicable. */
export interface DeviceInfo {
  /** Product name. */
  name: string;
  uuid: string | null;
  /** PCI address, domain:bus:device.function. */
  pci: string | null;
  /** Compute capability, for example `9.0`. */
  computeCapability: string | null;
  multiprocessors: number | null;
  /** Kernels run under emulation: right or wrong, never fast or slow. */
  emulated: boolean;
  totalBytes: number | null;
  /** Shared memory that one block may use. */
  sharedMemoryBytes: number | null;
  lastLevelCacheBytes: number | null;
  driverVersion: string | null;
  runtimeVersion: string | null;
  /** Highest clocks, hertz. */
  clock: number | null;
  memoryClock: number | null;
  memoryBusBits: number | null;
  /** CPU: instruction set in use and worker threads. */
  isa: string | null;
  threads: number | null;
  /** The library of kernels behind the device. */
  library: { path: string; build: string } | null;
}

export function describeDevice(raw: NativeDeviceInfo, library: Library | null): DeviceInfo {
  const isCpu = library === null;
  return {
    name: raw.name,
    uuid: raw.uuid || null,
    pci: raw.pci || null,
    computeCapability: isCpu ? null : `${raw.ccMajor}.${raw.ccMinor}`,
    multiprocessors: isCpu ? null : known(raw.smCount),
    emulated: raw.emulated,
    totalBytes: known(raw.totalBytes),
    sharedMemoryBytes: known(raw.smemBytes),
    lastLevelCacheBytes: known(raw.llcBytes),
    driverVersion: cudaVersion(raw.driverVersion),
    runtimeVersion: cudaVersion(raw.runtimeVersion),
    clock: known(raw.clockKhz * 1000),
    memoryClock: known(raw.memoryClockKhz * 1000),
    memoryBusBits: known(raw.memoryBusBits),
    isa: raw.isa ?? null,
    threads: raw.threads ?? null,
    library: library && { path: library.path, build: library.build },
  };
}

const known = (value: number): number | null => (value > 0 ? value : null);
/** CUDA encodes 13.0 as 13000. */
const cudaVersion = (v: number): string | null =>
  v > 0 ? `${Math.floor(v / 1000)}.${Math.floor((v % 1000) / 10)}` : null;
