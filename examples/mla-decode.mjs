// A step of multi-head latent attention, as DeepSeek-V2 Lite decodes: queries absorbed by a gemm of every head, latents and rotated keys
// into a paged cache, attention over latents, and back to values. Then what a token costs in the cache, beside other attention.
//
//   node examples/mla-decode.mjs
import { attentionMla, gemm, kvAppend, openDevice, PagedCache, rope } from 'kernwatt';

const [heads, nope, rotary, latent, dimV] = [16, 128, 64, 512, 128];
const [dim, pageSize, pages] = [latent + rotary, 64, 64];
const scale = 1 / Math.sqrt(nope + rotary);
const device = await openDevice(); // a GPU that opens, else the CPU
const random = (shape, seed, sd = 1) => device.random(shape, 'bf16', { seed, sd });

// Of the layer: from latents to keys (turned over, out by in of the absorbed product) and to values, a matrix for each head.
const wuk = random([heads, latent, nope], 1, 0.05);
const wuv = random([heads, dimV, latent], 2, 0.05);

// One cache holds both: the latent, which has no head, and the rotated key, which all heads share. kvAppend takes them as values and keys.
const cCache = device.zeros([pages, pageSize, dim], 'bf16');
const rows = cCache.view([pages, pageSize, 1, dim]);
const [vCache, kCache] = [rows.slice([null, null, null, [0, latent]]), rows.slice([null, null, null, [latent, dim]])];
const cache = new PagedCache({ caches: [cCache] });

function step(sequence, tokens) {
  const from = sequence.length;
  cache.append([{ sequence, tokens }]);
  const tables = cache.tables([sequence]);
  // What the layer's projections would give.
  const [c, kRope] = [random([1, tokens, 1, latent], 10 + from), random([1, tokens, 1, rotary], 20 + from)];
  const [qNope, qRope] = [random([heads, tokens, nope], 30 + from), random([1, tokens, heads, rotary], 40 + from)];

  kvAppend({ k: kRope, v: c, kCache, vCache, ...tables, rope: true, interleaved: true });
  const q = device.empty([1, tokens, heads, dim], 'bf16');
  const ofHead = q.view([tokens, heads, dim]).permute([1, 0, 2]);
  gemm({ x: qNope, w: wuk, y: ofHead.slice([null, null, [0, latent]]) }); // absorbed
  rope({ x: qRope, y: q.slice([null, null, null, [latent, dim]]), position: from, interleaved: true });
  const { y } = attentionMla({ q, cCache, ...tables, latent, scale });
  return gemm({ x: y.view([tokens, heads, latent]).permute([1, 0, 2]), w: wuv }).y; // [heads, tokens, dimV]
}

const sequence = cache.sequence();
step(sequence, 1000);
const out = step(sequence, 1);
const values = await out.read();
console.log(
  `${sequence.length} tokens; of the last, ${values.length} values up to ${Math.max(...values.map(Math.abs)).toFixed(2)}`,
);

const bytes = { 'mla 512 + 64': 2 * dim, 'gqa 2 heads of 128': 2 * 2 * 256, 'mha 16 heads of 128': 2 * 16 * 256 };
for (const [name, count] of Object.entries(bytes))
  console.log(`${name}: ${count} bytes of cache for a token of a layer`);
await device.close();
