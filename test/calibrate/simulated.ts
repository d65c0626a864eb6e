// A CPU whose energy is known: it watches what the addon samples, and each operation and byte of the operator peak costs what it was
// given. So a calibration can be held against the truth where no counter can be read.
import { vi } from 'vitest';
import { native } from '../../src/native.js';

export interface Costs {
  constantW: number;
  fma_f32: number;
  dot_bf16: number;
  bytes: number;
}

interface Call {
  flops: number;
  bytes: number;
  dot: boolean;
}

/** Joules until a moment, of everything sampled since this was called. Restore mocks to end it. */
export function watchEnergy(costs: Costs, dotIsa: boolean): (time: number) => number {
  const calls = new WeakMap<object, Call>();
  const stretches: { begin: number; end: number; watts: number }[] = [];
  const addon = native();
  const { createPlan, sample } = addon;
  const origin = Number(process.hrtime.bigint()) / 1e9;
  vi.spyOn(addon, 'createPlan').mockImplementation((op, backend, stream, args) => {
    const handle = createPlan(op, backend, stream, args);
    if (op === 'peak') calls.set(handle, callOf(args, dotIsa));
    return handle;
  });
  vi.spyOn(addon, 'sample').mockImplementation(async (stream, options) => {
    const result = await sample(stream, options);
    const call = calls.get(options.cases[0]![0]!);
    if (!call) return result;
    for (const [i, seconds] of result.seconds.entries()) {
      const joules = call.flops * (call.dot ? costs.dot_bf16 : costs.fma_f32) + call.bytes * costs.bytes;
      const begin = result.start[i]!;
      stretches.push({ begin, end: begin + seconds * options.calls[0]!, watts: joules / seconds });
    }
    return result;
  });
  return (time) =>
    stretches.reduce(
      (sum, { begin, end, watts }) => sum + watts * Math.max(0, Math.min(time, end) - begin),
      costs.constantW * (time - origin),
    );
}

/** Work of one call, from the raw arguments; loads are numbered as kernels/peak/peak.h lists them. */
function callOf(args: Record<string, unknown>, dotIsa: boolean): Call {
  const { x, w, y, load, rounds } = args as {
    x: { shape: number[]; dtype: number };
    w?: { shape: number[] };
    y: { shape: number[] };
    load: number;
    rounds: number;
  };
  const size = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
  const width = x.dtype === native().dtypes.indexOf('f32') ? 4 : 2;
  const bytes = width * (size(x.shape) + (w ? size(w.shape) : 0)) + 4 * size(y.shape);
  const flops = w ? 2 * size(x.shape) * w.shape[0]! * rounds : load === 0 ? size(x.shape) : 0;
  return { flops, bytes, dot: dotIsa && x.dtype === native().dtypes.indexOf('bf16') };
}
