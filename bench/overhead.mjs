// What kernwatt itself costs: the nanoseconds of JavaScript and of crossing into C++ around a product of one number.
//
//   node bench/overhead.mjs        or: kernwatt bench --self
//
// Queuing is timed in groups: the group is queued, the clock read, and only then its work waited for.
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { emptyNativeCall, gemm, openDevice } from 'kernwatt';
import { Bench } from 'tinybench';

const group = 256;

/** A task that times `call` alone, `group` times in a row, then waits for what it queued. */
const queued = (device, call) => async () => {
  const results = new Array(group);
  const from = performance.now();
  for (let i = 0; i < group; i++) results[i] = call();
  const spent = performance.now() - from;
  for (const result of results) result?.y.dispose();
  await device.stream.mark();
  return { overriddenDuration: spent / group, overriddenIterationCost: performance.now() - from };
};

/** The same for calls that queue nothing. */
const repeated = (call) => () => {
  const from = performance.now();
  for (let i = 0; i < group; i++) call();
  const spent = performance.now() - from;
  return { overriddenDuration: spent / group, overriddenIterationCost: spent };
};

/** Rows of nanoseconds per call: median, and the 95 % interval of the mean relative to it. */
export default async function overhead() {
  const device = await openDevice('cpu', { threads: 1 });
  const x = device.full([1, 1], 2);
  const w = device.full([1, 1], 3);
  const other = device.full([1, 1], 4);
  const plan = gemm.bind({ x, w });
  const numbers = new Float32Array(16);
  const nothing = emptyNativeCall();
  const bench = new Bench({ time: 250, warmupTime: 50 });
  bench
    .add('into C++ and back', repeated(nothing))
    .add('plan.enqueue()', queued(device, plan.enqueue))
    .add(
      'gemm({ x, w }), queued',
      queued(device, () => gemm({ x, w })),
    )
    .add('await plan.run()', async () => {
      await plan.run();
    })
    .add(
      'plan.rebind({ x })',
      repeated(() => plan.rebind({ x: other })),
    )
    .add(
      'gemm.bind({ x, w }) and dispose',
      repeated(() => {
        const bound = gemm.bind({ x, w });
        bound.outputs.y.dispose();
        bound.dispose();
      }),
    )
    .add(
      'device.empty([16]) and dispose',
      repeated(() => device.empty([16]).dispose()),
    )
    .add('device.tensor(Float32Array(16)) and dispose', async () => {
      const from = performance.now();
      for (let i = 0; i < group; i++) device.tensor(numbers).dispose();
      const spent = performance.now() - from;
      await device.stream.mark();
      return { overriddenDuration: spent / group, overriddenIterationCost: performance.now() - from };
    });
  await bench.run();
  await device.close();
  return bench.tasks.map(({ name, result }) => {
    if (result.state !== 'completed') throw result.error ?? new Error(`${name}: ${result.state}`);
    const { p50, rme, samplesCount } = result.latency;
    return { call: name, ns: Math.round(1e6 * p50), 'mean ± %': Number(rme.toPrecision(2)), samples: samplesCount };
  });
}

if (argv[1] === fileURLToPath(import.meta.url)) console.table(await overhead());
