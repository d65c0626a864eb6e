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

/** What a record of kernwatt.measure/0 says in the ledger's words. Its kernels stand in kernel.explain.kernels. */
function measurements(record, baselines, about) {
  const clock = record.time.headline;
  const time = record.time[clock];
  const { comparison } = record;
  const common = {
    case: record.case.name,
    cache: record.time.cache,
    clock,
    peer: comparison?.baseline ?? null,
    peerVersion: baselines.get(comparison?.baselineId)?.kernel?.explain?.version ?? null,
    ratio: comparison?.ratio ?? null,
    ratioCi95: comparison?.ci95 ?? null,
    ...about,
  };
  const found = [{ metric: 'time', value: time.median, unit: 's', ci95: time.ci95Median, ...common }];
  for (const [metric, quantity] of [
    ['flops', record.rate?.flopsPerSecond],
    ['bandwidth', record.rate?.bytesPerSecond],
  ])
    if (quantity?.state === 'ok' && quantity.value > 0)
      found.push({ metric, value: quantity.value, unit: quantity.unit, ci95: quantity.ci95 ?? null, ...common });
  return found;
}

function readPeers(folder, parts, kernelOf, evidence, said, about) {
  const path = join(folder, 'peers.jsonl');
  const part = parts.get('peers');
  if (!part || !existsSync(path)) return;
  const { records, cut } = readLines(null, path, part.state === 'passed');
  if (cut) said.push('peers.jsonl: the last line is cut short and left out');
  const baselines = new Map(records.map((record) => [record.id, record]));
  records.forEach((record, i) => {
    const where = `peers.jsonl: line ${i + 1}`;
    const symbols = record.kernel?.explain?.kernels ?? [];
    if (record.schema !== 'kernwatt.measure/0')
      throw new Refusal(`${where}: schema is ${record.schema}, expected kernwatt.measure/0`);
    if (symbols.length === 0) return; // a peer
    const kernels = symbols.map((symbol) => kernelOf(symbol, where));
    if (record.verdict === 'invalid') evidence.fail(kernels, `"${record.case.name}", measured`);
    else if (record.time?.[record.time.headline])
      evidence.measure(
        kernels,
        measurements(record, baselines, { kernels: kernels.map(keyOf), ...about, file: 'peers.jsonl' }),
      );
    else throw new Refusal(`${where}: no time`);
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
  readPeers(folder, parts, kernelOf, evidence, said, about);
  return { check, part, parts, failed, orphans, tested, measured, said };
}
