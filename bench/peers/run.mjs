// kernwatt beside onnxruntime-node, the fastest package on npm for these operators, and for products of weights ggml as well, on
// the same number of threads. Interleaved by compare() (blocks of A B B A), timed by the wall clock from JavaScript, since
// onnxruntime-node offers no other. Before a pair is timed, its results are held against each other.
//
//   node bench/peers/run.mjs [gemm] [gemm_ggml] [gemm_int4] [gemm_int4_ggml] [attention] [attention_paged]
//     [attention_paged_ggml] [--threads N] [--seconds S] [--spin] [--json]
//
// Without a name every operator runs. A peer's threads are told not to spin when idle, or they would take the processor from
// whoever runs next; --spin leaves them at their default.
import { parseArgs } from 'node:util';
import * as attention from './attention.mjs';
import * as attentionPaged from './attention_paged.mjs';
import * as attentionPagedGgml from './attention_paged_ggml.mjs';
import { agree, kernwatt, peer as onnxruntime, openHouse, positive, say, stop } from './common.mjs';
import * as gemm from './gemm.mjs';
import * as gemmGgml from './gemm_ggml.mjs';
import * as gemmInt4 from './gemm_int4.mjs';
import * as gemmInt4Ggml from './gemm_int4_ggml.mjs';

const operators = {
  gemm,
  gemm_ggml: gemmGgml,
  gemm_int4: gemmInt4,
  gemm_int4_ggml: gemmInt4Ggml,
  attention,
  attention_paged: attentionPaged,
  attention_paged_ggml: attentionPagedGgml,
};
const peerOf = (name) => operators[name].peer ?? onnxruntime;

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string' },
    seconds: { type: 'string', default: '15' },
    spin: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
  },
});
const chosen = positionals.length ? positionals : Object.keys(operators);
for (const name of chosen)
  if (!Object.hasOwn(operators, name))
    stop(`peers: operator is ${name}, expected ${Object.keys(operators).join(' or ')}`);
const seconds = positive('--seconds', options.seconds);
const house = await openHouse(options);

/** One pair: checked, timed, released. */
async function timed(op, { label, facts, flops, kernwatt: ours, allowed, ...others }) {
  const { key } = peerOf(op);
  const theirs = others[key];
  const name = `${op} ${label} ${ours.dtype} against ${theirs.dtype}`;
  say(`peers: ${name}`);
  await ours.run();
  await theirs.run();
  const expected = await theirs.result();
  agree(name, await ours.result(), expected, (i) => allowed(expected[i]));
  const { ratios, records } = await kernwatt.compare(
    { kernwatt: ours.run, [key]: theirs.run },
    { target: 0.02, maxSeconds: seconds },
  );
  const side = ({ dtype, copies, how, tried, explain }, record) => ({
    dtype,
    copies,
    ...record.time.host,
    flopsPerSecond: flops / record.time.host.median,
    ...(how && { how, tried }),
    ...(explain && { explain }),
  });
  const result = {
    op,
    label,
    ...facts,
    threads: house.threads,
    kernwatt: side(ours, records.kernwatt),
    [key]: side(theirs, records[key]),
    speedup: ratios[key].value,
    speedupCi95: ratios[key].ci95,
  };
  await ours.release();
  await theirs.release();
  return result;
}

const results = [];
const memory = {};
for (const name of chosen) {
  for await (const one of operators[name].cases(house)) results.push(await timed(name, one));
  if (operators[name].memory) memory[name] = await operators[name].memory(house);
}
await house.device.close();

const cell = ({ dtype, median, flopsPerSecond }) =>
  `${dtype.padEnd(4)} ${(median * 1e3).toFixed(3).padStart(9)} ms ${(flopsPerSecond / 1e9).toFixed(1).padStart(6)} GFLOP/s`;

function table(name) {
  const peer = peerOf(name);
  const own = results.filter((result) => result.op === name);
  const width = Math.max(5, ...own.map(({ label }) => label.length));
  return [
    operators[name].title,
    '',
    `${''.padEnd(width)}   ${'kernwatt'.padEnd(32)}   ${`${peer.name} ${peer.version}`.padEnd(32)}   kernwatt is faster by (95 % interval)`,
    ...own.map(({ label, kernwatt, speedup, speedupCi95, [peer.key]: theirs }) => {
      const interval = speedupCi95 ? ` (${speedupCi95.map((bound) => bound.toFixed(2)).join(' to ')})` : '';
      const how = theirs.how ? `   ${theirs.how}` : '';
      return `${label.padEnd(width)}   ${cell(kernwatt)}   ${cell(theirs)}   ${speedup.toFixed(2)}x${interval}${how}`;
    }),
    '',
    ...(memory[name] ? [...operators[name].memoryTable(memory[name]), ''] : []),
    ...operators[name].notes,
    '',
  ];
}

if (options.json) {
  const peers = Object.fromEntries(chosen.map((name) => [name, peerOf(name)]));
  const report = { schema: 'kernwatt.peers/0', device: house.device.info, peers, results, memory };
  process.stdout.write(`${JSON.stringify(report, null, 2)}\n`);
} else {
  const machine = `${house.device.info.name}, ${house.threads} threads; wall clock from JavaScript`;
  process.stdout.write(`${[machine, '', ...chosen.flatMap(table)].join('\n')}\n`);
}
