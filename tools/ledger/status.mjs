// npm run gpu:status: which kernels of this tree are proved on a GPU, which are stale (other code of theirs was) and which never
// were, by operator, most valuable first.
//
// Value: operators with more shapes of served models (`models` of src/ops) come first. Within one: stale before unproved, those
// with more recorded measurements first, because figures that somebody may quote no longer hold; then newer machine code.
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { keyOf } from './evidence.mjs';
import { RESULTS, readKernels, readLedgers } from './files.mjs';
import { newerFirst } from './machine.mjs';
import { sameCode } from './record.mjs';

const home = resolve(dirname(fileURLToPath(import.meta.url)), '../..');
const SHOWN = 8;

/** Shapes of served models by operator, from the built package; empty before `npm run build`. */
async function served() {
  const folder = join(home, 'dist/ops');
  const counts = new Map();
  for (const name of existsSync(folder) ? readdirSync(folder) : []) {
    const op = /^(\w+)\.(?:cases|models)\.js$/.exec(name)?.[1];
    const models = op && (await import(pathToFileURL(join(folder, name)).href)).models;
    if (models) counts.set(op, models.length);
  }
  return counts;
}

/** { state: proved | stale | unproved, gpu, date, driver, figures } of a kernel, the best that any ledger says. */
function judge(kernel, ledgers) {
  const held = ledgers
    .flatMap(({ folder, ledger }) =>
      ledger.kernels.filter((entry) => keyOf(entry) === keyOf(kernel)).map((entry) => ({ folder, entry })),
    )
    .sort((a, b) => (a.entry.proved.date < b.entry.proved.date ? 1 : -1));
  const best = held.find(({ entry }) => sameCode(entry, kernel)) ?? held[0];
  if (!best) return { state: 'unproved', gpu: null, date: null, driver: null, figures: 0 };
  const { folder, entry } = best;
  return {
    state: sameCode(entry, kernel) ? 'proved' : 'stale',
    gpu: folder,
    date: entry.proved.date,
    driver: entry.proved.driver,
    sanitized: entry.proved.sanitized,
    cases: entry.proved.cases,
    figures: entry.measured.length,
  };
}

export async function survey(root) {
  const { kernels, digest, commit } = readKernels(root);
  const ledgers = readLedgers(root);
  const models = await served();
  const value = (op) => models.get(op) ?? 0;
  const order = ['stale', 'unproved', 'proved'];
  const judged = kernels
    .map(({ name, arch, ops, hash }) => ({
      name,
      arch,
      hash,
      ops,
      ...judge(
        kernels.find((k) => k.name === name && k.arch === arch),
        ledgers,
      ),
    }))
    .sort(
      (a, b) =>
        order.indexOf(a.state) - order.indexOf(b.state) ||
        b.figures - a.figures ||
        newerFirst(a.arch, b.arch) ||
        (a.name < b.name ? -1 : 1),
    );
  const operators = [...new Set(judged.map(({ ops }) => ops.join(' and ')))]
    .map((op) => ({
      op,
      models: Math.max(...op.split(' and ').map(value)),
      kernels: judged.filter(({ ops }) => ops.join(' and ') === op),
    }))
    .sort((a, b) => b.models - a.models || (a.op < b.op ? -1 : 1));
  const count = (state) => judged.filter((kernel) => kernel.state === state).length;
  const counts = { proved: count('proved'), stale: count('stale'), unproved: count('unproved') };
  const conformance = ledgers
    .filter(({ ledger }) => ledger.conformance)
    .map(({ folder, ledger }) => ({ gpu: folder, ...ledger.conformance }));
  const open = counts.stale + counts.unproved > 0 || conformance.length === 0;
  const next = open
    ? 'tools/gpu-run.sh OUTDIR   (on a machine with an NVIDIA GPU), then here: npm run gpu:record -- OUTDIR'
    : null;
  return {
    schema: 'kernwatt.status/0',
    commit,
    digest,
    ledgers: ledgers.map(({ folder }) => folder),
    counts,
    conformance,
    next,
    operators,
  };
}

export function format(status) {
  const { counts, operators } = status;
  const lines = [];
  const total = counts.proved + counts.stale + counts.unproved;
  if (status.ledgers.length === 0) lines.push(`no kernel has been proved on a GPU yet: ${total} unproved`);
  else
    lines.push(
      `${counts.proved} of ${total} kernels proved on a GPU, ${counts.stale} stale, ${counts.unproved} unproved (${RESULTS}/{${status.ledgers}})`,
    );
  for (const { op, models, kernels } of operators) {
    const of = (state) => kernels.filter((kernel) => kernel.state === state).length;
    lines.push(
      '',
      `${op}: ${of('proved')} proved, ${of('stale')} stale, ${of('unproved')} unproved; ${models} shapes of served models`,
    );
    const open = kernels.filter(({ state }) => state !== 'proved');
    for (const k of open.slice(0, SHOWN)) {
      const why =
        k.state === 'stale'
          ? `  other code proved on ${k.gpu}, ${k.date.slice(0, 10)}; ${k.figures} figures no longer hold`
          : '';
      lines.push(`  ${k.state.padEnd(8)} ${k.arch.padEnd(6)} ${k.name}${why}`);
    }
    if (open.length > SHOWN) lines.push(`  and ${open.length - SHOWN} more (--json lists all)`);
  }
  lines.push('');
  for (const c of status.conformance)
    lines.push(
      `PTX conformance: ${c.results} results recorded on ${c.gpu}, ${c.date.slice(0, 10)}, driver ${c.driver}`,
    );
  if (status.conformance.length === 0) lines.push('PTX conformance: not yet recorded on a GPU');
  lines.push(status.next ? `next: ${status.next}` : 'next: nothing; every kernel of this tree is proved');
  return `${lines.join('\n')}\n`;
}
