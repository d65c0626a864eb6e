// Decoding one token of 1 and of 8 requests with 4096 keys in the cache, 32 query and 8 key/value heads of 128: kernwatt over pages
// of 16 tokens in shuffled order, onnxruntime over its own caches without pages (attention.mjs), each the fastest of its ways. Keys
// and values rotate through copies, so that neither finds them in a cache.
import { dim, headsKv, headsQ, near, numbersOf, pairs, quickest } from './attention.mjs';
import { kernwatt, turns } from './common.mjs';

const pageSize = 16;
export const shapes = [1, 8].map((batch) => ({ label: `decode ${batch} x 4096`, batch, lenQ: 1, lenKv: 4096 }));

export const title = `decoding over a paged cache, ${headsQ} query heads, ${headsKv} key/value heads of ${dim}, pages of ${pageSize}; keys and values cold`;
export const notes = [
  'onnxruntime-node reads caches without pages, and has no bf16 attention on the CPU: its f16 and f32 are the peers of bf16.',
];

export async function* cases(house) {
  for (const { label, ...shape } of shapes) {
    const data = numbersOf(shape);
    for (const dtypes of pairs) {
      const allowed = near(dtypes, shape.lenKv);
      const ours = await paged(house, dtypes[0], shape, data);
      yield {
        label,
        facts: { ...shape, headsQ, headsKv, dim, pageSize },
        flops: ours.flops,
        kernwatt: ours,
        onnxruntime: await quickest(house, dtypes[1], shape, data),
        allowed: (y) => allowed(y, 1),
      };
    }
  }
}

/** A permutation of 0 to count - 1, the same every time. */
function shuffled(count) {
  const order = Int32Array.from({ length: count }, (_, i) => i);
  let state = count;
  for (let i = count - 1; i > 0; i--) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    const other = state % (i + 1);
    [order[i], order[other]] = [order[other], order[i]];
  }
  return order;
}

/** kernwatt: a plan for each copy of the cache. */
export async function paged({ device, copiesOf }, dtype, { batch, lenKv }, data) {
  const maxPages = lenKv / pageSize;
  const page = pageSize * headsKv * dim;
  const table = shuffled(batch * maxPages);
  const pages = (numbers) => {
    const moved = new Float32Array(numbers.length);
    for (const [i, to] of table.entries()) moved.set(numbers.subarray(i * page, (i + 1) * page), to * page);
    return device.tensor(moved, [table.length, pageSize, headsKv, dim], dtype);
  };
  const q = device.tensor(data.q, [batch, 1, headsQ, dim], dtype);
  const first = { kCache: pages(data.k), vCache: pages(data.v) };
  const copies = copiesOf(2 * data.k.length * (dtype === 'f32' ? 4 : 2));
  const copyOf = (t) => device.empty(t.shape, dtype).copyFrom(t);
  const caches = Array.from({ length: copies }, (_, i) =>
    i === 0 ? first : { kCache: copyOf(first.kCache), vCache: copyOf(first.vCache) },
  );
  const fixed = {
    q,
    pageTable: device.tensor(table, [batch, maxPages]),
    lensKv: device.tensor(new Int32Array(batch).fill(lenKv)),
    y: device.empty(q.shape, dtype),
    lse: device.empty([batch, headsQ, 1]),
  };
  const plans = caches.map((cache) => kernwatt.attentionGqaPaged.bind({ ...fixed, ...cache }));
  await device.stream.mark();
  const next = turns(copies);
  return {
    dtype,
    copies,
    flops: plans[0].work.flops,
    explain: plans[0].explain(),
    run: () => plans[next()].run(),
    result: () => fixed.y.read(),
    release() {
      for (const one of [...plans, ...caches.flatMap(Object.values), ...Object.values(fixed)]) one.dispose();
    },
  };
}
