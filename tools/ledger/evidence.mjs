// What the results of one GPU run say about each kernel: which cases launched it and passed, failed, were sanitized or measured.
// Symbols become kernels here: of those in kernels.json, the machine code that this GPU runs.
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { Refusal, readJson, readLines } from './files.mjs';
import { chosen } from './machine.mjs';

export const keyOf = ({ name, arch }) => `${name} ${arch}`;
const tools = ['memcheck', 'racecheck', 'synccheck'];

/** The kernel that ran under a symbol on this GPU. */
function resolver(kernels, cc) {
  const bySymbol = new Map();
  for (const kernel of kernels) bySymbol.set(kernel.symbol, [...(bySymbol.get(kernel.symbol) ?? []), kernel]);
  return (symbol, where) => {
    const codes = bySymbol.get(symbol);
    if (!codes) throw new Refusal(`${where} names the kernel ${symbol}, which kernels.json lacks`);
    const kernel = chosen(codes, cc);
    if (!kernel)
      throw new Refusal(
        `${where}: ${codes[0].name} has no machine code for compute capability ${cc}, so the driver translated its PTX: ` +
          'that code has no identity and is not recorded',
      );
    return kernel;
  };
}

/** A part is finished when it gave every verdict, good or bad: kernwatt_check then exits with 0 or 1. */
const finished = (part) => part.state === 'passed' || (part.state === 'failed' && part.exit === 1);

function readCheck(folder, part, kernelOf, evidence, said) {
  const path = join(folder, 'check.jsonl');
  const { records, cut } = readLines('check', path, finished(part));
  if (cut) said.push('check.jsonl: the last line is cut short and left out');
  const passed = records.filter((record) => record.state === 'passed');
  records.forEach((record, i) => {
    if (record.state === 'declined') return;
    const found = record.kernels.map((symbol) => kernelOf(symbol, `check.jsonl: line ${i + 1}`));
    if (record.state === 'failed') evidence.fail(found, `${record.op} "${record.case}"`);
    else for (const kernel of found) evidence.pass(kernel, record.exact);
  });
  return { finished: finished(part), cases: passed.length };
}

/** Only cases that the tool's own file names count as sanitized; any error it found is a reason to record nothing. */
function readSanitize(folder, parts, kernelOf, evidence, said) {
  const path = join(folder, 'sanitize.json');
  if (!parts.has('sanitize') || !existsSync(path)) {
    said.push('sanitize did not run: no kernel is recorded as sanitized by this run');
    return;
  }
  const results = readJson('sanitize', path);
  for (const tool of tools) {
    const result = results[tool];
    if (result?.errors > 0)
      throw new Refusal(`${tool} found ${result.errors} errors (sanitize-${tool}.log): nothing is recorded`);
    if (result?.state !== 'passed') {
      said.push(`${tool}: ${result ? result.state : 'missing'}, so it says nothing about any kernel`);
      continue;
    }
    const { records } = readLines('check', join(folder, `sanitize-${tool}.jsonl`), true);
    records.forEach((record, i) => {
      const found = record.kernels.map((symbol) => kernelOf(symbol, `sanitize-${tool}.jsonl: line ${i + 1}`));
      if (record.state === 'failed') evidence.fail(found, `${record.op} "${record.case}" under ${tool}`);
      else if (record.state === 'passed') for (const kernel of found) evidence.sanitize(kernel, tool);
    });
  }
}

/** What one record of bench/peers/gpu.py says in the ledger's words: our time and rates, with the peer's beside them. */
function measurements({ case: { name }, time, rate, comparison, peer, env, flags }, about) {
  const { median, ci95Median } = time.ours;
  const common = {
    case: name,
    cache: time.cache,
    flags,
    peer: peer.name,
    peerVersion: `torch ${env.torch}, CUDA ${env.cuda}, cuDNN ${env.cudnn}`,
    ratio: comparison?.ratio ?? null,
    ratioCi95: comparison?.ci95 ?? null,
    ...about,
  };
  // More time is less of a rate, so the ends of its interval change places.
  const rateOf = (metric, unit, value) => {
    const ci95 = ci95Median && [ci95Median[1], ci95Median[0]].map((seconds) => (value * median) / seconds);
    return { metric, value, unit, ci95, ...common };
  };
  const found = [{ metric: 'time', value: median, unit: 's', ci95: ci95Median, ...common }];
  if (rate.ours.flopsPerSecond > 0) found.push(rateOf('flops', 'FLOP/s', rate.ours.flopsPerSecond));
  if (rate.ours.bytesPerSecond > 0) found.push(rateOf('bandwidth', 'B/s', rate.ours.bytesPerSecond));
  return found;
}

/** A wrong result of ours is a failed case; a peer that declines or is wrong says nothing about us. */
function readPeers(folder, run, kernelOf, evidence, said, about) {
  const path = join(folder, 'peers.jsonl');
  const part = run.parts.find(({ name }) => name === 'peers');
  if (!part || !existsSync(path)) return;
  const { records, cut } = readLines('peers', path, part.state === 'passed');
  if (cut) said.push('peers.jsonl: the last line is cut short and left out');
  records.forEach((record, i) => {
    const where = `peers.jsonl: line ${i + 1}`;
    if (record.env.device.emulated) throw new Refusal(`${where} comes from an emulated device`);
    if (record.env.library.sha256 !== run.library) throw new Refusal(`${where} is of another library than run.json`);
    if (!record.kernel) return;
    const kernels = record.kernel.symbols.map((symbol) => kernelOf(symbol, where));
    const wrong = record.correctness?.ours?.failed > 0 || /^kernwatt\b/.test(record.reason ?? '');
    if (record.state === 'failed' && wrong) evidence.fail(kernels, `"${record.case.name}" beside ${record.peer.name}`);
    if (record.state === 'measured' && record.time.ours && kernels.length)
      evidence.measure(kernels, measurements(record, { kernels: kernels.map(keyOf), ...about, file: 'peers.jsonl' }));
  });
}

/**
 * { check: { finished, cases }, failed: kernel keys and unattributed cases, tested: by key, measured, said: remarks } of a run.
 * `about` is what each measurement carries: date, driver, commit, dirty.
 */
export function gather(folder, run, kernels, about) {
  const tested = new Map();
  const failed = new Map();
  const orphans = [];
  const measured = [];
  const said = [];
  const entry = (kernel) => {
    const key = keyOf(kernel);
    if (!tested.has(key)) tested.set(key, { kernel, cases: 0, exactCases: 0, sanitized: new Set() });
    return tested.get(key);
  };
  const evidence = {
    pass(kernel, exact) {
      const it = entry(kernel);
      it.cases += 1;
      if (exact) it.exactCases += 1;
    },
    fail(found, what) {
      if (found.length === 0) orphans.push(what);
      for (const kernel of found) failed.set(keyOf(kernel), [...(failed.get(keyOf(kernel)) ?? []), what]);
    },
    sanitize: (kernel, tool) => entry(kernel).sanitized.add(tool),
    measure: (found, results) => measured.push({ kernels: found, results }),
  };
  const parts = new Map(run.parts.map((part) => [part.name, part]));
  const part = parts.get('check');
  if (!part || part.state === 'missing')
    throw new Refusal(
      `check ${part ? `could not run (${part.summary})` : 'is not among the parts that ran'}: nothing is recorded`,
    );
  const kernelOf = resolver(kernels, run.device.cc);
  const check = readCheck(folder, part, kernelOf, evidence, said);
  readSanitize(folder, parts, kernelOf, evidence, said);
  readPeers(folder, run, kernelOf, evidence, said, about);
  return { check, part, parts, failed, orphans, tested, measured, said };
}
