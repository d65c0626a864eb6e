// The browser that the HTML report is tested in: Debian's headless Chromium, or the one KERNWATT_BROWSER names.
import { existsSync } from 'node:fs';

const { KERNWATT_BROWSER: named } = process.env;

export const browser = (named ? [named] : ['/usr/bin/chromium-headless-shell', '/usr/bin/chromium']).find((path) =>
  existsSync(path),
);

export const installBrowser = 'sudo apt-get install -y --no-install-recommends chromium-headless-shell';
