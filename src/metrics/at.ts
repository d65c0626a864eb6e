// AT, average throughput, one of three (EfficientLLM eqs. 4-6):
//   TT = sum(tokens_i / params) / sum(time_i)    pre-training, tokens per parameter and second
//   ST = sum(samples_i / params) / sum(time_i)   fine-tuning
//   IT = sum(generated tokens_i) / sum(time_i)   inference, tokens per second
// For one operator tokens are the rows of its activations and params the elements of its weight; an operator has no samples.
// Dividing by params makes TT of different sizes incomparable, so plain tokens per second stand beside it.
import { derived, missing, type Quantity } from '../measure/quantity.js';

export interface At {
  paper: { TT: Quantity; ST: Quantity; IT: Quantity };
  honest: { tokensPerSecond: Quantity };
}

export interface Throughput {
  /** Tokens and parameters of one call; null where the operator has none. */
  tokens: number | null;
  params: number | null;
  /** Mean seconds per call as the paper takes them (AL), and the headline median. */
  meanSeconds: Quantity;
  medianSeconds: Quantity;
}

export function at({ tokens, params, meanSeconds, medianSeconds }: Throughput): At {
  const perSecond = (seconds: Quantity, count: number, unit: string, basis: string) =>
    derived(seconds, unit, basis, (s) => count / s);
  const noTokens = 'this work does not say how many tokens a call covers';
  return {
    paper: {
      TT:
        tokens !== null && params
          ? perSecond(
              meanSeconds,
              tokens / params,
              'tokens/param/s',
              `${tokens} rows, ${params} weight elements, mean host time`,
            )
          : missing('tokens/param/s', tokens === null ? noTokens : 'this work has no parameters'),
      ST: missing('samples/param/s', 'one operator sees rows of activations, not training samples'),
      IT:
        tokens !== null
          ? perSecond(meanSeconds, tokens, 'tokens/s', 'every row counted as one generated token, mean host time')
          : missing('tokens/s', noTokens),
    },
    honest: {
      tokensPerSecond:
        tokens !== null
          ? perSecond(medianSeconds, tokens, 'tokens/s', 'rows of activations over the median time')
          : missing('tokens/s', noTokens),
    },
  };
}
