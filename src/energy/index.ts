// `kernwatt/energy`: joules with error bars from the readings of a meter. Arithmetic alone, so it needs neither addon nor device.
export type { Quantity } from '../measure/quantity.js';
export { type BoundedEnergy, boundEnergy } from './bounds.js';
export { type EnergyEstimate, type EstimateInput, estimateEnergy } from './estimate.js';
export type { Judgement } from './judge.js';
export { windowOrder } from './order.js';
export type { LoadWindow, MeterData, MeterScope, Stretch } from './recording.js';
export type { Series } from './ticks.js';
