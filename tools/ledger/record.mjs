// npm run gpu:record -- OUTDIR: takes the results of a run on a GPU into bench/results/<gpu>/ledger.json.
//
// A kernel is proved by a check that finished, in which at least one case launched it and every case that did passed. An entry
// holds the code that was proved last: newer code replaces it together with its measurements, and a failed case removes the
// entry of the code that failed. A check that was cut off proves nothing; the cases that failed in it still count. Measurements
// are kept for proved code alone, one for each case, metric, cache state and peer.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gather, keyOf } from './evidence.mjs';
import {
  checkedKernels,
  folderOf,
  Refusal,
  RESULTS,
  readJson,
  readKernels,
  replaceFile,
  writeLedger,
} from './files.mjs';

const short = (hash) => hash.slice(0, 12);
export const sameCode = (a, b) => a.hash === b.hash && a.ptxas === b.ptxas && a.flags === b.flags;

/** Refuses a run that is not of this tree's kernels on a GPU. */
function admit(outdir, root) {
  const run = readJson('run', join(outdir, 'run.json'));
  const { device } = run;
  if (device.emulated) throw new Refusal(`${outdir} was run on the emulator: nothing is recorded`);
  for (const field of ['name', 'cc', 'driver'])
    if (!device[field])
      throw new Refusal(`${outdir}/run.json does not name the device's ${field}: nothing is recorded`);
  if (!/^\d+\.\d+$/.test(device.cc))
    throw new Refusal(`${outdir}/run.json: device.cc is ${device.cc}, expected like 9.0`);
  const here = readKernels(root);
  if (!run.kernels)
    throw new Refusal(
      `${outdir} does not say which kernels ran (${run.kernelsReason ?? 'no digest'}): nothing is recorded`,
    );
  if (run.kernels !== here.digest)
    throw new Refusal(
      `results come from other kernels (digest ${short(run.kernels)}), commit ${short(run.commit ?? 'unknown')}; ` +
        `this tree has ${short(here.digest)}, commit ${short(here.commit)}: check that commit out and run npm run build:cuda`,
    );
  const theirs = checkedKernels(join(outdir, 'kernels.json'));
  if (theirs.digest !== run.kernels || theirs.library !== run.library)
    throw new Refusal(`${outdir}/kernels.json is of another library than run.json: nothing is recorded`);
  return { run, kernels: theirs.kernels };
}

/** The golden file of PTX conformance, once its part passed on the device of this run: { text, results } or null. */
function conformance(outdir, run, said) {
  const part = run.parts.find(({ name }) => name === 'conformance');
  if (part?.state !== 'passed') {
    said.push(`conformance ${part ? part.state : 'did not run'}: what is recorded of it stays`);
    return null;
  }
  const path = join(outdir, 'conformance.txt');
  if (!existsSync(path)) throw new Refusal(`${path} does not exist, although its part passed`);
  const text = readFileSync(path, 'utf8');
  const [head, ...lines] = text.split('\n');
  const device = /^# device (.+), sm_\d+$/.exec(head)?.[1];
  if (device !== run.device.name)
    throw new Refusal(`${path} was recorded on ${device ?? 'an unnamed device'}, expected ${run.device.name}`);
  if (lines.pop() !== '' || lines.length === 0) throw new Refusal(`${path} is empty or cut short`);
  return { text, results: lines.length };
}

/** The measurements of `more` replace those of the same case, metric, cache and peer. */
function merge(before, more) {
  const key = (m) => JSON.stringify([m.case, m.metric, m.cache, m.peer]);
  const all = new Map([...before, ...more].map((measurement) => [key(measurement), measurement]));
  return [...all.entries()].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, measurement]) => measurement);
}

/** Returns { lines: what to say, status: exit code }; writes nothing unless the results hold together. */
export function record(outdir, root) {
  const { run, kernels } = admit(outdir, root);
  const about = { date: run.started, driver: run.device.driver, commit: run.commit ?? 'unknown', dirty: run.dirty };
  const found = gather(outdir, run, kernels, about);
  const golden = conformance(outdir, run, found.said);
  const folder = join(root, RESULTS, folderOf(run.device.name));
  const path = join(folder, 'ledger.json');
  const gpu = { name: run.device.name, cc: run.device.cc };
  const ledger = existsSync(path)
    ? readJson('ledger', path)
    : { schema: 'kernwatt.ledger/0', gpu, conformance: null, kernels: [] };
  if (ledger.gpu.name !== gpu.name) throw new Refusal(`${path} belongs to ${ledger.gpu.name}, expected ${gpu.name}`);

  const entries = new Map(ledger.kernels.map((entry) => [keyOf(entry), entry]));
  const lines = [...found.said];
  for (const [key, cases] of found.failed) {
    const code = kernels.find((kernel) => keyOf(kernel) === key);
    const known = entries.get(key);
    const lost = known && sameCode(known, code);
    if (lost) entries.delete(key);
    lines.push(
      `FAILED ${key}: ${cases.length} ${cases.length === 1 ? 'case' : 'cases'}, first ${cases[0]}${lost ? '; its earlier proof is withdrawn' : ''}`,
    );
  }
  for (const what of found.orphans) lines.push(`FAILED ${what}, before any kernel was launched`);
  const proves = found.check.finished && found.orphans.length === 0;
  if (!found.check.finished)
    lines.push(
      `check ${found.part.state} after ${found.check.cases} passed cases: an unfinished check proves no kernel`,
    );
  else if (found.orphans.length) lines.push('no kernel is proved while a case fails that none can be blamed for');

  let proved = 0;
  for (const [key, { kernel, cases, exactCases, sanitized }] of proves ? found.tested : []) {
    if (found.failed.has(key) || cases === 0) continue;
    const { name, arch, ops, hash, ptxas, flags } = kernel;
    const known = entries.get(key);
    const measured = known && sameCode(known, kernel) ? known.measured : [];
    const proof = { ...about, cases, exactCases, sanitized: [...sanitized].sort() };
    entries.set(key, { name, arch, ops, hash, ptxas, flags, proved: proof, measured });
    proved += 1;
  }
  let measured = 0;
  for (const { kernels: used, results } of found.measured) {
    const holders = used.map((kernel) => entries.get(keyOf(kernel)));
    const bad = used.find((kernel, i) => !holders[i] || !sameCode(holders[i], kernel));
    if (bad) {
      lines.push(`not recorded: ${results[0].case} (${results[0].cache}), because ${keyOf(bad)} is not proved`);
      continue;
    }
    for (const entry of holders) entry.measured = merge(entry.measured, results);
    measured += results.length;
  }
  ledger.kernels = [...entries.values()].sort((a, b) => (keyOf(a) < keyOf(b) ? -1 : 1));
  if (golden) ledger.conformance = { ...about, results: golden.results };

  const nothing = proved === 0 && measured === 0 && !golden && found.failed.size === 0;
  if (nothing) throw new Refusal([...lines, 'nothing is recorded'].join('; '));
  writeLedger(path, ledger);
  if (golden) replaceFile(join(folder, 'conformance.txt'), golden.text);
  lines.push(
    `${proved} kernels proved, ${measured} results recorded, ${found.failed.size} kernels failed, ` +
      `conformance ${golden ? `of ${golden.results} results recorded` : 'not recorded'}: ${path}`,
  );
  return { lines, status: proves && found.failed.size === 0 ? 0 : 1 };
}
