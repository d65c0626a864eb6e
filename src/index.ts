// The public interface on one screen.
export type { CalibrateOptions, CalibrationResult } from './calibrate/calibrate.js';
export {
  type Append,
  type BatchTables,
  type CachedSequence,
  PagedCache,
  type PagedCacheOptions,
  type TableOptions,
} from './cache/paged_cache.js';
export type { Calibration } from './calibrate/calibration.js';
export type { BroadcastForm, Case, Layout, Model, ParamValue } from './case.js';
export type { Roofline } from './ceilings.js';
export type { CheckOpOptions, CheckOptions, CheckOutcome } from './check.js';
export type { Device, DeviceKind, MemoryUse, RandomOptions } from './device.js';
export { bitsOf, type DType, dtypes, type NumericData, type RawData, type TensorData } from './dtype.js';
export { type Code, codes, KernwattError } from './errors.js';
export type { HostBuffer } from './host.js';
export type { DeviceInfo } from './info.js';
export { calibrate, checkCase, checkFuzz, checkOp, compare, measure, openMeter } from './later.js';
export type { ComparisonResult } from './measure/compare.js';
export { emptyNativeCall, nativeLaunches } from './measure/crossing.js';
export type {
  CompareOptions,
  EnergyMeter,
  EnergyOptions,
  MeasureOptions,
  MeasureProgress,
} from './measure/options.js';
export type { Quantity } from './measure/quantity.js';
export type { Clock, ClockRecord, MeasureRecord, Verdict } from './measure/record.js';
export type { Measurable } from './measure/subject.js';
export type {
  DomainEnergy,
  DomainRecording,
  Mark,
  Meter,
  MeterDomain,
  MeterOptions,
  MeterReading,
} from './meter/meter.js';
export { type Fidelity, fidelity } from './metrics/fidelity.js';
export type { KeptPerformance } from './metrics/mcr.js';
export type { SamplerCost } from './native.sources.js';
export type { Op, Operator } from './op.js';
export { type DeviceName, type OpenOptions, openDevice } from './open.js';
export * from './ops/index.js';
/** Every operator by its name in TypeScript; `Object.values(ops)` walks over all of them. */
export * as ops from './ops/index.js';
export type { PrepackArgs, PrepackOptions } from './packed.js';
export type { Backend, CallOptions, Explanation, Plan } from './plan.js';
export type { PoolArray, PoolInput, PoolResult } from './pool/request.js';
export type { Pool, PoolCapacity, PoolInputs, PoolOptions, PoolResults, PoolRunOptions } from './pool.js';
export {
  dequantize,
  type QuantizedWeight,
  type QuantizeInt4Options,
  type QuantizeNf4Options,
  quantizeInt4,
  quantizeNf4,
} from './quantize.js';
export type { Shape, SliceRange } from './shape.js';
export type { SharedTensor } from './share.js';
export type { Args, OpSpec, Outputs, ParamSpec, TensorSpec, Work } from './spec.js';
export type { Stream } from './stream.js';
export type { Origin, Tensor } from './tensor.js';
export type { Decision, IgnoredFile, Tuned, TunedFact } from './tune/store.js';
export type { Candidate, TuneOptions, TuneProgress, Tuning } from './tune/tune.js';
