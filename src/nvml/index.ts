// `kernwatt/nvml`: NVIDIA's management library for Node. Importing it loads nothing; `openNvml()` does.
export { type Code, KernwattError } from '../errors.js';
export type { Capability, CapabilityState } from './capabilities.js';
export { NvmlError, type NvmlState } from './errors.js';
export type { GpmMetric, GpmReading, GpmSample } from './gpm.js';
export type { GpmOptions, Gpu, Promised } from './gpu.js';
export { type Nvml, type NvmlQueries, openNvml, openNvmlSync } from './open.js';
export type { GpuQueries } from './queries.js';
export type * from './types.js';
