// A kernels.json as tools/kernels.mjs writes it, for tests of what reads it.
import { createHash } from 'node:crypto';

export interface Kernel {
  symbol: string;
  name: string;
  arch: string;
  hash: string;
  ptxas: string;
  flags: string;
  ops: string[];
}

export const sha = (text: string) => createHash('sha256').update(text).digest('hex');
export const library = sha('the library');

/** `code` stands for the text of its PTX. */
export function kernel(name: string, arch: string, op: string, code = name): Kernel {
  return { symbol: `_Z3${name}v`, name, arch, hash: sha(`${code} ${arch}`), ptxas: '13.0.88', flags: '-O3', ops: [op] };
}

export function kernelsJson(kernels: Kernel[]) {
  const lines = kernels.map((k) => [k.name, k.arch, k.hash, k.ptxas, k.flags].join('\t')).sort();
  const digest = sha(lines.join('\n'));
  return { schema: 'kernwatt.kernels/0', commit: 'c0ffee', dirty: false, nvcc: '13.0.88', library, digest, kernels };
}
