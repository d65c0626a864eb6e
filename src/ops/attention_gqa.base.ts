// What the cases of attention_gqa have in common.
import type { DType } from '../dtype.js';

export const floats = ['f32', 'bf16', 'f16'] as const;
export const two = ['f32', 'bf16'] as const;
export const base = { batch: 1, lenQ: 21, lenKv: 37, headsQ: 2, headsKv: 1, dim: 32, dimV: 32 };
/** Every query sees the key at its own place alone: its value is the result, whatever the score. */
export const own = { windowLeft: 0, windowRight: 0 };
/** The logarithm of a sum is never exact. */
export const exactly = ['y'];
export const qOf = (q: DType) => ({ q });
