// Versions of the system's libraries that a binary asks for, read with objdump.
import { execFileSync } from 'node:child_process';

/** Whether version `a` is newer than `b`, both lists of numbers. */
export function newer(a, b) {
  for (let i = 0; i < Math.max(a.length, b.length); i++)
    if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) > (b[i] ?? 0);
  return false;
}

/** The newest symbol version of each family that `file` needs, for example { GLIBC: [2, 34] }. */
export function symbolVersions(file) {
  const newest = {};
  const symbols = execFileSync('objdump', ['-T', file], { encoding: 'utf8', maxBuffer: 1 << 28 });
  for (const [, family, version] of symbols.matchAll(/\b(GLIBC|GLIBCXX|CXXABI)_([0-9.]+)\b/g)) {
    const parts = version.split('.').map(Number);
    if (!newest[family] || newer(parts, newest[family])) newest[family] = parts;
  }
  return newest;
}
