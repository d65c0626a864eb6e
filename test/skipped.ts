// Says aloud, after the last test, what this machine could not run and what would enable it.
import { targets } from './targets.js';

export function teardown(): void {
  for (const { name, reason, cases } of targets().missing)
    process.stdout.write(`Skipped: ${name}, ${cases} operator cases (${reason})\n`);
}
