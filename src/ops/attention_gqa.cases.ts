// Cases that every backend of attention_gqa must get right.
import type { Case } from '../case.js';

export function cases(): Case[] {
  return [{ name: 'f32, one key', dims: { batch: 1, lenQ: 1, lenKv: 1, headsQ: 1, headsKv: 1, dim: 32, dimV: 32 } }];
}
