// `kernwatt/checkpoint`: quantised weights out of safetensors and GGUF files. docs/checkpoints.md.
export { type Code, KernwattError } from '../errors.js';
export type { Checkpoint, MetadataValue, StoredTensor } from './checkpoint.js';
export type { Quantization } from './config.js';
export { CheckpointError } from './error.js';
export { openGguf } from './gguf.js';
export type { CheckpointFormat } from './gptq.js';
export type { Int4Format, Int4Weight, Scales } from './int4.js';
export { type Int4Linear, loadInt4Linear } from './linear.js';
export { type Int4Options, readInt4Linear } from './read.js';
export { openSafetensors } from './safetensors.js';
export type { ReadOptions } from './source.js';
export { type LoadTensorOptions, loadTensor } from './tensor.js';
