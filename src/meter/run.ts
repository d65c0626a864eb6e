// Runs a command with the terminal of this process and meters what the CPU packages draw meanwhile. Signals go through to it.
import { spawn } from 'node:child_process';
import { constants } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import type { CpuMeter, DomainEnergy } from './cpu.js';

export interface MeteredRun {
  /** What the command returned; 128 and the signal's number when a signal ended it. */
  exitCode: number;
  signal: NodeJS.Signals | null;
  /** From the call that starts the command to the notice of its end. */
  wallSeconds: number;
  energy: DomainEnergy[];
}

/** The counters have to move before and after the command; this long is waited for each, seconds. */
const patience = 0.25;
const shortest = 2;

const clock = () => performance.now() / 1000;

/** Rejects with the system's error (`code` ENOENT, EACCES) when the command cannot be started. `interval` in milliseconds. */
export async function runMetered(
  meter: CpuMeter,
  [command, ...args]: readonly [string, ...string[]],
  interval: number,
): Promise<MeteredRun> {
  await until(meter, 2);
  const stop = new AbortController();
  meter.poll(clock);
  const begin = clock();
  const child = spawn(command, args, { stdio: 'inherit' });
  const release = forwardSignals((signal) => child.kill(signal));
  const polling = keepPolling(meter, interval, stop.signal);
  try {
    const ended = await new Promise<{ code: number | null; signal: NodeJS.Signals | null; end: number }>(
      (resolve, reject) => {
        // The same event tells of a signal that could not be sent; then the command runs on.
        child.on('error', (error) => child.pid === undefined && reject(error));
        child.on('exit', (code, signal) => {
          meter.poll(clock);
          resolve({ code, signal, end: clock() });
        });
      },
    );
    stop.abort();
    await polling;
    meter.poll(clock);
    await until(meter, 1);
    return {
      exitCode: ended.signal === null ? ended.code! : 128 + constants.signals[ended.signal],
      signal: ended.signal,
      wallSeconds: ended.end - begin,
      energy: meter.between(begin, ended.end),
    };
  } finally {
    stop.abort();
    release();
  }
}

/** Polls until every counter has moved `times`, or patience ends. */
async function until(meter: CpuMeter, times: number): Promise<void> {
  const from = meter.recorders.map(({ ticks }) => ticks);
  const last = clock() + patience;
  while (!meter.moved(times, from) && clock() < last) {
    meter.poll(clock);
    await setTimeout(shortest);
  }
}

/** Quickly at first, so that the lower bound lacks little of the beginning; then every `interval` milliseconds. */
async function keepPolling(meter: CpuMeter, interval: number, signal: AbortSignal): Promise<void> {
  if (meter.recorders.length === 0) return;
  for (let wait = shortest; !signal.aborted; wait = 2 * wait) {
    meter.poll(clock);
    await setTimeout(Math.min(wait, interval), undefined, { signal }).catch(() => {});
  }
}

/**
 * Hands signals to the command instead of dying of them; the command's end is then this process's end. Ctrl-C on a terminal reaches
 * the command without help, and twice would be "at once" to many programs, so that SIGINT is handed on only without a terminal.
 */
function forwardSignals(hand: (signal: NodeJS.Signals) => void): () => void {
  const terminal = [process.stdin, process.stdout, process.stderr].some(({ isTTY }) => isTTY);
  const handlers = (['SIGINT', 'SIGTERM', 'SIGHUP'] as const).map((signal) => {
    const handler = () => {
      if (signal !== 'SIGINT' || !terminal) hand(signal);
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  return () => {
    for (const off of handlers) off();
  };
}
