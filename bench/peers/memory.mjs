// The memory that one causal f32 prefill takes beside its operands, as JSON. A program of its own: memory that earlier work freed
// would hide what this takes from the operating system.
//
//   node bench/peers/memory.mjs kernwatt|onnxruntime LENGTH THREADS
import { readFileSync, writeFileSync } from 'node:fs';
import { dim, headsKv, headsQ, ways } from './attention.mjs';
import { kernwatt, openHouse, positive } from './common.mjs';
import { model } from './onnx.mjs';

const [who, length, threads] = process.argv.slice(2);
const len = positive('LENGTH', length);
const house = await openHouse({ threads });

/** How far the resident memory of this process rises above where it is while `work` runs; null where Linux does not say. */
async function residentRise(work) {
  const bytes = (name) => 1024 * Number(readFileSync('/proc/self/status', 'utf8').match(`${name}:\\s*(\\d+) kB`)[1]);
  try {
    writeFileSync('/proc/self/clear_refs', '5'); // the peak starts again from here
  } catch {
    await work();
    return null;
  }
  const before = bytes('VmRSS');
  await work();
  return bytes('VmHWM') - before;
}

/** By the library's own allocator, which counts exactly, and by the operating system. */
async function ours({ device }) {
  const at = (heads) => device.random([1, len, heads, dim]);
  const args = { q: at(headsQ), k: at(headsKv), v: at(headsKv), y: at(headsQ), lse: device.zeros([1, headsQ, len]) };
  await device.stream.mark();
  const operandBytes = device.memory().currentBytes;
  const residentBytes = await residentRise(async () => {
    await kernwatt.attentionGqa.bind({ ...args, causal: true }).run();
  });
  return { operandBytes, allocatedBytes: device.memory().peakBytes - operandBytes, residentBytes };
}

/** By the operating system; every operand has been written, so that only what the operator allocates is new. */
async function theirs({ session, tensor }) {
  const { how, node, inputs, outputs } = ways({ batch: 1, lenQ: len, lenKv: len }, 'f32')[0];
  const loaded = await session(model(node, inputs, outputs));
  const lengths = { lens: new Int32Array([len - 1]), longest: new Int32Array([len]) };
  const touched = ({ name, type, shape }) => {
    const data = lengths[name] ?? new Float32Array(shape.reduce((a, b) => a * b)).fill(0.5);
    return [name, tensor(type, data, shape)];
  };
  const feeds = Object.fromEntries(inputs.filter((input) => input !== null).map(touched));
  const fetches = Object.fromEntries(outputs.map(touched));
  return { how, residentBytes: await residentRise(() => loaded.run(feeds, fetches)) };
}

process.stdout.write(JSON.stringify(await (who === 'kernwatt' ? ours : theirs)(house)));
await house.device.close();
