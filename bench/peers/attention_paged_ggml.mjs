// Decoding one token of 1 and of 8 requests with 4096 keys in the cache, as in attention_paged.mjs, against ggml's fused attention
// (ggml_flash_attn_ext) over caches of f32 and f16 without pages, each head's keys one after the other. ggml takes q in f32.
import { dim, headsKv, headsQ, near, numbersOf } from './attention.mjs';
import { paged, shapes } from './attention_paged.mjs';
import { say, turns } from './common.mjs';
import { openGgml, peer } from './ggml.mjs';

/** Whom each element type is timed against; ggml is slower with bf16 caches than with f16. */
const pairs = [
  ['f32', 'f32'],
  ['f16', 'f16'],
  ['bf16', 'f16'],
];
const swapped = [0, 2, 1, 3];

export { title } from './attention_paged.mjs';
export { peer };
export const notes = [
  'ggml reads caches without pages; its f16 is the peer of bf16. With an f16 cache it adds values up in f16.',
];

export async function* cases(house) {
  const ggml = openGgml(house);
  if (!ggml) return say(`peers: ${peer.name} is not to be had, so nothing is held against ggml`);
  for (const { label, ...shape } of shapes) {
    const data = numbersOf(shape);
    for (const dtypes of pairs) {
      const allowed = near(dtypes, shape.lenKv);
      const ours = await paged(house, dtypes[0], shape, data);
      yield {
        label,
        facts: { ...shape, headsQ, headsKv, dim },
        flops: ours.flops,
        kernwatt: ours,
        ggml: await cached(house, ggml, dtypes[1], shape, data),
        // Sums of values in f16.
        allowed: (y) => allowed(y, 1) + (dtypes[1] === 'f16' ? 2e-3 : 0),
      };
    }
  }
}

async function cached({ stored, copiesOf }, ggml, dtype, { batch, lenKv }, data) {
  const [k, v] = await Promise.all(
    [data.k, data.v].map((numbers) => stored(dtype, numbers, [batch, lenKv, headsKv, dim], swapped)),
  );
  const copies = copiesOf(k.byteLength + v.byteLength);
  const calls = Array.from({ length: copies }, () =>
    ggml.decode({ batch, headsQ, headsKv, lenKv, dim }, data.q, dtype, k, v),
  );
  const next = turns(copies);
  let last = calls[0];
  return {
    dtype,
    copies,
    run() {
      last = calls[next()];
      last.run();
    },
    result: () => last.result(),
    release() {
      for (const call of calls) call.release();
    },
  };
}
