// What the comparisons share: both libraries loaded, onnxruntime-node's tensors and sessions, numbers that every type holds
// exactly, copies that keep operands out of the cache, the fastest of several ways, and the test that two results agree.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { freemem, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));

export const say = (line) => process.stderr.write(`${line}\n`);
export const stop = (line) => {
  say(line);
  process.exit(1);
};

/** The value of an option as a number above 0; ends the program when it is none. */
export const positive = (name, value) =>
  Number(value) > 0 ? Number(value) : stop(`peers: ${name} is ${value}, expected a number above 0`);

if (!existsSync(join(here, '../../dist/index.js')))
  stop('peers: dist/index.js is not found, expected it to be built; run `npm run build`');
if (!['onnxruntime-node', 'koffi'].every((name) => existsSync(join(here, 'node_modules', name)))) {
  say('peers: installing onnxruntime-node and ggml into bench/peers/node_modules (about 330 MB)');
  const npm = spawnSync('npm', ['ci'], {
    cwd: here,
    stdio: ['ignore', 2, 2],
    env: { ...process.env, ONNXRUNTIME_NODE_INSTALL: 'skip' },
  });
  if (npm.status !== 0) stop('peers: npm ci in bench/peers failed; it needs the npm registry once');
}
export const kernwatt = await import('../../dist/index.js');
const require = createRequire(import.meta.url);
const onnxruntime = require('onnxruntime-node');
export const peer = {
  key: 'onnxruntime',
  name: 'onnxruntime-node',
  version: require('onnxruntime-node/package.json').version,
};

/** Opens the CPU, and onnxruntime on as many threads; `spin` leaves its idle threads spinning, as is its default. */
export async function openHouse({ threads, spin = false }) {
  const device = await kernwatt.openDevice('cpu', threads ? { threads: positive('--threads', threads) } : {});

  const options = {
    intraOpNumThreads: device.info.threads,
    interOpNumThreads: 1,
    executionMode: 'sequential',
    logSeverityLevel: 4, // errors are thrown; nothing is printed too
    extra: { session: { intra_op: { allow_spinning: spin ? '1' : '0' } } },
  };
  const types = { f32: 'float32', f16: 'float16', i32: 'int32' };
  const arrays = { f32: Float32Array, f16: Uint16Array, i32: Int32Array };
  const Half = globalThis.Float16Array;

  const house = {
    device,
    threads: device.info.threads,
    spin,
    session: (model) => onnxruntime.InferenceSession.create(model, options),

    /** A tensor of onnxruntime; elements of f16 are given as their bits. */
    tensor(type, data, shape) {
      const own = type === 'f16' && Half ? new Half(data.buffer, data.byteOffset, data.length) : data;
      return new onnxruntime.Tensor(types[type], own, shape);
    },
    empty: (type, shape) => house.tensor(type, new arrays[type](shape.reduce((a, b) => a * b, 1)), shape),
    /** Numbers as stored elements of `dtype`; `order`: the dimensions of `shape` in another order. */
    async stored(dtype, numbers, shape, order = [...shape.keys()]) {
      const whole = device.tensor(numbers, shape, dtype);
      const view = whole.permute(order);
      const elements = await view.read({ raw: true });
      for (const one of [view, whole]) one.dispose();
      return elements;
    },
    /** Elements of a tensor of onnxruntime as f32, likewise in another order. */
    async numbers({ type, data }, shape = [data.length], order = [...shape.keys()]) {
      const whole = device.tensor(data, shape, type === 'float16' ? 'f16' : 'f32');
      const view = whole.permute(order);
      const values = await view.read();
      for (const one of [view, whole]) one.dispose();
      return values;
    },

    /** As many copies of so many bytes as exceed the last-level cache twice, within a tenth of the free memory. */
    copiesOf(bytes) {
      const wanted = Math.ceil((2 * (device.info.lastLevelCacheBytes ?? 2 ** 26)) / bytes) + 1;
      return Math.max(2, Math.min(wanted, Math.floor(Math.min(freemem(), totalmem() / 2) / 10 / bytes)));
    },
  };
  return house;
}

/** Sixty-fourths from -1 to 1, exact in every type used here, so that the results can be held against each other. */
export function sixtyFourths(count, seed) {
  const values = new Float32Array(count);
  let state = seed;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    values[i] = ((state >>> 9) % 129) / 64 - 1;
  }
  return values;
}

/** 0, 1, ... count - 1, 0, ... */
export const turns = (count) => {
  let turn = 0;
  return () => turn++ % count;
};

/** Several of one product over different memory as one: each run takes the next, a result is that of the last. */
export function inTurn(products) {
  const next = turns(products.length);
  let last = products[0];
  return {
    run() {
      last = products[next()];
      return last.run();
    },
    result: () => last.result(),
    release() {
      for (const one of products) one.release();
    },
  };
}

/** The fastest of `ways` ({ how, prepare }), by the median of nine calls after a first; the others are released. */
export async function fastest(ways) {
  const tried = [];
  let best;
  for (const { how, prepare } of ways) {
    const one = await prepare();
    await one.run();
    const calls = [];
    for (let i = 0; i < 9; i++) {
      const from = performance.now();
      await one.run();
      calls.push((performance.now() - from) / 1000);
    }
    const seconds = calls.sort((a, b) => a - b)[4];
    tried.push({ how, seconds });
    if (best && seconds >= best.seconds) {
      await one.release();
      continue;
    }
    await best?.one.release();
    best = { one, how, seconds };
  }
  return { how: best.how, tried, ...best.one };
}

/** The largest |ours - theirs| over what is allowed at that element, and where; NaN counts as infinitely wrong. */
export function deviation(ours, theirs, allowed) {
  if (ours.length !== theirs.length)
    throw new Error(`peers: the result has ${ours.length} elements, expected ${theirs.length} as the peer's has`);
  const worst = { share: 0, element: 0 };
  for (let i = 0; i < ours.length; i++) {
    const difference = Math.abs(ours[i] - theirs[i]);
    if (difference === 0) continue;
    const share = difference / allowed(i);
    if (share > worst.share || Number.isNaN(share)) Object.assign(worst, { share: share || Infinity, element: i });
  }
  return worst;
}

/** Throws unless every element of two results agrees. */
export function agree(label, ours, theirs, allowed) {
  const { share, element } = deviation(ours, theirs, allowed);
  if (share <= 1) return;
  throw new Error(`${label}: element ${element} is ${ours[element]}, expected ${theirs[element]} as the peer has it`);
}
