// The linear layers of gemm's models with weights of 4 bits in groups of 128, as GPTQ and AWQ checkpoints have them: the output head
// stays as it was.
import type { Model } from '../case.js';
import { models as dense } from './gemm.models.js';

const group = 128;

export const models: readonly Model[] = dense
  .filter(({ name }) => !/^square|\bhead\b/.test(name))
  .map((model) => ({
    ...model,
    dims: { ...model.dims, groups: model.dims.k! / group },
    dtypes: { ...model.dtypes, scales: 'bf16' },
  }));
