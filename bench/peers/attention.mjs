// Attention of 32 query and 8 key/value heads of 128: a causal prefill of 1 x 1024, and decoding one token with 4096 keys in the
// cache for 1 and 8 sequences. Keys and values rotate through copies, so that neither finds them in a cache.
//
// onnxruntime has several operators for this; each is tried on the shape and the fastest is timed. None copies its cache here:
// GroupQueryAttention is given one buffer as past and as pre-allocated present, which JavaScript can do by feeding and fetching
// the same tensor, and appends the last key in place; the others read keys and values where they are. MultiHeadAttention knows
// no groups, but for one query the heads of a group may be its rows, so that it reads each key once; with keys repeated to 32
// heads it would read them four times. Each library keeps keys in the layout of its own operators.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { fastest, kernwatt, sixtyFourths, turns } from './common.mjs';
import { model } from './onnx.mjs';

export const [headsQ, headsKv, dim] = [32, 8, 128];
const memoryProgram = fileURLToPath(new URL('memory.mjs', import.meta.url));
const group = headsQ / headsKv;
const shapes = [
  { label: 'prefill 1 x 1024', batch: 1, lenQ: 1024, lenKv: 1024 },
  { label: 'decode 1 x 4096', batch: 1, lenQ: 1, lenKv: 4096 },
  { label: 'decode 8 x 4096', batch: 8, lenQ: 1, lenKv: 4096 },
];
/** Whom each element type is timed against: onnxruntime has no bf16 attention on the CPU, so its f16 and f32 stand in. */
export const pairs = [
  ['f32', 'f32'],
  ['f16', 'f16'],
  ['bf16', 'f16'],
  ['bf16', 'f32'],
];

export const title = `softmax(q kᵀ / √${dim}) v, ${headsQ} query heads, ${headsKv} key/value heads of ${dim}, causal; keys and values cold`;
export const notes = [
  'onnxruntime-node has no bf16 attention on the CPU: its f16 and f32 are the peers of bf16. Of its operators the fastest for',
  'the shape is timed; none of them copies its cache. GFLOP/s count the keys that each query sees.',
];

/** Half the distance of neighbouring numbers at 1. */
const unit = { f32: 2 ** -24, f16: 2 ** -11, bf16: 2 ** -8 };

/**
 * How far two computations of the same attention may lie apart at a result y, where `weighted` is Σ w |v| (w the probabilities),
 * or anything above it:
 *
 *   round of the result      U |y|                     for each of the two, U half an ulp at 1 of its type
 *   round of probabilities   U Σ w |v|                 for each of the two that is of 16 bits
 *   scores, exponentials     2 e (Σ w |v| + |y|)       e = 4 u (√dim |scale| max|q| max|k| + 2 s + 1), u = 2^-24, s ≥ |score|
 *   sums over the n keys     2 · 4 u √n Σ w |v|        f32, errors of either sign
 *
 * @param dtypes the element types of the two
 * @returns (y, weighted) => allowed
 */
export function tolerance({ dtypes, dim, keys, scale = 1 / Math.sqrt(dim), maxQ, maxK, maxScore }) {
  const u = unit.f32;
  const e = 4 * u * (Math.sqrt(dim) * Math.abs(scale) * maxQ * maxK + 2 * maxScore + 1);
  const result = dtypes.reduce((sum, dtype) => sum + unit[dtype], 0);
  const probability = dtypes.reduce((sum, dtype) => sum + (dtype === 'f32' ? 0 : unit[dtype]), 0);
  const perWeighted = probability + 2 * e + 8 * u * Math.sqrt(keys);
  return (y, weighted) => (result + 2 * e) * Math.abs(y) + perWeighted * weighted;
}

/** Queries, keys and values. */
export const numbersOf = ({ batch, lenQ, lenKv }) => ({
  q: sixtyFourths(batch * lenQ * headsQ * dim, 1),
  k: sixtyFourths(batch * lenKv * headsKv * dim, 2),
  v: sixtyFourths(batch * lenKv * headsKv * dim, 3),
});

/** The tolerance for these numbers: they are at most 1 in size, so q k / √dim is at most √dim, and so is Σ w |v| at most 1. */
export const near = (dtypes, keys) => tolerance({ dtypes, dim, keys, maxQ: 1, maxK: 1, maxScore: Math.sqrt(dim) });

export async function* cases(house) {
  for (const { label, ...shape } of shapes) {
    const data = numbersOf(shape);
    for (const dtypes of pairs) {
      const allowed = near(dtypes, shape.lenKv);
      const ours = bound(house, dtypes[0], shape, data);
      yield {
        label,
        facts: { ...shape, headsQ, headsKv, dim },
        flops: ours.flops,
        kernwatt: ours,
        onnxruntime: await quickest(house, dtypes[1], shape, data),
        allowed: (y) => allowed(y, 1),
      };
    }
  }
}

/** kernwatt: q, y and lse once, a plan for each copy of k and v. */
function bound({ device, copiesOf }, dtype, { batch, lenQ, lenKv }, data) {
  const at = (numbers, len, heads) => device.tensor(numbers, [batch, len, heads, dim], dtype);
  const q = at(data.q, lenQ, headsQ);
  const copies = copiesOf(2 * data.k.length * (dtype === 'f32' ? 4 : 2));
  const caches = Array.from({ length: copies }, () => ({
    k: at(data.k, lenKv, headsKv),
    v: at(data.v, lenKv, headsKv),
  }));
  const out = { y: device.empty(q.shape, dtype), lse: device.empty([batch, headsQ, lenQ]) };
  const plans = caches.map((cache) => kernwatt.attentionGqa.bind({ q, ...cache, ...out, causal: true }));
  const next = turns(copies);
  return {
    dtype,
    copies,
    flops: plans[0].work.flops,
    explain: plans[0].explain(),
    run: () => plans[next()].run(),
    result: () => out.y.read(),
    release() {
      for (const one of [...plans, ...caches.flatMap(({ k, v }) => [k, v]), q, out.y, out.lse]) one.dispose();
    },
  };
}

/** The ways in which onnxruntime can compute a shape. Inputs are named after the data that they get. */
export function ways({ batch, lenQ, lenKv }, type) {
  const io = (name, ...shape) => ({ name, type, shape });
  const lengths = [
    { name: 'lens', type: 'i32', shape: [batch] },
    { name: 'longest', type: 'i32', shape: [1] },
  ];
  const contrib = (op, integers) => ({ op, domain: 'com.microsoft', integers });
  const grouped = contrib('GroupQueryAttention', { num_heads: headsQ, kv_num_heads: headsKv });
  const q = io('q', batch, lenQ, headsQ * dim);
  const y = { ...q, name: 'y' };
  if (lenQ > 1) {
    const [k, v] = ['k', 'v'].map((name) => io(name, batch, lenKv, headsKv * dim));
    const causal = { op: 'Attention', integers: { is_causal: 1, q_num_heads: headsQ, kv_num_heads: headsKv } };
    return [
      { how: 'GroupQueryAttention', node: grouped, inputs: [q, k, v, null, null, ...lengths], outputs: [y] },
      { how: 'Attention', node: causal, inputs: [q, k, v], outputs: [y] },
    ];
  }
  const [newK, newV] = ['newK', 'newV'].map((name) => io(name, batch, 1, headsKv * dim));
  const [k, v, presentK, presentV] = ['k', 'v', 'presentK', 'presentV'].map((name) =>
    io(name, batch, headsKv, lenKv, dim),
  );
  const rows = io('rows', batch, group, headsKv * dim);
  const single = io('q', batch, headsQ, 1, dim);
  return [
    {
      how: 'GroupQueryAttention, cache in place',
      node: grouped,
      inputs: [q, newK, newV, k, v, ...lengths],
      outputs: [y, presentK, presentV],
    },
    {
      how: 'MultiHeadAttention, a group as rows',
      node: contrib('MultiHeadAttention', { num_heads: headsKv }),
      inputs: [rows, k, v],
      outputs: [{ ...rows, name: 'y' }],
      byRow: true,
    },
    { how: 'Attention', node: { op: 'Attention' }, inputs: [single, k, v], outputs: [{ ...single, name: 'y' }] },
  ];
}

/** onnxruntime: the fastest of its ways. */
export async function quickest(house, dtype, shape, data) {
  const { sources, sets } = await operands(house, dtype, shape, data);
  const candidates = ways(shape, dtype).map((way) => ({
    how: way.how,
    prepare: () => prepared(house, way, sources, sets),
  }));
  return { dtype, copies: sets.length, ...(await fastest(candidates)) };
}

/** What inputs are fed with: stored elements by name, and the copies of k and v (those of a cache by head, then key). */
async function operands({ stored, copiesOf }, dtype, { batch, lenQ, lenKv }, data) {
  const swapped = [0, 2, 1, 3];
  const byHead = lenQ > 1 ? undefined : swapped;
  const [k, v] = [data.k, data.v].map((numbers) => stored(dtype, numbers, [batch, lenKv, headsKv, dim], byHead));
  const set = { k: await k, v: await v };
  const last = (numbers) => {
    const row = headsKv * dim;
    const rows = new Float32Array(batch * row);
    for (let b = 0; b < batch; b++)
      rows.set(numbers.subarray(((b + 1) * lenKv - 1) * row, (b + 1) * lenKv * row), b * row);
    return rows;
  };
  const sources = {
    q: await stored(dtype, data.q, [batch, lenQ, headsQ, dim]),
    rows: lenQ > 1 ? undefined : await stored(dtype, data.q, [batch, headsKv, group, dim], swapped),
    newK: await stored(dtype, last(data.k), [batch, headsKv, dim]),
    newV: await stored(dtype, last(data.v), [batch, headsKv, dim]),
    lens: new Int32Array(batch).fill(lenKv - 1),
    longest: new Int32Array([lenKv]),
  };
  const copies = copiesOf(set.k.byteLength + set.v.byteLength);
  return { sources, sets: Array.from({ length: copies }, () => ({ k: set.k.slice(), v: set.v.slice() })) };
}

async function prepared({ session, tensor, empty, numbers }, way, sources, sets) {
  const { how, node, inputs, outputs, byRow = false } = way;
  const loaded = await session(model(node, inputs, outputs));
  const given = inputs.filter((input) => input !== null);
  const [y, ...presents] = outputs;
  const result = empty(y.type, y.shape);
  const calls = sets.map((set) => {
    const held = { ...sources, ...set };
    const feeds = Object.fromEntries(given.map(({ name, type, shape }) => [name, tensor(type, held[name], shape)]));
    // A present that is the very tensor fed as past: appended in place.
    const present = presents.map(({ name }) => [name, feeds[name === 'presentK' ? 'k' : 'v']]);
    return { feeds, fetches: { y: result, ...Object.fromEntries(present) } };
  });
  const next = turns(calls.length);
  return {
    how,
    run() {
      const { feeds, fetches } = calls[next()];
      return loaded.run(feeds, fetches);
    },
    result: () => (byRow ? numbers(result, [y.shape[0], group, headsKv, dim], [0, 2, 1, 3]) : numbers(result)),
    release: () => loaded.release(),
  };
}

/** The memory that a causal f32 prefill takes beside its operands, for growing lengths; each in a process of its own. */
export function memory({ threads }) {
  const measured = (who, len) => {
    const { status, stdout } = spawnSync(process.execPath, [memoryProgram, who, len, threads], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 2],
    });
    if (status !== 0) throw new Error(`peers: the memory of ${who} at length ${len} could not be measured`);
    return JSON.parse(stdout);
  };
  return [1024, 4096].map((len) => ({
    len,
    kernwatt: measured('kernwatt', len),
    onnxruntime: measured('onnxruntime', len),
  }));
}

export function memoryTable(lengths) {
  const columns = [
    'length',
    'allocated',
    'resident',
    'onnxruntime resident',
    'S x S of one head',
    'S x S of all heads',
  ];
  const mb = (bytes) => (bytes === null ? 'unknown' : (bytes / 2 ** 20).toFixed(1));
  const row = (cells) => cells.map((text, i) => text.padStart(columns[i].length)).join('   ');
  return [
    'memory of one causal f32 prefill beside its operands, MiB; allocated: counted by kernwatt, resident: rise of the process',
    '',
    row(columns),
    ...lengths.map(({ len, kernwatt, onnxruntime }) => {
      const square = 4 * len * len;
      const sizes = [
        kernwatt.allocatedBytes,
        kernwatt.residentBytes,
        onnxruntime.residentBytes,
        square,
        headsQ * square,
      ];
      return row([String(len), ...sizes.map(mb)]);
    }),
  ];
}
