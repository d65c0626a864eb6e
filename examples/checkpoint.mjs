// Read a layer of a quantised checkpoint and multiply with it. A tiny checkpoint is made first; to read a real one, give its folder
// and a layer: node checkpoint.mjs ./Qwen2.5-0.5B-Instruct-GPTQ-Int4 model.layers.0.mlp.up_proj
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gemmInt4, openDevice } from 'kernwatt';
import { loadInt4Linear, openSafetensors } from 'kernwatt/checkpoint';

const [folder = await makeTiny(), name = 'model.layers.0.mlp.up_proj'] = process.argv.slice(2);
const device = await openDevice();
const checkpoint = await openSafetensors(folder);
console.log(`${checkpoint.files.length} file, ${checkpoint.tensors.size} tensors`);

const layer = await loadInt4Linear(checkpoint, name, { device });
const { rows, k, group, symmetric, source, bytes } = layer;
console.log(`${name}: ${source.format}, [${rows}, ${k}], groups of ${group}, symmetric: ${symmetric}, ${bytes} bytes`);

const x = device.random([2, k], 'bf16', { seed: 1 });
const { y } = gemmInt4({ x, ...layer.operands }, { dtype: 'f32' });
console.log('y is', y.shape, (await y.read()).subarray(0, 4));

layer.dispose(); // the weights; device.close() gives back the rest
await checkpoint.close();
await device.close();
if (!process.argv[2]) await rm(folder, { recursive: true });

/** 64 rows of 128 columns as compressed-tensors stores them: eight codes to a word, groups of 64, every scale 1/16. */
async function makeTiny() {
  const tensors = {
    weight_packed: ['I32', [64, 16], new Uint32Array(64 * 16).map((_, i) => Math.imul(i, 0x9e3779b1))],
    weight_scale: ['F32', [64, 2], new Float32Array(64 * 2).fill(1 / 16)],
    weight_shape: ['I64', [2], BigInt64Array.of(64n, 128n)],
  };
  const header = {};
  let begin = 0;
  for (const [part, [dtype, shape, { byteLength }]] of Object.entries(tensors)) {
    header[`model.layers.0.mlp.up_proj.${part}`] = { dtype, shape, data_offsets: [begin, begin + byteLength] };
    begin += byteLength;
  }
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  const made = await mkdtemp(join(tmpdir(), 'checkpoint-'));
  const parts = [length, text, ...Object.values(tensors).map(([, , data]) => Buffer.from(data.buffer))];
  await writeFile(join(made, 'model.safetensors'), Buffer.concat(parts));
  const weights = { num_bits: 4, type: 'int', strategy: 'group', group_size: 64, symmetric: true };
  const config = {
    quant_method: 'compressed-tensors',
    format: 'pack-quantized',
    config_groups: { group_0: { weights } },
  };
  await writeFile(join(made, 'config.json'), JSON.stringify({ quantization_config: config }));
  return made;
}
