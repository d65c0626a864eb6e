// Where a measurement was taken: processor, memory, kernel, Node, library, commit. Reads /proc and asks the addon; what cannot
// be read is null, never guessed.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { arch, availableParallelism, cpus, freemem, platform, release, totalmem } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { CpuInfo, DeviceInfo } from '../info.js';
import { libcVersion } from '../prebuilt.js';

export interface Tool {
  name: 'kernwatt';
  version: string;
  /** Commit of the checkout it runs from, and whether files differ from it; null when installed as a package. */
  gitSha: string | null;
  dirty: boolean | null;
}

export interface GpuFacts {
  pci: string | null;
  /** 64 bits of the SHA-256 of its UUID: tells the boards of a machine apart without naming them. */
  uuidHash: string | null;
  vbios: string | null;
  driver: string | null;
  /** Version of the management library. */
  nvml: string | null;
  /** Watts. `enforced` is the limit in force. */
  powerLimitW: { enforced: number | null; default: number | null; min: number | null; max: number | null };
  maxClockHz: { sm: number | null; memory: number | null };
  ecc: boolean | null;
  /** Whether the GPU is divided into instances. */
  mig: boolean | null;
  /** Whether the driver stays loaded when nobody uses the GPU. */
  persistence: boolean | null;
  /** Processes other than this one that used the GPU. */
  otherProcesses: number | null;
}

export interface Environment {
  cpu: {
    model: string;
    /** Instruction sets usable, weakest first; empty when the addon could not be asked. */
    isa: string[];
    flags: string[];
    cores: number;
    l2Bytes: number | null;
    llcBytes: number | null;
    memoryBytes: number;
    availableBytes: number;
    virtualised: boolean | null;
    /** Share of processor time that a hypervisor withheld during the measurement; null when not known. */
    stealShare: number | null;
  };
  device: {
    /** As openDevice takes it, and the product behind it. */
    name: string;
    product: string;
    isa: string | null;
    threads: number | null;
    computeCapability: string | null;
    multiprocessors: number | null;
    memoryBytes: number | null;
    llcBytes: number | null;
    driver: string | null;
    runtime: string | null;
  } | null;
  /** The GPU as its driver's management library sees it; null without a GPU, and each part null where it is not known. */
  gpu: GpuFacts | null;
  /** The library of CUDA kernels in use: path and build line. */
  library: { path: string; build: string } | null;
  os: { platform: string; arch: string; kernel: string; libc: string | null };
  node: { version: string; napi: string };
}

/** Root folder of this package. */
export const packageRoot = fileURLToPath(new URL('../..', import.meta.url));

function git(...args: string[]): string | null {
  try {
    return execFileSync('git', ['-C', packageRoot, ...args], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return null;
  }
}

let tool: Tool | undefined;

/** Version and, in a checkout, commit of this package; read once. */
export function describeTool(): Tool {
  if (tool) return tool;
  const { version } = JSON.parse(readFileSync(`${packageRoot}/package.json`, 'utf8')) as { version: string };
  // A package installed inside somebody's repository must not report that repository's commit.
  const checkout = existsSync(`${packageRoot}/.git`);
  const gitSha = checkout ? (git('rev-parse', 'HEAD')?.trim() ?? null) : null;
  const status = gitSha === null ? null : git('status', '--porcelain');
  tool = { name: 'kernwatt', version, gitSha, dirty: status === null ? null : status.trim() !== '' };
  return tool;
}

/** Jiffies from the first line of /proc/stat: stolen by the hypervisor, and all of them. Null outside Linux. */
export function readSteal(): { stolen: number; total: number } | null {
  try {
    const fields = readFileSync('/proc/stat', 'utf8').split('\n', 1)[0]!.trim().split(/\s+/).slice(1, 9).map(Number);
    if (fields.length < 8 || fields.some(Number.isNaN)) return null;
    return { stolen: fields[7]!, total: fields.reduce((a, b) => a + b, 0) };
  } catch {
    return null;
  }
}

/** Share of jiffies stolen between two readings; null when there are none or nothing can be read. */
export function stealShare(before: ReturnType<typeof readSteal>, after: ReturnType<typeof readSteal>): number | null {
  if (!before || !after || after.total <= before.total) return null;
  return Math.max(0, (after.stolen - before.stolen) / (after.total - before.total));
}

function virtualised(): boolean | null {
  try {
    return /^flags\s*:.*\bhypervisor\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'));
  } catch {
    return null;
  }
}

const orNull = (value: number): number | null => (value > 0 ? value : null);

/** The environment of a measurement. `cpu` and `device` come from the addon, null where it is not in use; `gpu` from its driver. */
export function describeEnvironment(
  cpu: CpuInfo | null,
  device: { name: string; info: DeviceInfo } | null,
  steal: number | null,
  gpu: GpuFacts | null,
): Environment {
  return {
    cpu: {
      model: cpu?.model ?? cpus()[0]?.model ?? 'unknown',
      isa: cpu?.isa ?? [],
      flags: cpu?.flags ?? [],
      cores: cpu?.cores ?? availableParallelism(),
      l2Bytes: orNull(cpu?.l2Bytes ?? 0),
      llcBytes: orNull(cpu?.llcBytes ?? 0),
      memoryBytes: cpu?.memoryBytes ?? totalmem(),
      availableBytes: cpu?.availableBytes ?? freemem(),
      virtualised: virtualised(),
      stealShare: steal,
    },
    device: device && { name: device.name, product: device.info.name, ...facts(device.info) },
    gpu,
    library: device?.info.library ?? null,
    os: { platform: platform(), arch: arch(), kernel: release(), libc: libcVersion() },
    node: { version: process.version, napi: process.versions.napi ?? 'unknown' },
  };
}

const facts = (info: DeviceInfo) => ({
  isa: info.isa,
  threads: info.threads,
  computeCapability: info.computeCapability,
  multiprocessors: info.multiprocessors,
  memoryBytes: info.totalBytes,
  llcBytes: info.lastLevelCacheBytes,
  driver: info.driverVersion,
  runtime: info.runtimeVersion,
});
