// What a server gets: a pool beside one request after another, the delay of the event loop under load, queuing beside its floor,
// and the time to import. Prints a table, with the project's own targets and whether this run met them.
//
//   npm run bench:server [-- --json]
import { execFileSync } from 'node:child_process';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { argv, execPath, stdout, version } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { emptyNativeCall, gemm, nativeLaunches, openDevice } from 'kernwatt';

const rows = [];
const row = (what, value, unit, target = null, met = null) => rows.push({ what, value, unit, target, met });
const sorted = (values) => values.toSorted((a, b) => a - b);
const median = (values) => sorted(values)[values.length >> 1];

/** Microseconds for each of `count` requests. */
async function timed(count, body) {
  const from = performance.now();
  await body(count);
  return (1000 * (performance.now() - from)) / count;
}

/** Small requests: 4 rows by a weight of 64 x 64. Ways are interleaved round by round, so that drift falls on all alike. */
async function throughput(device) {
  const [m, k] = [4, 64];
  const w = device.random([k, k]);
  const data = new Float32Array(m * k).fill(1);
  const pool = gemm.pool({ m: 16, w }, { slots: 32 });
  const ways = {
    async calls(count) {
      for (let i = 0; i < count; ++i) {
        const x = device.tensor(data, [m, k]);
        const { y } = gemm({ x, w });
        await y.read();
        x.dispose();
        y.dispose();
      }
    },
    async single(count) {
      for (let i = 0; i < count; ++i) await pool.run({ x: data });
    },
    async together(count) {
      const client = async () => {
        for (let i = 0; i < count / 32; ++i) await pool.run({ x: data });
      };
      await Promise.all(Array.from({ length: 32 }, client));
    },
  };
  const count = { calls: 640, single: 640, together: 6400 };
  const times = { calls: [], single: [], together: [] };
  for (let round = -2; round < 15; ++round)
    for (const name of Object.keys(ways)) {
      const us = await timed(count[name], ways[name]);
      if (round >= 0) times[name].push(us);
    }
  const ratio = (name) => median(times[name].map((us, i) => us / times.together[i]));
  row('plain calls, one by one', median(times.calls), 'µs a request');
  row('pool.run, one by one', median(times.single), 'µs a request');
  row('pool.run, 32 at a time', median(times.together), 'µs a request');
  row('32 at a time against plain calls one by one', ratio('calls'), 'x', 'at least 8', ratio('calls') >= 8);
  row('32 at a time against pool.run one by one', ratio('single'), 'x', 'at least 8', ratio('single') >= 8);
  await pool.close();
  w.dispose();
}

/** Delay of timers, without their own millisecond, while `load` keeps the pool busy. */
async function loopDelay(name, load) {
  const histogram = monitorEventLoopDelay({ resolution: 1 });
  const controller = new AbortController();
  const running = load(controller.signal);
  await sleep(100);
  histogram.enable();
  await sleep(2000);
  histogram.disable();
  controller.abort();
  await running;
  const ms = (ns) => ns / 1e6;
  row(`event loop, ${name}: p50`, ms(histogram.percentile(50)), 'ms');
  row(`event loop, ${name}: p99`, ms(histogram.percentile(99)), 'ms');
  row(`event loop, ${name}: longest`, ms(histogram.max), 'ms');
}

async function delays(device) {
  const clients = (pool, count, inputs) => (signal) =>
    Promise.all(
      Array.from({ length: count }, async () => {
        while (!signal.aborted) await pool.run(inputs);
      }),
    );
  await loopDelay('idle', () => Promise.resolve());
  for (const [name, count, m, k] of [
    ['32 clients of small requests', 32, 4, 64],
    ['8 clients of 2 MiB requests', 8, 512, 1024],
  ]) {
    const w = device.random([k, k]);
    const pool = gemm.pool({ m, w }, { slots: Math.min(count, 8) });
    await loopDelay(name, clients(pool, count, { x: new Float32Array(m * k).fill(1) }));
    await pool.close();
    w.dispose();
  }
}

/** Nanoseconds of queuing once: from JavaScript, from C++, and of crossing over for nothing. */
async function queuing(device) {
  const x = device.full([1, 1], 2);
  const plan = gemm.bind({ x, w: x });
  const nothing = emptyNativeCall();
  const times = { javascript: [], native: [], nothing: [], over: [] };
  const group = 512;
  const measure = async (name, body) => {
    const from = performance.now();
    body();
    times[name].push((1e6 * (performance.now() - from)) / group);
    await device.stream.mark();
  };
  for (let i = 0; i < 400; ++i) {
    const { enqueue } = plan;
    await measure('javascript', () => {
      for (let n = 0; n < group; ++n) enqueue();
    });
    await measure('native', () => nativeLaunches(plan, group));
    await measure('nothing', () => {
      for (let n = 0; n < group; ++n) nothing();
    });
    times.over.push(times.javascript[i] - times.native[i] - times.nothing[i]);
  }
  row('plan.enqueue()', median(times.javascript), 'ns');
  row('the same launch from C++', median(times.native), 'ns');
  row('into C++ and back', median(times.nothing), 'ns');
  const over = median(times.over);
  row('enqueue above call and launch', over, 'ns', 'at most 200', over <= 200);
  plan.dispose();
}

/** Milliseconds of the first import in a fresh process; files are in the system's cache. */
function importing() {
  const code =
    "const t = performance.now(); await import('kernwatt'); console.log(performance.now() - t); process.exit(0)";
  const run = () =>
    Number(
      execFileSync(execPath, ['--input-type=module', '--eval', code], { cwd: import.meta.dirname, encoding: 'utf8' }),
    );
  run();
  const times = Array.from({ length: 11 }, run);
  row('first import', median(times), 'ms', 'below 30', median(times) < 30);
}

const device = await openDevice('cpu');
importing();
await queuing(device);
await throughput(device);
await delays(device);
await device.close();

const machine = { cpu: cpus()[0]?.model, cores: availableParallelism(), node: version, load: loadavg()[0] };
if (argv.includes('--json')) {
  stdout.write(`${JSON.stringify({ schema: 'kernwatt.server-bench/0', machine, rows }, null, 2)}\n`);
} else {
  stdout.write(`${machine.cpu}, ${machine.cores} cores, Node ${version}, load average ${machine.load.toFixed(1)}\n\n`);
  const width = Math.max(...rows.map(({ what }) => what.length));
  for (const { what, value, unit, target, met } of rows) {
    const verdict = target === null ? '' : `  target: ${target}, ${met ? 'met' : 'MISSED'}`;
    stdout.write(`${what.padEnd(width)}  ${Number(value.toPrecision(3)).toString().padStart(7)} ${unit}${verdict}\n`);
  }
}
