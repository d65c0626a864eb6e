// What a whole process sees: importing without an addon, `require`, exits in mid-flight, and the warning for forgotten tensors.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

const entry = resolve(import.meta.dirname, '../dist/index.js');

function run(body: string, { flags = [] as string[], env = {} } = {}) {
  const code = `import * as kernwatt from ${JSON.stringify(entry)};\nconst { openDevice, gemm, ops } = kernwatt;\n${body}`;
  return spawnSync(process.execPath, [...flags, '--input-type=module', '--eval', code], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 30_000,
  });
}

describe('without an addon', () => {
  const env = { KERNWATT_ADDON: '/nowhere/kernwatt.node' };

  test('importing works, declarations can be read, and only using it throws LIBRARY', () => {
    const { stdout, stderr, status } = run(
      `console.log(Object.values(ops).every((op) => op.spec.cases().length > 0), ops.gemm.spec.name);
       await openDevice('cpu').catch((error) => console.log(error.code, error.message.includes('/nowhere/kernwatt.node')));`,
      { env },
    );
    expect({ stdout, stderr, status }).toEqual({
      stdout: 'true gemm\nERR_KERNWATT_LIBRARY true\n',
      stderr: '',
      status: 0,
    });
  });
});

test('require works where Node has it for modules: nothing awaits at the top level', () => {
  const code = `const { codes } = require(${JSON.stringify(entry)}); console.log(codes.length > 10);`;
  const { stdout, status } = spawnSync(process.execPath, ['--no-warnings', '--input-type=commonjs', '--eval', code], {
    encoding: 'utf8',
  });
  expect({ stdout, status }).toEqual({ stdout: 'true\n', status: 0 });
});

describe('ending with work queued', () => {
  const work = `const device = await openDevice('cpu');
    const x = device.random([512, 512]);
    const plan = gemm.bind({ x, w: x });
    for (let i = 0; i < 20; ++i) plan.enqueue();`;

  test('a process that just ends, ends well', () => {
    expect(run(work)).toMatchObject({ status: 0, signal: null, stderr: '' });
  });

  test('process.exit and a throw end as they say', () => {
    expect(run(`${work} process.exit(3);`)).toMatchObject({ status: 3, signal: null });
    expect(run(`${work} throw new Error('mid-flight');`)).toMatchObject({ status: 1, signal: null });
  });

  test('a mark that is awaited keeps the process alive until it resolves', () => {
    expect(run(`${work} await device.stream.mark(); console.log('done');`)).toMatchObject({
      status: 0,
      stdout: 'done\n',
    });
  });
});

describe('a forgotten tensor', () => {
  const forget = (size: number) => `
    const device = await openDevice('cpu');
    (() => { device.zeros([${size}]); device.zeros([${size}]); })();
    await device.stream.sync();
    for (let i = 0; i < 20 && device.memory().allocations > 0; ++i) { gc(); await new Promise((r) => setTimeout(r, 10)); }
    console.log(device.memory().allocations);
    await device.close();`;

  test('is freed by the collector, quietly when it was small', () => {
    expect(run(forget(1000), { flags: ['--expose-gc'] })).toMatchObject({ stdout: '0\n', stderr: '' });
  });

  test('and once aloud when it was large', () => {
    const { stdout, stderr } = run(forget(2 ** 25), { flags: ['--expose-gc'] });
    expect(stdout).toBe('0\n');
    expect(stderr.match(/KERNWATT_LEAK/g)).toHaveLength(1);
    expect(stderr).toContain('a tensor of 134217728 bytes on cpu was garbage collected without dispose()');
  });

  test('disposing leaves nothing to say', () => {
    const body = `const device = await openDevice('cpu');
      (() => { device.zeros([${2 ** 25}]).dispose(); })();
      gc(); await new Promise((r) => setTimeout(r, 20)); await device.close();`;
    expect(run(body, { flags: ['--expose-gc'] })).toMatchObject({ status: 0, stderr: '' });
  });
});
