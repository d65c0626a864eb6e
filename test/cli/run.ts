// The command of dist/ as a child process, and made-up machines for it.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { tree, write, zone } from '../meter/tree.js';

export const main = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));

export interface Result {
  code: number | null;
  out: string;
  err: string;
}

/** `onOutput` is called each time the program has printed something, `onStart` once it runs. */
export function run(
  program: string,
  args: readonly string[],
  options: SpawnOptions = {},
  onOutput?: (child: ChildProcess, result: Result) => void,
  onStart?: (child: ChildProcess) => void,
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { ...options, stdio: ['pipe', 'pipe', 'pipe'] });
    const result: Result = { code: null, out: '', err: '' };
    child.stdout!.on('data', (chunk) => {
      result.out += chunk;
      onOutput?.(child, result);
    });
    child.stderr!.on('data', (chunk) => {
      result.err += chunk;
    });
    child.on('error', reject);
    onStart?.(child);
    child.on('close', (code) => resolve({ ...result, code }));
  });
}

/** `kernwatt args...`. */
export function kernwatt(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  onOutput?: (child: ChildProcess, result: Result) => void,
  onStart?: (child: ChildProcess) => void,
): Promise<Result> {
  if (!existsSync(main)) throw new Error('dist/ is missing: npm run build');
  return run(process.execPath, [main, ...args], { env: { ...process.env, ...env } }, onOutput, onStart);
}

/** The counter of package 0 in a tree. */
export const counter = 'class/powercap/intel-rapl:0/energy_uj';

/** A machine whose package draws 20 W while f runs, by the clock of this process. */
export async function drawing<T>(f: (sysfs: string) => Promise<T>, files: Record<string, string> = {}): Promise<T> {
  const root = tree({ ...zone('intel-rapl:0', 'package-0'), ...files });
  const from = performance.now();
  const timer = setInterval(() => write(root, counter, `${Math.round((performance.now() - from) * 20e3)}`), 1);
  try {
    return await f(root);
  } finally {
    clearInterval(timer);
  }
}
