// Where the libraries of kernels (libkernwatt_cuda.so, libkernwatt_emu.so) are looked for.
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { KernwattError } from './errors.js';
import { type LibraryInfo, native } from './native.js';
import { prebuilds, verified, verifiedSoon } from './prebuilt.js';

// Not imported: native.ts says why.
const { existsSync } = process.getBuiltinModule('node:fs');

export type LibraryKind = 'cuda' | 'emu';

export interface Library extends LibraryInfo {
  path: string;
}

const root = resolve(dirname(fileURLToPath(import.meta.url)), '..');
const buildLine = 'build it with `npm run build:cuda` (needs nvcc), or set';

/** Places a library may be, in the order in which they are tried: the option, the environment, this checkout, beside the addon. */
export function librarySearch(kind: LibraryKind, option?: string): { path: string; from: string }[] {
  const file = `libkernwatt_${kind}.so`;
  if (option !== undefined) return [{ path: resolve(option), from: 'the library option' }];
  const variable = `KERNWATT_${kind.toUpperCase()}_LIBRARY`;
  const named = process.env[variable];
  if (named) return [{ path: resolve(named), from: variable }];
  return [
    { path: join(root, '.build/cuda/lib', file), from: 'this checkout' },
    { path: join(root, 'build/Release', file), from: 'beside the addon' },
    { path: join(prebuilds(), file), from: 'with the package' },
  ];
}

/** Libraries that agreed with their manifest: hashing megabytes once is enough. */
const intact = new Set<string>();
const mustAgree = (kind: LibraryKind, path: string): boolean =>
  path === join(prebuilds(), `libkernwatt_${kind}.so`) && !intact.has(path);

const broken = (path: string, error: unknown): KernwattError =>
  new KernwattError('LIBRARY', `openDevice: library ${path} ${(error as Error).message}`);

/** Does without blocking what makes the first `findLibrary` slow: checking and loading the file, and waking the driver. */
export async function prepareLibrary(kind: LibraryKind, option?: string): Promise<void> {
  const found = librarySearch(kind, option).find(({ path }) => existsSync(path));
  if (!found) return;
  if (mustAgree(kind, found.path)) {
    try {
      await verifiedSoon(found.path);
    } catch (error) {
      throw broken(found.path, error);
    }
    intact.add(found.path);
  }
  await native().prepareLibrary(found.path);
}

/**
 * Opens the first library found.
 * @throws {KernwattError} `LIBRARY` when there is none, or the reason it does not load.
 */
export function findLibrary(kind: LibraryKind, option?: string): Library {
  const places = librarySearch(kind, option);
  const found = places.find(({ path }) => existsSync(path));
  if (!found) {
    const tried = places.map(({ path, from }) => `${path} (${from})`).join(', ');
    throw new KernwattError(
      'LIBRARY',
      `openDevice: library libkernwatt_${kind}.so is missing, expected at ${tried}; ${buildLine} KERNWATT_${kind.toUpperCase()}_LIBRARY`,
    );
  }
  if (mustAgree(kind, found.path)) {
    try {
      verified(found.path);
    } catch (error) {
      throw broken(found.path, error);
    }
    intact.add(found.path);
  }
  return { path: found.path, ...native().loadLibrary(found.path) };
}
