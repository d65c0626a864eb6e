// Serving attention from a paged cache: prompts of different lengths, one of them shared, and a decode loop that takes one token of
// every sequence a step. At the end the last step is compared with a prefill of everything at once.
//
//   node examples/serving-decode.mjs
import { attentionGqa, attentionGqaPaged, kvAppend, openDevice, PagedCache, rope } from 'kernwatt';

const [headsQ, headsKv, dim, pageSize, pages, steps] = [8, 2, 64, 16, 40, 24];
const turn = { theta: 500_000, scaling: 'llama3', factor: 8 }; // the same for queries and keys
const device = await openDevice(); // a GPU that opens, else the CPU

// One layer. A model has a pair for each; a PagedCache takes them all, so that a page is the same tokens in every layer.
const kCache = device.zeros([pages, pageSize, headsKv, dim], 'bf16');
const vCache = device.zeros([pages, pageSize, headsKv, dim], 'bf16');
const cache = new PagedCache({ caches: [kCache, vCache] });

/** What projections would make of token `t` of a sequence: the same numbers whenever they are asked for. */
const projected = (id, first, count, heads, kind) => {
  const rows = Array.from({ length: count }, (_, i) =>
    device.random([1, 1, heads, dim], 'bf16', { seed: 1_000_000 * kind + 10_000 * id + first + i }),
  );
  const all = device.empty([1, count, heads, dim], 'bf16');
  for (const [i, row] of rows.entries()) {
    const place = all.slice([null, [i, i + 1]]);
    place.copyFrom(row);
    for (const tensor of [place, row]) tensor.dispose();
  }
  return all;
};

/** Rows of several sequences in one tensor, the shorter ones padded. */
function batched(parts, heads) {
  const len = Math.max(...parts.map((part) => part.shape[1]));
  const all = device.zeros([parts.length, len, heads, dim], 'bf16');
  for (const [i, part] of parts.entries()) {
    const place = all.slice([
      [i, i + 1],
      [0, part.shape[1]],
    ]);
    place.copyFrom(part);
    for (const tensor of [place, part]) tensor.dispose();
  }
  return all;
}

/** One step: room in the cache, keys and values into it, attention over it. `ids` say whose tokens come from where on. */
function step(sequences, ids, counts) {
  const from = sequences.map(({ length }) => length);
  cache.append(sequences.map((sequence, i) => ({ sequence, tokens: counts[i] }))); // all of them, or an error and none
  const rowsOf = (heads, kind) =>
    batched(
      ids.map((id, i) => projected(id, from[i], counts[i], heads, kind)),
      heads,
    );
  const [q, k, v] = [rowsOf(headsQ, 1), rowsOf(headsKv, 2), rowsOf(headsKv, 3)];
  const tables = cache.tables(sequences);
  const len = q.shape[1];
  const places = Int32Array.from({ length: ids.length * len }, (_, i) => from[Math.floor(i / len)] + (i % len));
  const positions = device.tensor(places, [ids.length, len]);
  rope({ x: q, y: q, positions, ...turn });
  kvAppend({ k, v, kCache, vCache, ...tables, rope: true, ...turn });
  const result = attentionGqaPaged({ q, kCache, vCache, ...tables });
  for (const one of [q, k, v, positions, tables]) one.dispose(); // once the work queued on them has run
  return result;
}

// Three prompts in one step, of 40, 7 and 33 tokens, and a second answer to the first: it shares the pages of the prompt.
const sequences = [cache.sequence(), cache.sequence(), cache.sequence()];
const ids = [0, 1, 2];
for (const result of Object.values(step(sequences, ids, [40, 7, 33]))) result.dispose();
sequences.push(sequences[0].fork());
ids.push(3);
console.log(`prompts: ${cache.usedPages} of ${pages} pages, the fork costs none`);

let last;
for (let i = 0; i < steps; ++i) {
  last?.y.dispose();
  last?.lse.dispose();
  last = step(sequences, ids, [1, 1, 1, 1]);
}
console.log(`${steps} steps: ${cache.usedPages} pages for ${sequences.map(({ length }) => length).join(', ')} tokens`);

// The same for sequence 2, all tokens at once and without a cache.
const total = sequences[2].length;
const [q, k, v] = [headsQ, headsKv, headsKv].map((heads, i) => projected(2, 0, total, heads, i + 1));
for (const x of [q, k]) rope({ x, y: x, ...turn });
const whole = await attentionGqa({ q, k, v, causal: true })
  .y.slice([null, [total - 1, total]])
  .read();
const decoded = await last.y.slice([[2, 3]]).read();
const off = Math.max(...whole.map((x, i) => Math.abs(x - decoded[i])));
console.log(`token by token against all at once: off by ${off} at most`);
if (off > 2 ** -8) throw new Error('the cache holds something else than the tokens'); // a rounding of bf16

for (const sequence of sequences) sequence.free();
console.log(`freed: ${cache.freePages} of ${pages} pages`);
await device.close();
