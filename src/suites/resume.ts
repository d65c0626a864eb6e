// Which runs of a suite a file of records already holds, so that a suite that was stopped goes on where it was.
import type { Environment, Tool } from '../measure/environment.js';
import type { Clock, MeasureRecord } from '../measure/record.js';
import type { FileRecord } from '../records/read.js';
import { machine } from '../report/model.js';

/** One compare() that is wanted. */
export interface Wanted {
  /** Case names, the reference first. */
  names: readonly string[];
  clock: Clock;
  cache: 'cold' | 'hot';
  seed: number;
  /** Half width that was asked for: a run that asked for a wider one does not stand in. */
  target: number;
  tool: Tool;
  env: Environment;
}

const sameTool = (a: Tool, b: Tool): boolean => a.version === b.version && a.gitSha === b.gitSha && a.dirty === b.dirty;

function fits(record: MeasureRecord, { clock, cache, target, tool, env }: Wanted): boolean {
  const { time } = record;
  if (time === null || time.headline !== clock) return false;
  return (
    (time.cache === 'hot') === (cache === 'hot') &&
    time[clock]!.stop.target <= target &&
    sameTool(record.tool, tool) &&
    machine(record) === machine({ env }) &&
    record.env.library?.build === env.library?.build
  );
}

/**
 * The records of the last such run in the order of `names`, or null: all members there and correct, taken in turns against the
 * first, by the same kernwatt (version, commit, local changes or none) on the same machine with the same settings.
 */
export function finishedRun(records: readonly FileRecord[], wanted: Wanted): FileRecord[] | null {
  const runs = new Map<string, FileRecord[]>();
  for (const one of records) runs.set(one.record.runId, [...(runs.get(one.record.runId) ?? []), one]);
  for (const run of [...runs.values()].reverse()) {
    const members = wanted.names.map((name) => run.find(({ record }) => record.case.name === name));
    const base = members[0]?.record;
    const whole = members.every(
      (one, i) =>
        one !== undefined &&
        fits(one.record, wanted) &&
        (i === 0 || (one.record.comparison?.baselineId === base!.id && one.record.comparison.seed === wanted.seed)),
    );
    if (whole) return members as FileRecord[];
  }
  return null;
}
