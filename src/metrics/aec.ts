// AEC, "average energy consumption": E / T with E = integral of power, so watts   (EfficientLLM eqs. 7-8).
// Named energy, but mean power. Here: watts under the paper's name, and beside it joules per call and per token.
import { derived, missing, type Quantity } from '../measure/quantity.js';

export interface Aec {
  paper: { AEC: Quantity };
  honest: { joulesPerCall: Quantity; joulesPerToken: Quantity };
}

export function aec(powerWatts: Quantity, joulesPerCall: Quantity, tokens: number | null): Aec {
  return {
    paper: { AEC: powerWatts },
    honest: {
      joulesPerCall,
      joulesPerToken:
        tokens === null
          ? missing('J', 'this work does not say how many tokens a call covers')
          : derived(joulesPerCall, 'J', `joules per call over ${tokens} tokens`, (j) => j / tokens),
    },
  };
}
