// What attention_gqa shares with onnxruntime's attention operators, as cases of oracle.mjs. Names of fields are those of
// attention_gqa, but for these:
//
//   op       the operator of onnxruntime
//   window   keys that a query sees, its own included: windowLeft + 1
//   lens     lengths of each batch: of its keys, and of its queries where there is more than one; the rest is padding
//   packed   true: kernwatt is given the sequences one after the other (cuQ, cuKv), onnxruntime padded
//   bias     [batch, heads] of the additive bias
//   sink     true: a logit for each head; 'smooth': a logit of 0, which onnxruntime calls smooth_softmax
//   alibi    true: slopes, which onnxruntime is given as a bias
//   mask     true: flags, which onnxruntime is given as a bias

const grouped = {
  op: 'GroupQueryAttention',
  batch: 2,
  lenQ: 70,
  lenKv: 70,
  headsQ: 8,
  headsKv: 2,
  dim: 64,
  causal: true,
};
const decode = { ...grouped, batch: 3, lenQ: 1, lenKv: 129 };
const extend = { ...grouped, batch: 1, lenQ: 5, lenKv: 133 };
const multi = { ...grouped, op: 'MultiHeadAttention', headsQ: 4, headsKv: 4, causal: false };
const cross = { ...multi, lenQ: 33, lenKv: 90 };

export const cases = [
  { name: 'prefill, groups of 4', ...grouped },
  { name: 'prefill, groups of 8', ...grouped, headsQ: 16 },
  { name: 'prefill, groups of 1 (MHA)', ...grouped, headsKv: 8 },
  { name: 'prefill, one key head (MQA)', ...grouped, headsKv: 1 },
  { name: 'prefill of 300', ...grouped, batch: 1, lenQ: 300, lenKv: 300 },
  ...[32, 80, 96, 128, 256].map((dim) => ({ name: `prefill, dim ${dim}`, ...grouped, dim })),
  { name: 'decode, groups of 4', ...decode },
  { name: 'decode, groups of 8', ...decode, headsQ: 16 },
  { name: 'decode, groups of 1 (MHA)', ...decode, headsKv: 8 },
  { name: 'decode, one key head (MQA)', ...decode, headsKv: 1 },
  { name: 'decode of 1 x 1500 keys', ...decode, batch: 1, lenKv: 1500 },
  ...[32, 96, 128].map((dim) => ({ name: `decode, dim ${dim}`, ...decode, dim })),
  { name: 'five queries after 128 keys', ...extend },

  { name: 'prefill, window of 16', ...grouped, window: 16 },
  { name: 'prefill, window of 1', ...grouped, window: 1 },
  { name: 'prefill, window as long as all', ...grouped, window: 70 },
  { name: 'decode, window of 16', ...decode, window: 16 },
  { name: 'five queries, window of 16', ...extend, window: 16 },
  { name: 'prefill, softcap', ...grouped, softcap: 2 },
  { name: 'decode, softcap', ...decode, softcap: 2 },
  { name: 'prefill, scale', ...grouped, scale: 0.3 },
  { name: 'decode, scale', ...decode, scale: 0.02 },
  { name: 'prefill, window and softcap', ...grouped, window: 16, softcap: 2 },

  { name: 'prefill, lengths', ...grouped, lens: [70, 33] },
  { name: 'prefill, lengths and window', ...grouped, lens: [33, 70], window: 16 },
  { name: 'decode, lengths', ...decode, lens: [129, 64, 17] },
  { name: 'decode, lengths and window', ...decode, lens: [17, 129, 64], window: 32 },
  { name: 'prefill, packed', ...grouped, lens: [70, 33], packed: true },
  { name: 'prefill, packed, window', ...grouped, lens: [33, 70], packed: true, window: 16 },

  { name: 'prefill, bias', ...grouped, bias: [2, 8] },
  { name: 'prefill, bias of all batches', ...grouped, bias: [1, 8] },
  { name: 'prefill, bias of all heads', ...grouped, bias: [2, 1] },
  { name: 'decode, bias', ...decode, bias: [3, 8] },
  { name: 'prefill, bias and window', ...grouped, bias: [1, 1], window: 16 },
  { name: 'prefill, alibi', ...grouped, alibi: true },
  { name: 'decode, alibi', ...decode, alibi: true },
  { name: 'prefill, mask', ...grouped, mask: true },

  { name: 'prefill, sinks', ...grouped, sink: true },
  { name: 'decode, sinks', ...decode, sink: true },
  { name: 'prefill, sinks and window', ...grouped, sink: true, window: 16 },
  { name: 'prefill, smooth softmax', ...grouped, sink: 'smooth' },
  { name: 'all keys, groups of 4', ...grouped, causal: false },

  { name: 'all keys', ...multi },
  { name: 'other keys', ...cross },
  { name: 'one query, all keys', ...cross, lenQ: 1 },
  { name: 'all keys, 16 tokens', ...multi, lenQ: 16, lenKv: 16 },
  { name: 'all keys, 256 tokens', ...multi, batch: 1, lenQ: 256, lenKv: 256 },
  ...[32, 96, 128].map((dim) => ({ name: `all keys, dim ${dim}`, ...multi, dim })),
  { name: 'all keys, dimV 32', ...multi, dimV: 32 },
  { name: 'all keys, scale', ...multi, scale: 0.3 },
  { name: 'all keys, bias', ...multi, bias: [2, 4] },
  { name: 'all keys, bias of all batches', ...multi, bias: [1, 4] },
  { name: 'all keys, bias of all', ...multi, bias: [1, 1] },
  { name: 'other keys, bias', ...cross, bias: [2, 4] },
  { name: 'other keys, lengths', ...cross, lenQ: 1, lens: [90, 41] },
  { name: 'all keys, mask', ...multi, mask: true },
  { name: 'causal', ...multi, causal: true },
  { name: 'causal, bias', ...multi, causal: true, bias: [1, 4] },
  { name: 'causal, after 20 keys', ...multi, causal: true, lenKv: 90 },
];
