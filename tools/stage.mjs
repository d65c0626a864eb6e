// What is common to the builds of the addon outside a checkout's own build/: the sanitizer's (tools/asan.mjs) and one from the
// sources in a package (tools/from-source.mjs).
import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');

/** node-gyp builds beside binding.gyp, so `folder` gets one, and shows it the same sources under other names. */
export function stage(folder) {
  mkdirSync(folder, { recursive: true });
  rmSync(join(folder, 'binding.gyp'), { force: true });
  writeFileSync(join(folder, 'binding.gyp'), "{'includes': ['native/addon.gypi']}\n");
  for (const name of ['package.json', 'native', 'kernels', 'tools']) {
    rmSync(join(folder, name), { force: true });
    symlinkSync(join(root, name), join(folder, name));
  }
}

/** Arguments that make node-gyp use the headers beside the running Node, where it has them, and download none. */
export function headerArguments() {
  const prefix = resolve(dirname(process.execPath), '..');
  return existsSync(join(prefix, 'include/node/node_api.h')) ? [`--nodedir=${prefix}`] : [];
}

/** `env` without what npm exports about header folders: the arguments above decide. */
export function buildEnvironment(env = process.env) {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !/^npm_(package_)?config_nodedir$/i.test(name)));
}
