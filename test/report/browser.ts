// The browser that the HTML report is tested in: Debian's headless Chromium, which playwright-core drives.
import { existsSync } from 'node:fs';

export const browser = ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium'].find((path) => existsSync(path));

export const installBrowser = 'sudo apt-get install -y --no-install-recommends chromium-headless-shell';
