// GEMM beside onnxruntime-node, the fastest package on npm for it: y = x Wᵀ with K = N = 4096, M in {1, 16, 512}, on the same
// number of threads. Interleaved by compare() (blocks of A B B A), timed by the wall clock from JavaScript, since
// onnxruntime-node offers no other. Weights rotate through copies, so that neither finds them in a cache.
//
//   node bench/peers/run.mjs [--threads N] [--seconds S] [--spin] [--json]
//
// onnxruntime-node packs constant weights when it loads a model; kernwatt is given them as they are and packs in every call.
// Its threads are told not to spin when idle, or they would take the processor from whoever runs next; --spin leaves them at
// its default.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { matmulModel } from './onnx.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const say = (line) => process.stderr.write(`${line}\n`);
const stop = (line) => {
  say(line);
  process.exit(1);
};

const { values: options } = parseArgs({
  options: {
    threads: { type: 'string' },
    seconds: { type: 'string', default: '15' },
    spin: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const positive = (name, value) =>
  Number(value) > 0 ? Number(value) : stop(`bench:peers: ${name} is ${value}, expected a number above 0`);

if (!existsSync(join(here, '../../dist/index.js')))
  stop('bench:peers: dist/index.js not found; run `npm run build` first');
if (!existsSync(join(here, 'node_modules/onnxruntime-node'))) {
  say('bench:peers: installing the peers into bench/peers (about 290 MB)');
  const npm = spawnSync('npm', ['ci'], {
    cwd: here,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
  });
  if (npm.status !== 0) stop('bench:peers: npm ci in bench/peers failed; the peers need the npm registry once');
}
const { compare, gemm, openDevice } = await import('../../dist/index.js');
const onnxruntime = createRequire(import.meta.url)('onnxruntime-node');
const version = createRequire(import.meta.url)('onnxruntime-node/package.json').version;

const k = 4096;
const n = 4096;
const rows = [1, 16, 512];
/** Whom each element type is timed against: onnxruntime has no bf16 product on the CPU, so its f16 and f32 stand in. */
const pairs = [
  ['f32', 'f32'],
  ['bf16', 'f16'],
  ['bf16', 'f32'],
];

const device = await openDevice('cpu', options.threads ? { threads: positive('--threads', options.threads) } : {});
const threads = device.info.threads;
const seconds = positive('--seconds', options.seconds);

/** Sixty-fourths from -1 to 1, exact in every type used here, so that the results can be held against each other. */
function sixtyFourths(count, seed) {
  const values = new Float32Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = ((state >>> 9) % 129) / 64 - 1;
  }
  return values;
}

/** f16 bits of numbers that f16 holds exactly and that are 0 or not denormal. */
function toF16(values) {
  const bits = new Uint32Array(values.buffer);
  const half = new Uint16Array(values.length);
  for (let i = 0; i < half.length; i++)
    half[i] = bits[i] << 1 === 0 ? 0 : ((bits[i] >>> 16) & 0x8000) | (((bits[i] & 0x7fffffff) - 0x38000000) >>> 13);
  return half;
}

function fromF16(half) {
  const values = new Float32Array(half.length);
  for (const [i, h] of half.entries()) {
    const e = (h >> 10) & 31;
    const size = e === 0 ? (h & 1023) / 2 ** 24 : (1 + (h & 1023) / 1024) * 2 ** (e - 15);
    values[i] = h & 0x8000 ? -size : size;
  }
  return values;
}

function transpose(w) {
  const t = new Float32Array(w.length);
  for (let i = 0; i < n; i += 64)
    for (let p = 0; p < k; p++) for (let j = i; j < i + 64; j++) t[p * n + j] = w[j * k + p];
  return t;
}

const w = sixtyFourths(n * k, 1);
const wTransposed = transpose(w);

/** As many copies as exceed the last-level cache twice, within a tenth of the free memory. */
function copiesOf(elementBytes) {
  const bytes = n * k * elementBytes;
  const wanted = Math.ceil((2 * (device.info.lastLevelCacheBytes ?? 2 ** 26)) / bytes) + 1;
  return Math.max(2, Math.min(wanted, Math.floor(Math.min(freemem(), totalmem() / 2) / 10 / bytes)));
}

const turns = (count) => {
  let turn = 0;
  return () => turn++ % count;
};

/** Both sides: run() computes into y and is what is timed; result() is y in f32; release(). */
function kernwatt(type, m, x) {
  const tensor = device.tensor(x, [m, k], type);
  const weights = Array.from({ length: copiesOf(type === 'f32' ? 4 : 2) }, () => device.tensor(w, [n, k], type));
  const y = device.empty([m, n], type);
  const plans = weights.map((one) => gemm.bind({ x: tensor, w: one, y }));
  const next = turns(plans.length);
  return {
    copies: plans.length,
    explain: plans[0].explain(),
    run: () => plans[next()].run(),
    result: async () => Float32Array.from(await y.read()),
    release() {
      for (const one of [...plans, ...weights, tensor, y]) one.dispose();
    },
  };
}

async function onnx(type, m, x) {
  const model = matmulModel(type, m, k, n, type === 'f32' ? wTransposed : toF16(wTransposed));
  const Half = globalThis.Float16Array;
  const wrap = (half) => (Half ? new Half(half.buffer) : half);
  const tensor = (data, shape) =>
    type === 'f32'
      ? new onnxruntime.Tensor('float32', data, shape)
      : new onnxruntime.Tensor('float16', wrap(data), shape);
  const sessions = [];
  for (let i = 0; i < copiesOf(type === 'f32' ? 4 : 2); i++)
    sessions.push(
      await onnxruntime.InferenceSession.create(model, {
        intraOpNumThreads: threads,
        interOpNumThreads: 1,
        executionMode: 'sequential',
        extra: { session: { intra_op: { allow_spinning: options.spin ? '1' : '0' } } },
      }),
    );
  const feeds = { x: tensor(type === 'f32' ? x : toF16(x), [m, k]) };
  const fetches = { y: tensor(type === 'f32' ? new Float32Array(m * n) : new Uint16Array(m * n), [m, n]) };
  const next = turns(sessions.length);
  return {
    copies: sessions.length,
    run: () => sessions[next()].run(feeds, fetches),
    async result() {
      const { y } = await sessions[0].run(feeds);
      if (type === 'f32') return y.data;
      return y.data instanceof Uint16Array ? fromF16(y.data) : Float32Array.from(y.data);
    },
    async release() {
      for (const session of sessions) await session.release();
    },
  };
}

/** Throws when two results differ by more than the roundings of their types to 16 bits; in f32 the sums here are exact. */
function agree(label, ours, theirs, exact) {
  for (const [i, value] of ours.entries()) {
    const allowed = exact ? 0 : 2 ** -7 * Math.abs(theirs[i]) + 2 ** -8;
    if (!(Math.abs(value - theirs[i]) <= allowed))
      throw new Error(`${label}: element ${i} is ${value}, expected ${theirs[i]} as onnxruntime-node has it`);
  }
}

const results = [];
for (const m of rows) {
  const x = sixtyFourths(m * k, 2);
  for (const [ours, theirs] of pairs) {
    const label = `M=${m} ${ours} against ${theirs}`;
    say(`bench:peers: ${label}`);
    const a = kernwatt(ours, m, x);
    const b = await onnx(theirs, m, x);
    await a.run();
    agree(label, await a.result(), await b.result(), ours === 'f32');
    const { ratios, records } = await compare(
      { kernwatt: a.run, onnxruntime: b.run },
      { target: 0.02, maxSeconds: seconds },
    );
    const flops = 2 * m * n * k;
    const side = (record) => ({ ...record.time.host, flopsPerSecond: flops / record.time.host.median });
    results.push({
      m,
      n,
      k,
      threads,
      kernwatt: { dtype: ours, copies: a.copies, ...side(records.kernwatt), explain: a.explain },
      onnxruntime: { dtype: theirs, copies: b.copies, ...side(records.onnxruntime) },
      speedup: ratios.onnxruntime.value,
      speedupCi95: ratios.onnxruntime.ci95,
    });
    a.release();
    await b.release();
  }
}
await device.close();

if (options.json) {
  const peer = { name: 'onnxruntime-node', version };
  process.stdout.write(
    `${JSON.stringify({ schema: 'kernwatt.peers/0', device: device.info, peer, results }, null, 2)}\n`,
  );
} else {
  const cell = ({ dtype, median, flopsPerSecond }) =>
    `${dtype.padEnd(4)} ${(median * 1e3).toFixed(3).padStart(9)} ms ${(flopsPerSecond / 1e9).toFixed(1).padStart(6)} GFLOP/s`;
  const lines = results.map(({ m, kernwatt, onnxruntime, speedup, speedupCi95 }) => {
    const interval = speedupCi95 ? ` (${speedupCi95.map((bound) => bound.toFixed(2)).join(' to ')})` : '';
    return `${String(m).padStart(5)}   ${cell(kernwatt)}   ${cell(onnxruntime)}   ${speedup.toFixed(2)}x${interval}`;
  });
  process.stdout.write(
    [
      `y = x Wᵀ, K = N = 4096, ${threads} threads, ${device.info.name}; weights cold; wall clock from JavaScript`,
      '',
      `    M   ${'kernwatt'.padEnd(32)}   ${`onnxruntime-node ${version}`.padEnd(32)}   kernwatt is faster by (95 % interval)`,
      ...lines,
      '',
      'onnxruntime-node has no bf16 product on the CPU: its f16 and f32 are the peers of bf16.',
      '',
    ].join('\n'),
  );
}
