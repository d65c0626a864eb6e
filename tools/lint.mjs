// Rules of this house that no general linter knows. Exits 1 and names file, line and reason.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { figureProblems } from './figures.mjs';
import { readLedgers } from './ledger/files.mjs';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const tracked = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard'], {
  cwd: root,
  encoding: 'utf8',
})
  .split('\n')
  .filter(Boolean);

const device = (file) => /^(kernels|test\/simt\/kernels)\/.*\.(cu|cuh)$/.test(file);
const outside =
  (...names) =>
  (file) =>
    device(file) && !names.includes(basename(file));
const cppOrTs = (file) => /\.(ts|mts|mjs|cc|h|cu|cuh)$/.test(file) && !file.startsWith('bench/peers/');

/** A line of a matching file that matches `pattern` breaks the rule; comments do not count. */
const rules = [
  {
    where: outside('ptx.cuh'),
    pattern: /\basm\b/,
    why: 'inline PTX lives in kernels/core/cuda/ptx.cuh alone, where the emulator answers for it',
  },
  {
    where: outside('launch.cuh'),
    pattern: /__shared__/,
    why: 'shared memory goes through KW_SHARED or dyn_smem() (launch.cuh), so that the emulator sees it',
  },
  {
    where: device,
    pattern: /<<<|>>>\s*\(/,
    why: 'launch through kw::launch (launch.cuh), so that the emulator can run it',
  },
  {
    where: device,
    pattern: /#\s*include\s*<cub\//,
    why: 'CUB cannot be emulated; use the pieces in kernels/core/cuda',
  },
  {
    where: device,
    pattern: /__activemask/,
    why: 'the mask of converged lanes is not defined by the language; name the lanes',
  },
  {
    where: (f) => device(f) && !/\/(ptx|launch)\.cuh$/.test(f),
    pattern: /__CUDA_ARCH/,
    why: 'the architecture is a file or a template argument, never a macro inside a kernel',
  },
  {
    where: (f) => device(f) && !f.endsWith('/ptx.cuh'),
    pattern: /while\s*\([^)]*(ld_acquire|ld_volatile|atomic(CAS|Exch|Or|Add))/,
    why: 'a block must not spin on another block: it may not be resident',
  },
  {
    where: (f) => f.startsWith('src/') && f !== 'src/native.ts',
    pattern: /createRequire/,
    why: 'only src/native.ts loads the addon',
  },
  {
    where: (f) => /^(src|kernels|native|test|tools)\//.test(f) && cppOrTs(f),
    pattern: /\b(TODO|FIXME|XXX)\b/,
    why: 'unfinished work belongs in an issue',
  },
];

/** Lines a file may have; a longer one needs an entry below with the reason. */
const limit = (file) => (file.startsWith('kernels/') || device(file) ? 600 : 400);
const longer = {};

const broken = [];
for (const file of tracked.filter(cppOrTs)) {
  if (file === 'tools/lint.mjs') continue;
  const lines = readFileSync(join(root, file), 'utf8').split('\n');
  if (lines.length - 1 > limit(file) && !(file in longer))
    broken.push(`${file}: ${lines.length - 1} lines, expected at most ${limit(file)}; split it by concern`);
  for (const rule of rules) {
    if (!rule.where(file)) continue;
    lines.forEach((line, i) => {
      if (rule.pattern.test(line.replace(/\/\/.*$/, '').replace(/\/\*.*?\*\//g, '')))
        broken.push(`${file}:${i + 1}: ${line.trim()}\n    ${rule.why}`);
    });
  }
}
const prose = tracked.filter((file) => /^(docs\/.*|README|CHANGELOG|CONTRIBUTING)\.md$/.test(file));
try {
  const ledgers = readLedgers(root);
  for (const file of prose) broken.push(...figureProblems(file, readFileSync(join(root, file), 'utf8'), ledgers));
} catch (error) {
  broken.push(error.message);
}
if (broken.length) {
  process.stderr.write(`${broken.join('\n')}\n${broken.length} broken rules\n`);
  process.exit(1);
}
process.stdout.write(
  `lint: ${tracked.filter(cppOrTs).length} files follow the ${rules.length} house rules; ${prose.length} documents hold no GPU figure beyond the ledger\n`,
);
