// An independent oracle for attention: onnxruntime-node's GroupQueryAttention and MultiHeadAttention on the features that they
// share with attention_gqa, compared elementwise with kernwatt's `cpu` and `ref`, in f32, f16 and bf16 (of which onnxruntime
// computes the same numbers in f32). Inputs are normal random numbers.
//
//   node bench/peers/oracle.mjs [--threads N] [--filter TEXT]
//
// A line a case: the largest deviations, each as its share of what `tolerance` (attention.mjs) allows at that element, with
// Σ w |v| computed by `ref` and at most max|v|. Tried by making kernwatt wrong on purpose: a window wider or narrower by one
// key fails in every type, a scale 0.1 % too large in every f32 case where a query sees more than one key.
//
// Exits 1 when a case fails. A case that onnxruntime cannot run is `declined` with its message, and is no pass. Installs
// onnxruntime-node into bench/peers/node_modules on first use.
import { parseArgs } from 'node:util';
import { tolerance } from './attention.mjs';
import { deviation, kernwatt, openHouse, peer, stop } from './common.mjs';
import { model } from './onnx.mjs';
import { cases } from './oracle.cases.mjs';

const { values: options } = parseArgs({
  options: { threads: { type: 'string' }, filter: { type: 'string', default: '' } },
});
const house = await openHouse(options);
const { device } = house;

const pairs = [
  ['f32', 'f32'],
  ['f16', 'f16'],
  ['bf16', 'f32'],
];
/** Added to a score, it hides a key: exp of it is 0 in f32. */
const hides = -10000;

const largest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
const product = (sizes) => sizes.reduce((a, b) => a * b, 1);

/** Normal random numbers that `dtype` holds exactly. */
async function draw(dtype, shape, seed) {
  const tensor = device.random(shape, dtype, { seed });
  const values = await tensor.read();
  tensor.dispose();
  return { dtype, shape, values };
}

/** Every input of a case as shape and numbers. */
async function drawn(one, dtype) {
  const { batch, lenQ, lenKv, headsQ, headsKv, dim, dimV, bias, sink, alibi, mask } = one;
  const each = (dtype, value) => ({ dtype, shape: [headsQ], values: Float32Array.from({ length: headsQ }, value) });
  return {
    q: await draw(dtype, [batch, lenQ, headsQ, dim], 1),
    k: await draw(dtype, [batch, lenKv, headsKv, dim], 2),
    v: await draw(dtype, [batch, lenKv, headsKv, dimV], 3),
    bias: bias && (await draw(dtype, [...bias, lenQ, lenKv], 4)),
    // Halves and powers of two: exact in every type, also times a distance.
    sink: sink && each('f32', (_, head) => (sink === 'smooth' ? 0 : head / 2 - 1)),
    alibi: alibi && each('f32', (_, head) => 2 ** -(head + 1)),
    mask: mask && (await flags([1, headsQ, lenQ, lenKv])),
  };
}

/** Flags that hide a third of the keys, but never the one at the query's own place. */
async function flags(shape) {
  const [, , lenQ, lenKv] = shape;
  const { values } = await draw('f32', shape, 5);
  const own = (i) => i % lenKv === (Math.floor(i / lenKv) % lenQ) + lenKv - lenQ;
  return { dtype: 'u8', shape, values: Uint8Array.from(values, (value, i) => (value > -0.4 || own(i) ? 1 : 0)) };
}

/** Rows [from, to) of each batch of [batch, len, heads, dim]; bounds by batch. */
function rows({ dtype, shape: [batch, len, heads, dim], values }, from, to) {
  const row = heads * dim;
  const parts = Array.from({ length: batch }, (_, b) =>
    values.subarray((b * len + from(b)) * row, (b * len + to(b)) * row),
  );
  const joined = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return { dtype, shape: [batch, joined.length / batch / row, heads, dim], values: joined };
}

/** y of one backend of kernwatt, [batch, lenQ, headsQ, dimV]. */
async function ours({ batch, lenQ, causal, window, softcap, scale, lens, packed }, inputs, backend) {
  const args = { ...inputs };
  if (packed) {
    for (const name of ['q', 'k', 'v']) {
      const { shape, ...joined } = rows(
        inputs[name],
        () => 0,
        (b) => lens[b],
      );
      args[name] = { ...joined, shape: [1, batch * shape[1], ...shape.slice(2)] };
    }
    const offsets = [0];
    for (const len of lens) offsets.push(offsets.at(-1) + len);
    args.cuQ = args.cuKv = { dtype: 'i32', shape: [batch + 1], values: Int32Array.from(offsets) };
  } else if (lens) {
    args.lensKv = { dtype: 'i32', shape: [batch], values: Int32Array.from(lens) };
    if (lenQ > 1) args.lensQ = args.lensKv;
  }
  const tensors = {};
  for (const [name, one] of Object.entries(args))
    if (one) tensors[name] = device.tensor(one.values, one.shape, one.dtype);
  const windowLeft = window === undefined ? -1 : window - 1;
  const plan = kernwatt.attentionGqa.bind({ ...tensors, causal, windowLeft, softcap, scale }, { backend });
  const { y, lse } = await plan.run();
  let values = await y.read();
  for (const one of [plan, y, lse, ...Object.values(tensors)]) one.dispose();
  if (packed) {
    const row = values.length / lens.reduce((a, b) => a + b);
    const padded = new Float32Array(batch * lenQ * row);
    for (const [b, len] of lens.entries()) {
      padded.set(values.subarray(0, len * row), b * lenQ * row);
      values = values.subarray(len * row);
    }
    return padded;
  }
  return values;
}

/** What is added to the scores: the bias itself, or one that says what `alibi` or `mask` say. */
function additive({ lenQ, lenKv, headsQ }, { bias, alibi, mask }) {
  if (bias || !(alibi || mask)) return bias;
  const shape = [1, headsQ, lenQ, lenKv];
  const values = Float32Array.from({ length: product(shape) }, (_, i) => {
    const [key, query, head] = [i % lenKv, Math.floor(i / lenKv) % lenQ, Math.floor(i / lenKv / lenQ)];
    if (mask) return mask.values[i] ? 0 : hides;
    return -alibi.values[head] * Math.abs(query + lenKv - lenQ - key);
  });
  return { shape, values };
}

class Declined extends Error {}

/** The first output of a model; throws Declined where onnxruntime does not run it. */
async function answer(bytes, feeds) {
  try {
    const session = await house.session(bytes);
    const { y } = await session.run(feeds);
    await session.release();
    return await house.numbers(y);
  } catch (error) {
    throw new Declined(error.message.split('\n')[0], { cause: error });
  }
}

/** y of onnxruntime's operator, [batch, lenQ, headsQ, dimV]; rows past a length are 0. */
async function theirs(one, inputs, type) {
  const { op, batch, lenQ, lenKv, headsQ, headsKv, dim, dimV, causal, window, softcap, scale, lens, sink } = one;
  const total = (b) => lens?.[b] ?? lenKv;
  const cached = causal && lenKv > lenQ;
  const feeds = {};
  const outputs = [{ name: 'y', type, shape: [batch, lenQ, headsQ * dimV] }];
  const given = (name, elementType, data, shape) => {
    feeds[name] = house.tensor(elementType, data, shape);
    return { name, type: elementType, shape };
  };
  const stored = async (name, { values }, shape) => given(name, type, await house.stored(type, values, shape), shape);
  const joined = (name, tensor) => {
    const [b, len, heads, size] = tensor.shape;
    return stored(name, tensor, [b, len, heads * size]);
  };
  const last = (tensor) => (cached ? rows(tensor, (b) => total(b) - lenQ, total) : tensor);
  const q = await joined('q', inputs.q);
  const [k, v] = [await joined('k', last(inputs.k)), await joined('v', last(inputs.v))];
  const add = additive(one, inputs);
  const bias = add ? await stored('bias', add, add.shape) : null;
  const grouped = op === 'GroupQueryAttention';
  // GroupQueryAttention appends to a cache of full length; MultiHeadAttention is given the keys before and joins them.
  const past = async (name, tensor) => {
    const before = grouped
      ? tensor
      : rows(
          tensor,
          () => 0,
          () => lenKv - lenQ,
        );
    const [b, len, heads, size] = before.shape;
    const data = await house.stored(type, before.values, before.shape, [0, 2, 1, 3]);
    return given(name, type, data, [b, heads, len, size]);
  };
  const caches = cached ? [await past('pastK', inputs.k), await past('pastV', inputs.v)] : [null, null];
  const lengths = (minus) => Int32Array.from({ length: batch }, (_, b) => total(b) - minus);
  let node;
  let operands;
  if (grouped) {
    const longest = Int32Array.of(Math.max(...lengths(0)));
    const logits = sink === true ? await stored('sink', inputs.sink, [headsQ]) : null;
    operands = [q, k, v, ...caches, given('lens', 'i32', lengths(1), [batch]), given('longest', 'i32', longest, [1])];
    operands.push(null, null, null, bias, logits);
    node = { integers: { num_heads: headsQ, kv_num_heads: headsKv }, floats: {} };
    if (window !== undefined) node.integers.local_window_size = window;
    if (sink === 'smooth') node.integers.smooth_softmax = 1;
    if (!causal) node.integers.causal = 0;
    if (softcap !== undefined) node.floats.softcap = softcap;
  } else {
    const keys = lens ? given('keys', 'i32', lengths(0), [batch]) : null;
    operands = [q, k, v, null, keys, bias, ...caches];
    node = { integers: { num_heads: headsQ, unidirectional: causal ? 1 : 0 }, floats: {} };
  }
  if (scale !== undefined) node.floats.scale = scale;
  if (cached)
    for (const [name, size] of Object.entries({ presentK: dim, presentV: dimV }))
      outputs.push({ name, type, shape: [batch, headsKv, lenKv, size] });
  while (operands.at(-1) === null) operands.pop();
  const values = await answer(model({ op, domain: 'com.microsoft', ...node }, operands, outputs), feeds);
  if (lens && lenQ > 1)
    for (const [b, len] of lens.entries())
      values.fill(0, (b * lenQ + len) * headsQ * dimV, (b + 1) * lenQ * headsQ * dimV);
  return values;
}

/** What two results may differ by, for each element. */
async function allowance(one, inputs, dtypes) {
  const norm = ({ shape, values }) => {
    const size = shape.at(-1);
    let most = 0;
    for (let i = 0; i < values.length; i += size) most = Math.max(most, Math.hypot(...values.subarray(i, i + size)));
    return most;
  };
  const { dim, lenKv, scale = 1 / Math.sqrt(dim), softcap } = one;
  const score = Math.abs(scale) * norm(inputs.q) * norm(inputs.k);
  const added = additive(one, inputs)?.values.filter((value) => value !== hides) ?? [];
  const allowed = tolerance({
    dtypes,
    dim,
    keys: lenKv,
    scale,
    maxQ: largest(inputs.q.values),
    maxK: largest(inputs.k.values),
    maxScore: (softcap ? Math.min(softcap, score) : score) + largest(added),
  });
  const v = { ...inputs.v, values: inputs.v.values.map(Math.abs) };
  const most = largest(v.values);
  const weighted = await ours(one, { ...inputs, v }, 'ref');
  return (y, i) => allowed(y, Math.min(weighted[i], most));
}

/** One case in one pair of types: `passed`, `failed` or `declined`, and the numbers or the reason. */
async function compared(one, dtype, type) {
  const inputs = await drawn(one, dtype);
  let expected;
  try {
    expected = await theirs(one, inputs, type);
  } catch (error) {
    if (error instanceof Declined) return { verdict: 'declined', detail: error.message };
    throw error;
  }
  const allowed = await allowance(one, inputs, [dtype, type]);
  const details = [];
  let verdict = 'passed';
  for (const backend of ['cpu', 'ref']) {
    const values = await ours(one, inputs, backend);
    const { share, element } = deviation(values, expected, (i) => allowed(expected[i], i));
    details.push(`${backend} ${share.toFixed(2)}`);
    if (share <= 1) continue;
    verdict = 'failed';
    details.push(`(y[${element}] is ${values[element]}, expected ${expected[element]})`);
  }
  return { verdict, detail: details.join(' ') };
}

const counts = { passed: 0, failed: 0, declined: 0 };
const width = Math.max(...cases.map(({ name }) => name.length));
for (const given of cases) {
  const one = { dimV: given.dim, ...given };
  for (const [dtype, type] of pairs) {
    const { op, name, batch, lenQ, lenKv, headsQ, headsKv, dim } = one;
    const shape = `${batch} x ${lenQ}/${lenKv}, ${headsQ}/${headsKv} x ${dim}`;
    const label = `${op.padEnd(19)} ${name.padEnd(width)} ${dtype.padEnd(4)} ${shape.padEnd(22)}`;
    if (!label.includes(options.filter)) continue;
    const { verdict, detail } = await compared(one, dtype, type);
    counts[verdict]++;
    console.log(`${verdict.padEnd(8)}  ${label}  ${detail}`);
  }
}
await device.close();
if (counts.passed + counts.failed + counts.declined === 0)
  stop(`oracle: --filter is ${options.filter}, expected part of a case's line`);
if (counts.declined) console.log(`${counts.declined} declined by ${peer.name} ${peer.version}`);
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed ? 1 : 0;
