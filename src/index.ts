// The public interface on one screen.
export type { BroadcastForm, Case, Layout, Model, ParamValue } from './case.js';
export {
  type CheckOpOptions,
  type CheckOptions,
  type CheckOutcome,
  checkCase,
  checkFuzz,
  checkOp,
} from './check.js';
export type { Device, DeviceKind, MemoryUse, RandomOptions } from './device.js';
export { bitsOf, type DType, dtypes, type NumericData, type RawData, type TensorData } from './dtype.js';
export { type BoundedEnergy, boundEnergy } from './energy/bounds.js';
export { type EnergyEstimate, estimateEnergy, type EstimateInput } from './energy/estimate.js';
export type { Judgement } from './energy/judge.js';
export { windowOrder } from './energy/order.js';
export type { LoadWindow, MeterData, MeterScope, Stretch } from './energy/recording.js';
export type { Series } from './energy/ticks.js';
export { type Code, codes, KernwattError } from './errors.js';
export type { DeviceInfo } from './info.js';
export { type ComparisonResult, compare } from './measure/compare.js';
export { emptyNativeCall } from './measure/crossing.js';
export { measure } from './measure/measure.js';
export type { CompareOptions, MeasureOptions, MeasureProgress } from './measure/options.js';
export type { Quantity } from './measure/quantity.js';
export type { Clock, ClockRecord, MeasureRecord, Verdict } from './measure/record.js';
export type { Measurable } from './measure/subject.js';
export { deviceTask } from './measure/tinybench.js';
export type { Op, Operator } from './op.js';
export { type DeviceName, type OpenOptions, openDevice } from './open.js';
export * from './ops/index.js';
/** Every operator by its name in TypeScript; `Object.values(ops)` walks over all of them. */
export * as ops from './ops/index.js';
export type { Backend, CallOptions, Explanation, Plan } from './plan.js';
export type { Shape } from './shape.js';
export type { Args, OpSpec, Outputs, ParamSpec, TensorSpec, Work } from './spec.js';
export type { Stream } from './stream.js';
export type { Origin, SliceRange, Tensor } from './tensor.js';
