// Tests run against the sources in src/ and the built addon; `npm test` builds it first.
import { resolve } from 'node:path';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    testTimeout: 60_000,
    hookTimeout: 60_000,
    globalSetup: ['test/skipped.ts'],
    // Results must not depend on what this user has calibrated.
    env: { XDG_CACHE_HOME: resolve('.build/test/cache') },
  },
});
