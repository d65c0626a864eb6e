// Reads the files between a GPU run and the ledger, and refuses what does not hold together: every problem is a Refusal, whose
// message is one line for the user.
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import Ajv from 'ajv/dist/2020.js';
import { digestOf } from '../kernels.mjs';

export class Refusal extends Error {
  constructor(message, status = 1) {
    super(message);
    this.status = status;
  }
}

/** Where the ledgers are, below the root. */
export const RESULTS = 'bench/results';
const home = resolve(dirname(fileURLToPath(import.meta.url)), '../..');

const text = { type: 'string', minLength: 1 };
const sha = { type: 'string', pattern: '^[0-9a-f]{64}$' };
const object = (properties) => ({ type: 'object', required: Object.keys(properties), properties });
const orNull = (schema) => ({ oneOf: [schema, { type: 'null' }] });
const interval = orNull({ type: 'array', items: { type: 'number' }, minItems: 2, maxItems: 2 });
const rate = { type: 'number', minimum: 0 };
/** What is read of each file, no more; their own schemas say the rest. */
const schemas = {
  run: object({
    schema: { const: 'kernwatt.gpu/0' },
    started: { type: 'string', pattern: '^\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d' },
    commit: { type: ['string', 'null'] },
    dirty: { type: ['boolean', 'null'] },
    kernels: orNull(sha),
    library: orNull(sha),
    device: object({
      name: { type: ['string', 'null'] },
      cc: { type: ['string', 'null'] },
      driver: { type: ['string', 'null'] },
      emulated: { enum: [true, false, 0, 1] },
    }),
    parts: {
      type: 'array',
      items: object({
        name: text,
        state: { enum: ['passed', 'failed', 'timeout', 'missing', 'interrupted'] },
        exit: { type: ['integer', 'null'] },
        summary: { type: 'string' },
      }),
    },
  }),
  kernels: object({
    schema: { const: 'kernwatt.kernels/0' },
    commit: text,
    dirty: { type: ['boolean', 'null'] },
    library: sha,
    digest: sha,
    kernels: {
      type: 'array',
      minItems: 1,
      items: object({
        symbol: text,
        name: text,
        arch: { type: 'string', pattern: '^sm_\\d+[a-z]?$' },
        hash: sha,
        ptxas: text,
        flags: { type: 'string' },
        ops: { type: 'array', items: text, minItems: 1 },
      }),
    },
  }),
  check: object({
    op: text,
    case: { type: 'string' },
    state: { enum: ['passed', 'failed', 'declined'] },
    exact: { type: 'boolean' },
    kernels: { type: 'array', items: text },
  }),
  sanitize: {
    type: 'object',
    additionalProperties: object({
      state: { enum: ['passed', 'failed', 'timeout', 'missing', 'interrupted'] },
      errors: { type: ['integer', 'null'], minimum: 0 },
    }),
  },
  peers: {
    ...object({
      schema: { const: 'kernwatt.peers-gpu/0' },
      state: { enum: ['measured', 'failed', 'declined', 'emulated', 'left-out'] },
      reason: { type: ['string', 'null'] },
      flags: { type: 'array', items: text },
      case: object({ name: text }),
      peer: object({ name: text }),
      kernel: orNull(object({ symbols: { type: 'array', items: text } })),
      correctness: orNull(object({ ours: orNull(object({ failed: { type: 'integer', minimum: 0 } })) })),
      time: orNull(
        object({
          cache: { enum: ['cold', 'warm', 'hot'] },
          ours: orNull(object({ median: rate, ci95Median: interval })),
        }),
      ),
      rate: orNull(object({ ours: orNull(object({ flopsPerSecond: rate, bytesPerSecond: rate })) })),
      comparison: orNull(object({ ratio: rate, ci95: interval })),
      env: object({ device: object({ emulated: { type: 'boolean' } }), library: object({ sha256: sha }), torch: text }),
    }),
    if: { properties: { state: { const: 'measured' } } },
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    then: { properties: { time: { type: 'object' }, rate: { type: 'object' } } },
  },
};
const ajv = new Ajv({ allowUnionTypes: true });
const validators = Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, ajv.compile(schema)]));
validators.ledger = ajv.compile(JSON.parse(readFileSync(join(home, 'src/schema/ledger.json'), 'utf8')));

function valid(kind, content, where) {
  const validate = validators[kind];
  if (validate(content)) return content;
  const { instancePath, message, params } = validate.errors[0];
  const allowed = params.allowedValue ?? params.allowedValues?.join(', ');
  throw new Refusal(
    `${where}: ${instancePath || 'the whole'} ${message}${allowed === undefined ? '' : ` ${allowed}`}; it is not what this version reads`,
  );
}

export function readJson(kind, path) {
  let content;
  try {
    content = JSON.parse(readFileSync(path, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT') throw new Refusal(`${path} does not exist`);
    throw new Refusal(`${path}: malformed or cut short (${error.message})`);
  }
  return valid(kind, content, path);
}

/**
 * The lines of a .jsonl file, checked as `kind` unless that is null. A part that finished wrote whole lines; what an interrupted
 * one was writing when it ended is left out: { records, cut: whether there was such a line }.
 */
export function readLines(kind, path, finished) {
  let content;
  try {
    content = readFileSync(path, 'utf8');
  } catch {
    throw new Refusal(`${path} does not exist`);
  }
  const lines = content.split('\n');
  const last = lines.pop();
  if (last !== '' && finished)
    throw new Refusal(`${path}: line ${lines.length + 1} is cut short, although its part finished`);
  const records = lines.map((line, i) => {
    try {
      const record = JSON.parse(line);
      return kind ? valid(kind, record, `${path}: line ${i + 1}`) : record;
    } catch (error) {
      if (error instanceof Refusal) throw error;
      throw new Refusal(`${path}: line ${i + 1} is not JSON (${error.message})`);
    }
  });
  return { records, cut: last !== '' };
}

/** Kernels of the CUDA library in this tree. */
export function readKernels(root) {
  const path = join(root, '.build/cuda/kernels.json');
  if (!existsSync(path)) throw new Refusal(`${path} does not exist; make it with: npm run build:cuda`, 2);
  return checkedKernels(path);
}

export function checkedKernels(path) {
  const kernels = readJson('kernels', path);
  if (digestOf(kernels.kernels) !== kernels.digest)
    throw new Refusal(`${path}: its kernels do not have the digest it names`);
  return kernels;
}

/** "NVIDIA H200" is kept in "h200". */
export const folderOf = (gpu) =>
  gpu
    .replace(/^NVIDIA\s+/i, '')
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')
    .replace(/^-+|-+$/g, '');

/** All ledgers below a root: { folder, ledger }. */
export function readLedgers(root) {
  const results = join(root, RESULTS);
  if (!existsSync(results)) return [];
  return readdirSync(results)
    .sort()
    .map((folder) => ({ folder, path: join(results, folder, 'ledger.json') }))
    .filter(({ path }) => existsSync(path))
    .map(({ folder, path }) => ({ folder, ledger: readJson('ledger', path) }));
}

/** In one step, so that nobody ever reads half a file. */
export function replaceFile(path, content) {
  mkdirSync(dirname(path), { recursive: true });
  const fresh = join(dirname(path), `.${basename(path)}.${process.pid}.new`);
  writeFileSync(fresh, content);
  renameSync(fresh, path);
}

export function writeLedger(path, ledger) {
  replaceFile(path, `${JSON.stringify(valid('ledger', ledger, path), null, 1)}\n`);
}
