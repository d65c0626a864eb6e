// Writes test/gpu/cases.jsonl: every case of every operator and some random ones, with every choice made, for programs that
// need no Node (test/gpu/check.cc). `--check` writes nothing and exits 1 when the file is out of date.
//
//   node tools/cases.mjs [--check]
//
// The first line is { schema, guard, params }: elements of poison on either side of an operand, and the parameters of each
// operator that a case does not name. Every other line is a case:
//
//   op, case   names; tensors and parameters are spelt as in the C++ Args struct
//   flops      what one call computes
//   params     parameters that differ from those of the first line
//   fill       [distribution, a, b] of operands with a seed (kernels/core/host/distribution.h) and no fill of their own
//   exact      outputs that must be the exact result, rounded once
//   in_place   the input whose memory the output takes over
//   operands   by name: dtype, shape; stride where it is not row-major; offset from the buffer's begin where that is not `guard`;
//              fill where it is another than the case's; for inputs one of seed, values (in row-major order, repeated dimensions once), value (of all elements) and flags
//              (a seed: each 0 with a probability drawn first, else 1 or 2, by mulberry32); unread: parts that nothing may
//              read, as [begin, end) of each dimension
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { importBuilt } from './built.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const file = join(root, 'test/gpu/cases.jsonl');
/** Random cases of each operator, of seeds from 0. */
const random = 60;

const [
  ops,
  { guard, placementOf, planCase },
  { originFor, seedFor },
  { fuzzCase },
  { snakeCase },
  { rowMajor },
  { isInteger, isPaired },
] = await importBuilt('cases', ['ops/index', 'operands', 'check', 'fuzz', 'native', 'shape', 'dtype']);

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
/** As a tensor takes numbers: through f32 where it holds floats. JSON has no other name for those that are not finite. */
const number = (dtype) => (x) => {
  const value = isInteger(dtype) ? x : Math.fround(x);
  return Number.isFinite(value) ? value : String(value);
};
const snakeKeys = (object) =>
  Object.fromEntries(Object.entries(object).map(([name, value]) => [snakeCase(name), value]));

/** What an input holds. */
function contentsOf({ spec, dtype, shape, repeated, contents, drawn }, seed) {
  if (contents === undefined) return { seed };
  if (drawn !== undefined && spec.holds.kind === 'flags') return { flags: drawn };
  const once = shape.reduce((size, n, i) => size * (repeated[i] ? Math.min(n, 1) : n), 1);
  const values = Array.from(contents.slice(0, once), number(dtype));
  return values.length > 0 && values.every((x) => x === values[0]) ? { value: values[0] } : { values };
}

/** Ranges of each dimension, for the parts of a tensor that nothing may read. */
const unreadOf = ({ shape, unread }) =>
  unread.map((ranges) =>
    shape.map((size, i) => {
      const range = ranges[i] ?? null;
      return range === null ? [0, size] : typeof range === 'number' ? [range, range + 1] : [...range];
    }),
  );

function operandOf(operand, seed) {
  const { dtype, shape } = operand;
  const { stride, offset } = placementOf(operand);
  const own = isPaired(dtype) && operand.contents === undefined ? originFor({}, dtype, seed) : undefined;
  const unread = unreadOf(operand).filter((part) => part.every(([begin, end]) => begin < end));
  return {
    dtype,
    shape,
    ...(same(stride, rowMajor(shape)) ? {} : { stride }),
    ...(offset === guard ? {} : { offset }),
    ...(own ? { fill: [own.distribution, ...Object.values(own.parameters)] } : {}),
    ...(operand.spec.role === 'out' ? {} : contentsOf(operand, seed)),
    ...(unread.length > 0 ? { unread } : {}),
  };
}

/** Parameters that a case need not name; those computed from sizes are always named. */
const presetOf = ({ spec }) =>
  Object.fromEntries(
    Object.entries(spec.params)
      .filter(([, p]) => !p.required && typeof p.default !== 'function')
      .map(([name, p]) => [name, p.default]),
  );

function lineOf(op, c, seed) {
  const { operands, params, flops } = planCase(op, c, seed);
  const preset = presetOf(op);
  const { distribution, parameters } = originFor(c, 'f32', 0);
  const exact =
    c.exact === true ? operands.filter((o) => ['inout', 'out'].includes(o.spec.role)).map((o) => o.name) : c.exact;
  return JSON.stringify({
    op: op.spec.name,
    case: c.name,
    flops,
    params: snakeKeys(Object.fromEntries(Object.entries(params).filter(([name, value]) => value !== preset[name]))),
    fill: [distribution, ...Object.values(parameters)],
    ...(exact ? { exact: exact.map(snakeCase) } : {}),
    ...(c.inPlace ? { in_place: snakeCase(c.inPlace) } : {}),
    operands: snakeKeys(Object.fromEntries(operands.map((o, i) => [o.name, operandOf(o, seedFor(seed, operands, i))]))),
  });
}

function* lines() {
  const listed = Object.values(ops).sort((a, b) => (a.spec.name < b.spec.name ? -1 : 1));
  const params = Object.fromEntries(listed.map((op) => [op.spec.name, snakeKeys(presetOf(op))]));
  yield JSON.stringify({ schema: 'kernwatt.cases/0', guard, params });
  for (const op of listed) {
    for (const c of op.spec.cases()) yield lineOf(op, c, 0);
    // As small as for the emulator, so that the definition takes a few milliseconds.
    for (let seed = 0; seed < random; ++seed) yield lineOf(op, fuzzCase(op, seed, { info: { emulated: true } }), seed);
  }
}

const fresh = `${[...lines()].join('\n')}\n`;
if (process.argv.includes('--check')) {
  const old = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (old !== fresh) {
    const at = fresh.split('\n').findIndex((line, i) => line !== old.split('\n')[i]);
    process.stderr.write(`test/gpu/cases.jsonl is out of date from line ${at + 1}, run npm run cases\n`);
    process.exit(1);
  }
} else {
  writeFileSync(file, fresh);
  process.stdout.write(
    `test/gpu/cases.jsonl: ${fresh.split('\n').length - 2} cases, ${(fresh.length / 1000).toFixed()} kB\n`,
  );
}
