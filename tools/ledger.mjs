// The ledger of what has been proved and measured on a GPU, kernel by kernel: bench/results/<gpu>/ledger.json, schema
// kernwatt.ledger/0 (src/schema/ledger.json). The rules are at the top of tools/ledger/record.mjs and status.mjs.
//
//   node tools/ledger.mjs record OUTDIR [--root FOLDER]      npm run gpu:record -- OUTDIR
//   node tools/ledger.mjs status [--json] [--root FOLDER]    npm run gpu:status
//
// OUTDIR is what tools/gpu-run.sh wrote; FOLDER holds bench/results and .build/cuda/kernels.json, by default this checkout.
// record exits 0 when everything that ran holds, 1 when a kernel failed or nothing could be recorded (then the ledger is as it
// was), 2 on a wrong call or without kernels.json; status exits 0, or 2.
import { dirname, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Refusal } from './ledger/files.mjs';
import { record } from './ledger/record.mjs';
import { format, survey } from './ledger/status.mjs';

const usage = 'usage: tools/ledger.mjs record OUTDIR | status [--json]   [--root FOLDER]';

function call() {
  try {
    return parseArgs({
      options: { json: { type: 'boolean', default: false }, root: { type: 'string' } },
      allowPositionals: true,
    });
  } catch (error) {
    throw new Refusal(`${error.message}; ${usage}`, 2);
  }
}

async function main() {
  const { values, positionals } = call();
  const root = resolve(values.root ?? resolve(dirname(fileURLToPath(import.meta.url)), '..'));
  const [verb, outdir, ...rest] = positionals;
  if (verb === 'record' && outdir && rest.length === 0) {
    const { lines, status } = record(outdir, root);
    process.stdout.write(`${lines.join('\n')}\n`);
    return status;
  }
  if (verb === 'status' && positionals.length === 1) {
    const status = await survey(root);
    process.stdout.write(values.json ? `${JSON.stringify(status, null, 1)}\n` : format(status));
    return 0;
  }
  throw new Refusal(usage, 2);
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  process.stderr.write(`ledger: ${error.message}\n`);
  process.exitCode = error.status;
}
