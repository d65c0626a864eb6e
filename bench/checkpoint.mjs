// What reading a 4-bit layer takes in each format: from a file in the page cache to tensors of the CPU device, and the longest that the
// event loop waited meanwhile. Makes the files first, random codes in groups of 128 (GGUF: 32), about 24 MB each.
//
//   node bench/checkpoint.mjs [ROWS COLUMNS]        default 11008 4096
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { argv } from 'node:process';
import { setImmediate } from 'node:timers/promises';
import { openDevice } from 'kernwatt';
import { loadInt4Linear, openGguf, openSafetensors } from 'kernwatt/checkpoint';

const [rows = 11008, k = 4096] = argv.slice(2).map(Number);
const groups = k / 128;
const times = 7;

const words = (...shape) => {
  const size = shape.reduce((a, b) => a * b);
  return { dtype: 'I32', shape, data: Uint32Array.from({ length: size }, (_, i) => Math.imul(i + 1, 0x9e3779b1)) };
};
const scales = (...shape) => ({ dtype: 'F16', shape, data: new Uint16Array(shape[0] * shape[1]).fill(0x2000) });
const order = Int32Array.from({ length: k }, (_, i) => Math.floor(((i * 1031) % k) / 128));

const gptq = { qweight: words(k / 8, rows), qzeros: words(groups, rows / 8), scales: scales(groups, rows) };
const layers = {
  GPTQ: gptq,
  'GPTQ by activation order': { ...gptq, g_idx: { dtype: 'I32', shape: [k], data: order } },
  AWQ: { ...gptq, qweight: words(k, rows / 8) },
  'compressed-tensors': {
    weight_packed: words(rows, k / 8),
    weight_zero_point: words(rows / 8, groups),
    weight_scale: scales(rows, groups),
    weight_shape: { dtype: 'I64', shape: [2], data: BigInt64Array.of(BigInt(rows), BigInt(k)) },
  },
};

function safetensors(tensors) {
  const header = {};
  let begin = 0;
  for (const [part, { dtype, shape, data }] of Object.entries(tensors)) {
    header[`layer.${part}`] = { dtype, shape, data_offsets: [begin, begin + data.byteLength] };
    begin += data.byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const parts = [BigUint64Array.of(BigInt(text.length)), ...Object.values(tensors).map(({ data }) => data)];
  const [length, ...data] = parts.map(({ buffer }) => Buffer.from(buffer));
  return Buffer.concat([length, text, ...data]);
}

/** One tensor of Q4_0, whose header has 72 bytes, padded to 96. */
function gguf() {
  const head = Buffer.alloc(96);
  head.write('GGUF\x03', 'latin1');
  head.writeUInt8(1, 8);
  head.writeUInt8(12, 24);
  head.write('layer.weight', 32);
  for (const [value, at] of [
    [2, 44],
    [k, 48],
    [rows, 56],
    [2, 64],
  ])
    head.writeUInt32LE(value, at);
  return Buffer.concat([head, Buffer.alloc((rows * k * 18) / 32, 0x2a)]);
}

/** Milliseconds of each, and the longest between two turns of the event loop. */
async function timed(load) {
  const spent = [];
  let longest = 0;
  let running = true;
  const watch = (async () => {
    for (let last = performance.now(); running; ) {
      await setImmediate();
      const now = performance.now();
      longest = Math.max(longest, now - last);
      last = now;
    }
  })();
  for (let i = 0; i < times; ++i) {
    const from = performance.now();
    const layer = await load();
    spent.push(performance.now() - from);
    layer.dispose();
  }
  running = false;
  await watch;
  return { median: spent.sort((a, b) => a - b)[times >> 1], longest };
}

const folder = await mkdtemp(join(tmpdir(), 'checkpoint-'));
const device = await openDevice('cpu');
try {
  for (const name of [...Object.keys(layers), 'GGUF Q4_0']) {
    const path = join(folder, 'file');
    await writeFile(path, layers[name] ? safetensors(layers[name]) : gguf());
    const checkpoint = await (layers[name] ? openSafetensors : openGguf)(path);
    const { median, longest } = await timed(async () => {
      const layer = await loadInt4Linear(checkpoint, 'layer', { device, checkpointFormat: 'gptq_v2' });
      await device.stream.sync();
      return layer;
    });
    console.log(
      `${name.padEnd(26)} median ${median.toFixed(0).padStart(4)} ms   longest turn ${longest.toFixed(0)} ms`,
    );
    await checkpoint.close();
  }
} finally {
  await device.close();
  await rm(folder, { recursive: true });
}
