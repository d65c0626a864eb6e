// The floor under every call from JavaScript, for benchmarks of the library itself.
import { native } from '../native.js';
import type { Plan } from '../plan.js';

/** A function of the addon that does nothing: what crossing into C++ and back costs on this machine and Node. */
export const emptyNativeCall = (): (() => void) => native().nothing;

/** Queues a plan up to 4096 times from C++: what its launches cost without JavaScript. */
export const nativeLaunches = (plan: Plan, times: number): void => native().enqueueOften(plan.handle, times);
