// Says aloud, after the last test, what this machine could not run and what would enable it.
import { browser, installBrowser } from './report/browser.js';
import { targets } from './targets.js';

export function teardown(): void {
  for (const { name, reason, cases } of targets().missing)
    process.stdout.write(`Skipped: ${name}, ${cases} operator cases (${reason})\n`);
  if (!browser) process.stdout.write(`Skipped: the HTML report in a browser (${installBrowser})\n`);
}
