// Attention of served models, for benchmarks.
import type { Model } from '../case.js';

export const models: readonly Model[] = [];
