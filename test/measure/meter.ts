// A meter in JavaScript whose truth is known: constant power on the real clock, a counter that ticks, polls every 2 ms. It has the
// part of a Meter that measuring needs, so that metering can be tested without a counter, and its failures at any moment.
import type { Series } from '../../src/energy/ticks.js';
import type { EnergyMeter } from '../../src/measure/options.js';
import { monotonic } from '../../src/measure/subject.js';
import type { DomainRecording, MeterDomain } from '../../src/meter/meter.js';

export interface MadeUp {
  watts?: number;
  /** Instead: joules until a moment of the monotonic clock; power is not read then. */
  truth?: (time: number) => number;
  tickSeconds?: number;
  /** What the power readings show of the true power; null: power is not read. */
  powerShare?: number | null;
  /** After so many calls, recording() throws. */
  failsAfter?: number;
  /** After so many calls of recording() the counter cannot be read any more. */
  silentAfter?: number;
  stuck?: boolean;
}

const pollSeconds = 2e-3;

export function madeUpMeter(made: MadeUp = {}): EnergyMeter & { calls: number } {
  const { watts = 80, tickSeconds = 0.02, truth } = made;
  const { powerShare = truth ? null : 1 } = made;
  const { failsAfter = Number.POSITIVE_INFINITY, silentAfter = Number.POSITIVE_INFINITY, stuck = false } = made;
  const opened = monotonic();
  let silentFrom = Number.POSITIVE_INFINITY;
  const domain: MeterDomain = {
    name: 'gpu:0',
    source: 'nvml',
    scope: 'gpu',
    covers: 'a made-up board',
    exclusive: true,
    state: 'ok',
    reason: null,
    fix: null,
  };
  const joules = (time: number): number => {
    if (stuck) return 0;
    const passed = tickSeconds * Math.floor((time - opened) / tickSeconds);
    return truth ? truth(opened + passed) : watts * passed;
  };
  const series = (begin: number, end: number, value: (time: number) => number): Series => {
    const seconds: number[] = [];
    for (let time = Math.max(opened, begin - 0.1); time <= end; time += pollSeconds) seconds.push(time);
    return { seconds, values: seconds.map((time) => (time > silentFrom ? Number.NaN : value(time))) };
  };
  const meter = {
    calls: 0,
    domains: [domain],
    recording: async ({ begin, end }: { begin: number; end: number }): Promise<DomainRecording[]> => {
      meter.calls++;
      if (meter.calls === silentAfter) silentFrom = monotonic();
      if (meter.calls > failsAfter) throw new Error('the driver went away');
      const data = {
        counter: series(begin, end, joules),
        ...(powerShare === null
          ? {}
          : { power: { ...series(begin, end, () => watts * powerShare), averagedSeconds: 0 } }),
      };
      return [
        {
          domain,
          data,
          scope: { scope: 'gpu', mig: false, otherProcesses: 0 },
          thinnedBefore: Number.NEGATIVE_INFINITY,
        },
      ];
    },
  };
  return meter;
}
