// Compiles the addon from the sources in this package, for a platform without a ready-made one (Linux on arm64, an older glibc).
// Needs g++ with C++20, make, python3, and node-gyp and node-addon-api in the folder it is called from:
//
//   npm install --no-save node-gyp node-addon-api
//   node node_modules/kernwatt/tools/from-source.mjs [node-gyp arguments, for example --arch=arm64]
//
// The addon then lies in the package's build/Release/, where it is looked for first. CXX, CC and AR name another compiler. Nothing
// is downloaded where the running Node has its headers beside it; elsewhere node-gyp fetches them.
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { buildEnvironment, headerArguments, root, stage } from './stage.mjs';

function stop(message) {
  process.stderr.write(`from-source: ${message}\n`);
  process.exit(1);
}

/** Path of a package's file, as a program in the folder this was called from would find it, or as this package itself does. */
function find(name, file) {
  for (const from of [join(process.cwd(), 'package.json'), join(root, 'package.json')]) {
    try {
      return createRequire(from).resolve(`${name}/${file}`);
    } catch {
      // Looked for in the other place, then reported.
    }
  }
  return stop(
    `${name} is not installed in ${process.cwd()}; npm install --no-save node-gyp node-addon-api installs it`,
  );
}

const gyp = find('node-gyp', 'bin/node-gyp.js');
const headers = dirname(find('node-addon-api', 'package.json'));
const given = process.argv.slice(2);
const folder = join(root, '.build/source');
stage(folder);
const env = {
  ...buildEnvironment(),
  NODE_PATH: [dirname(headers), process.env.NODE_PATH].filter(Boolean).join(delimiter),
};
const nodedir = given.some((argument) => argument.startsWith('--nodedir')) ? [] : headerArguments();
const jobs = ['-j', String(availableParallelism())];
const { status, error } = spawnSync(process.execPath, [gyp, 'rebuild', ...jobs, ...nodedir, ...given], {
  cwd: folder,
  env,
  stdio: 'inherit',
});
if (error || status !== 0) stop(error?.message ?? `node-gyp ended with ${status}`);
const target = join(root, 'build/Release/kernwatt.node');
mkdirSync(dirname(target), { recursive: true });
copyFileSync(join(folder, 'build/Release/kernwatt.node'), `${target}.part`);
renameSync(`${target}.part`, target);
rmSync(folder, { recursive: true, force: true });
process.stdout.write(`${resolve(target)}\n`);
