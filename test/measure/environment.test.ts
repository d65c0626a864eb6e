// Where a measurement was taken, as far as this machine tells.
import { expect, test } from 'vitest';
import { describeEnvironment, describeTool, readSteal, stealShare } from '../../src/measure/environment.js';

test('in a checkout the tool says its commit and whether files differ from it', () => {
  const { name, version, gitSha, dirty } = describeTool();
  expect({ name, version }).toEqual({ name: 'kernwatt', version: expect.stringMatching(/^\d+\.\d+\.\d+/) });
  if (gitSha !== null) {
    expect(gitSha).toMatch(/^[0-9a-f]{40}$/);
    expect(typeof dirty).toBe('boolean');
  } else expect(dirty).toBeNull();
});

test('without the addon the processor is still named and the rest is null or empty', () => {
  const { cpu, device, library, node } = describeEnvironment(null, null, null, null);
  expect(cpu.model).not.toBe('');
  expect(cpu).toMatchObject({ isa: [], llcBytes: null, stealShare: null });
  expect({ device, library }).toEqual({ device: null, library: null });
  expect(node.version).toBe(process.version);
});

test('the stolen share is that of the time between two readings, and unknown without any', () => {
  expect(stealShare({ stolen: 10, total: 100 }, { stolen: 15, total: 200 })).toBe(0.05);
  expect(stealShare({ stolen: 10, total: 100 }, { stolen: 10, total: 100 })).toBeNull();
  expect(stealShare(null, { stolen: 0, total: 1 })).toBeNull();
  const now = readSteal();
  if (process.platform === 'linux') expect(now!.total).toBeGreaterThan(now!.stolen);
});
