// Names of kernels as people read them: what the compiler mangled, demangled and shortened, the same in every tool.
import { execFileSync } from 'node:child_process';

/** In the order given; names that c++filt does not know, or all of them without c++filt, stay as they are. */
export function demangle(symbols) {
  if (symbols.length === 0) return [];
  try {
    return execFileSync('c++filt', { input: symbols.join('\n'), encoding: 'utf8', maxBuffer: 1 << 28 })
      .trimEnd()
      .split('\n');
  } catch {
    return symbols;
  }
}

/** "void kw::gemm_cuda::gemm_fma<X<1> >(Params)" becomes "gemm_cuda::gemm_fma<X<1>>". */
export function shorten(name) {
  return name
    .replace(/^void /, '')
    .replace(/\([^()]*\)$/, '')
    .replace(/\bkw::/g, '')
    .replaceAll(' >', '>');
}
