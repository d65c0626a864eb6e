// What queries of NVML give. SI units: bytes, hertz, watts, joules, seconds; temperatures in degrees Celsius; shares from 0 to 1.
// Null is what the driver does not tell, never 0.

export const clockDomains = ['graphics', 'sm', 'memory', 'video'] as const;
export type ClockDomain = (typeof clockDomains)[number];

/** `gpu`: the board, memory included. `module`: with the processor beside it (GH200). `memory`: HBM alone. `base`: the GPU without what serves all of it. */
export const powerScopes = ['gpu', 'module', 'memory', 'base'] as const;
export type PowerScope = (typeof powerScopes)[number];

export const temperatureThresholds = ['shutdown', 'slowdown', 'memory-max', 'gpu-max'] as const;
export type TemperatureThreshold = (typeof temperatureThresholds)[number];

/** Why clocks are lower than they could be, by bit. */
export const clockEvents = [
  'gpu-idle',
  'application-clocks',
  'software-power-cap',
  'hardware-slowdown',
  'sync-boost',
  'software-thermal',
  'hardware-thermal',
  'hardware-power-brake',
  'display-clock',
] as const;
export type ClockEvent = (typeof clockEvents)[number];

/** By nvmlSamplingType_t; the two of the video engines are left out. */
export const sampleKinds = {
  power: 0,
  'gpu-utilisation': 1,
  'memory-utilisation': 2,
  'sm-clock': 5,
  'memory-clock': 6,
  'module-power': 7,
} as const;
export type SampleKind = keyof typeof sampleKinds;

/** By nvmlDeviceArchitecture_t. */
export const architectures = {
  2: 'kepler',
  3: 'maxwell',
  4: 'pascal',
  5: 'volta',
  6: 'turing',
  7: 'ampere',
  8: 'ada',
  9: 'hopper',
  10: 'blackwell',
  13: 'rubin',
} as const;
export type Architecture = (typeof architectures)[keyof typeof architectures];

export const virtualisations = ['none', 'passthrough', 'vgpu', 'host-vgpu', 'host-vsga'] as const;
export type Virtualisation = (typeof virtualisations)[number];

export const computeModes = ['default', 'exclusive-thread', 'prohibited', 'exclusive-process'] as const;
export type ComputeMode = (typeof computeModes)[number];

/** What tells one GPU from another. */
export interface GpuIdentity {
  /** Of NVML, which counts every GPU that the driver shows; CUDA counts others in another order. Null for a MIG device. */
  readonly index: number | null;
  /** PCI address, for example `0000:17:00.0`; null for a MIG device. */
  readonly address: string | null;
  /** `GPU-...` or `MIG-...`. */
  readonly uuid: string | null;
  /** Product name. */
  readonly name: string | null;
  /** Whether this is a MIG device: a part of a GPU. */
  readonly mig: boolean;
}

export interface GpuMemory {
  totalBytes: number;
  freeBytes: number;
  /** By processes; with what the driver reserves where `reservedBytes` is null. */
  usedBytes: number;
  reservedBytes: number | null;
}

/** Shares of the last sample period, a sixth of a second to a second, in which anything ran. Not how much of the GPU was at work. */
export interface GpuUtilisation {
  /** Time in which any kernel ran. */
  gpu: number;
  /** Time in which memory was read or written. */
  memory: number;
}

/** Seconds since the driver was loaded in which clocks were held down; the difference over a window is what to look at. */
export interface GpuThrottle {
  /** By the power limit: normal under full load. */
  powerCap: number | null;
  thermal: number | null;
  syncBoost: number | null;
  boardLimit: number | null;
  lowUtilisation: number | null;
  reliability: number | null;
  /** Below the base clock, for whatever reason. */
  baseClocks: number | null;
  softwareThermal: number | null;
  hardwareThermal: number | null;
  hardwarePowerBrake: number | null;
}

export interface GpuPowerLimits {
  /** What is set, watts; `powerLimit()` is what is in force. */
  limit: number;
  default: number;
  min: number;
  max: number;
}

export interface GpuPci {
  address: string;
  domain: number;
  bus: number;
  device: number;
  vendorId: number;
  deviceId: number;
  subsystemId: number;
}

export interface PcieLink {
  /** Now: links of idle GPUs are slower. */
  generation: number;
  width: number;
  maxGeneration: number | null;
  maxWidth: number | null;
}

/** A switch, and what it is after the next reset of the GPU. */
export interface Mode {
  current: boolean;
  pending: boolean;
}

export interface MigInstance {
  gpuInstance: number;
  computeInstance: number | null;
  multiprocessors: number;
  memoryBytes: number;
  gpuSlices: number;
  computeSlices: number;
  copyEngines: number;
}

export interface GpuProcess {
  /** In a container, of the host or of the container, as the driver likes: do not compare with `process.pid`. */
  pid: number;
  usedBytes: number | null;
  gpuInstance: number | null;
  computeInstance: number | null;
}

export interface GpuSample {
  /** Seconds since 1970 by the host's clock. */
  time: number;
  /** Watts, hertz, or a share. */
  value: number;
}

export interface GpuAccount {
  utilisation: number | null;
  memoryUtilisation: number | null;
  peakBytes: number | null;
  /** For which the process had a context. */
  seconds: number;
  /** Seconds since 1970. */
  started: number;
  running: boolean;
}

/** One answer of nvmlDeviceGetFieldValues. */
export interface GpuField {
  field: number;
  scope: number;
  /** In the unit of the field (mW, mJ, ns ...); null unless `state` is ok. */
  value: number | null;
  state: 'ok' | 'unsupported' | 'denied' | 'missing' | 'unavailable' | 'lost';
  /** nvmlReturn_t, and what the driver says to it. */
  status: number;
  detail: string;
  /** When it was true, seconds since 1970 by the host's clock; null where the driver does not say. */
  time: number | null;
  /** How long reading it took, seconds. */
  latency: number;
}

/** A field, and the part of the board that it is about: 0 GPU, 1 module, 2 memory, 3 base. */
export type FieldRequest = number | { field: number; scope?: number };

/** A GPU that the driver counts and does not open. */
export interface RefusedGpu {
  index: number;
  state: 'unsupported' | 'denied' | 'missing' | 'unavailable' | 'lost';
  reason: string;
}
