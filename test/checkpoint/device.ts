// The device of a file of tests: a test that leaves a buffer on it fails.
import { afterAll, afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { type Device, openDevice } from '../../src/index.js';
import { native } from '../../src/native.js';

/** Opens one before the first test and hands it over; closes it after the last. */
export function cleanDevice(take: (device: Device) => void): void {
  let device: Device;
  let buffers: number;
  beforeAll(async () => {
    device = await openDevice('cpu');
    take(device);
  });
  afterAll(() => device.close());
  beforeEach(() => {
    buffers = native().counters().buffers;
  });
  afterEach(async () => {
    await device.stream.sync();
    expect(native().counters().buffers).toBe(buffers);
  });
}
