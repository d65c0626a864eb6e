// `kernwatt/tinybench`: a task for tinybench whose samples are the plan's own seconds instead of the cost of calling it.
import { native, type SampleOptions } from '../native.js';
import type { Plan } from '../plan.js';

/**
 * A task for tinybench that times `plan` by the device's clock instead of JavaScript's.
 * @param calls back-to-back calls in one sample; the sample is their mean. What is below a few microseconds needs more than one.
 * @example bench.add('gemm, device time', deviceTask(plan));
 * @throws {KernwattError} `UNSUPPORTED` on an emulated device, when the task runs.
 */
export function deviceTask(
  plan: Plan,
  calls = 1,
): () => Promise<{ overriddenDuration: number; overriddenIterationCost: number }> {
  const options: SampleOptions = {
    cases: [[plan.handle]],
    order: new Uint32Array(1),
    calls: Uint32Array.of(calls),
    clock: 'device',
  };
  return async () => {
    const from = performance.now();
    const { seconds } = await native().sample(plan.stream.handle, options);
    return { overriddenDuration: 1000 * seconds[0]!, overriddenIterationCost: performance.now() - from };
  };
}
