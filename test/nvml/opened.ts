// What tests of kernwatt/nvml share: a GPU of a fake, and what a refusal says.
import { type Gpu, NvmlError, openNvml } from '../../src/nvml/index.js';
import { Fake, type Scenario } from './fake.js';

let fake: Fake | undefined;
/** Call it after each test. */
export const close = (): void => fake?.stop();

export async function open(scenario: Scenario, which: number | string = 0): Promise<{ fake: Fake; gpu: Gpu }> {
  fake = await Fake.start(scenario);
  return { fake, gpu: await (await openNvml()).device(which) };
}

/** What a rejection says beside its message. */
export const refusal = async (promise: Promise<unknown>): Promise<NvmlError> => {
  const error = await promise.then(
    (value) => new Error(`resolved to ${JSON.stringify(value)}`),
    (reason: unknown) => reason,
  );
  if (!(error instanceof NvmlError)) throw error;
  return error;
};

/** As `refusal`, of a query that may have worked before: that it is not supported is believed at the third time. */
export const lasting = async (ask: () => Promise<unknown>): Promise<NvmlError> => {
  for (const _ of [1, 2]) await refusal(ask());
  return refusal(ask());
};
