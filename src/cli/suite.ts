// `kernwatt bench attention`, `bench quantization`: runs the groups of a suite through compare(), each by the device's clock and by
// the host's, keeps every record as soon as its run is over, and skips the runs that --out already holds.
import { existsSync } from 'node:fs';
import type { Device } from '../device.js';
import { KernwattError } from '../errors.js';
import { compare } from '../measure/compare.js';
import { describeEnvironment, describeTool } from '../measure/environment.js';
import type { MeasureRecord } from '../measure/record.js';
import { native } from '../native.js';
import { type FileRecord, place, readRecords } from '../records/read.js';
import { keptPerformance, layerFidelity } from '../suites/fidelity.js';
import { finishedRun } from '../suites/resume.js';
import { chosenGroups, type PaperSuite, paperSuites, type SuiteGroup } from '../suites/suites.js';
import { type GroupRuns, groupScores, suiteText } from '../suites/text.js';
import type { BenchFlags } from './bench.js';
import { BoundCase } from './cases.js';
import type { ProgressLine } from './progress.js';
import { pick, UsageError } from './usage.js';

export const suiteNames: readonly string[] = paperSuites.map(({ name }) => name);

/** What is to run: a suite and its groups, after --quick and --group. */
export interface SuitePlan {
  suite: PaperSuite;
  groups: readonly SuiteGroup[];
  notes: string[];
}

/** The suites among `names`, or null when there are none. Refuses what a suite cannot be combined with. */
export function planSuites(names: readonly string[], flags: BenchFlags): SuitePlan[] | null {
  const chosen = paperSuites.filter(({ name }) => names.includes(name));
  if (chosen.length === 0) {
    if (flags.group !== undefined)
      throw new UsageError(`bench: --group is "${flags.group}", expected with a suite: ${suiteNames.join(', ')}`);
    return null;
  }
  const other = names.find((name) => !suiteNames.includes(name));
  if (other !== undefined)
    throw new UsageError(`bench: ${other} is given with suite ${chosen[0]!.name}, expected suites alone`);
  for (const option of ['shape', 'dtype'] as const)
    if (flags[option] !== undefined)
      throw new UsageError(
        `bench: --${option} is given with suite ${chosen[0]!.name}, whose shapes and types are fixed`,
      );
  if (flags.group !== undefined) {
    const all = chosen.flatMap(({ groups }) => groups);
    const group = pick('bench: --group', flags.group, all, ({ name }) => name);
    return [{ suite: chosen.find(({ groups }) => groups.includes(group))!, groups: [group], notes: [] }];
  }
  return chosen.map((suite) => {
    const { run, leftOut } = chosenGroups(suite, flags.quick ?? false);
    const said = `--quick: ${run.length} of the ${suite.groups.length} groups of ${suite.name}, with wider intervals; left out: ${leftOut.join('; ')}`;
    return { suite, groups: run, notes: leftOut.length > 0 ? [said] : [] };
  });
}

/** The text and the JSON of suites, made when the run is over or interrupted. */
export interface SuiteOutcome {
  text(): string;
  result(): unknown[];
}

interface DeviceRuns {
  suite: PaperSuite;
  device: string;
  groups: GroupRuns[];
}

export class SuiteRun implements SuiteOutcome {
  readonly #done: DeviceRuns[] = [];
  #earlier: FileRecord[] = [];
  readonly #resumed: string[] = [];

  constructor(
    private readonly plans: readonly SuitePlan[],
    private readonly flags: BenchFlags,
    private readonly keep: (record: MeasureRecord) => void,
    private readonly notes: string[],
  ) {
    for (const plan of plans) notes.push(...plan.notes);
  }

  async run(devices: readonly Device[], line: ProgressLine, signal: AbortSignal): Promise<void> {
    this.#readEarlier();
    const total = devices.length * this.plans.reduce((sum, { groups }) => sum + groups.length, 0);
    let begun = 0;
    try {
      for (const device of devices)
        for (const { suite, groups } of this.plans) {
          const runs: DeviceRuns = { suite, device: device.name, groups: [] };
          this.#done.push(runs);
          for (const group of groups) {
            const share = (done: number): number => (begun + done) / total;
            try {
              runs.groups.push(
                await this.#group(group, device, signal, (phase, done) =>
                  line.update(`${device.name} ${group.name}, ${phase}`, share(done)),
                ),
              );
            } catch (error) {
              if (signal.aborted || !(error instanceof KernwattError) || !skippable.has(error.code)) throw error;
              this.notes.push(`skipped ${group.name} on ${device.name}: ${error.message}`);
            }
            begun++;
          }
        }
    } finally {
      if (this.#resumed.length > 0) this.notes.push(this.#resumedNote());
    }
  }

  #readEarlier(): void {
    const { out } = this.flags;
    if (out === undefined || !existsSync(out)) return;
    const { records, problems } = readRecords(out);
    this.#earlier = records;
    for (const problem of problems) this.notes.push(`${place(problem)}: ${problem.reason}`);
  }

  #resumedNote(): string {
    const { dirty } = describeTool();
    const caution = dirty ? '; the checkout has local changes, and whether they are the same is not known' : '';
    return `not measured again, finished in ${this.flags.out} on this machine at this commit${caution}: ${this.#resumed.join('; ')}`;
  }

  async #group(
    group: SuiteGroup,
    device: Device,
    signal: AbortSignal,
    onProgress: (phase: string, done: number) => void,
  ): Promise<GroupRuns> {
    const { flags } = this;
    const names = group.members.map(({ model }) => model.name);
    const seed = flags.seed ?? 1;
    const cache = flags.cache ?? 'cold';
    const target = flags.quick ? 0.05 : 0.02;
    const env = describeEnvironment(native().cpu(), { name: device.name, info: device.info }, null, null);
    const bound: BoundCase[] = [];
    const fidelity = group.members.some(({ label }) => label === 'int4')
      ? await layerFidelity(group.members[0]!.model.dims.k!, seed)
      : [];
    const kept = Object.fromEntries(
      group.members.flatMap(({ label, model }) => {
        const found = fidelity.find((one) => one.label === label);
        return found ? [[model.name, keptPerformance(found)]] : [];
      }),
    );
    const runs: Partial<Record<'device' | 'host', readonly FileRecord[]>> = {};
    try {
      for (const [i, clock] of (['device', 'host'] as const).entries()) {
        const wanted = { names, clock, cache, seed, target, tool: describeTool(), env };
        const found = finishedRun(this.#earlier, wanted);
        if (found) {
          runs[clock] = found;
          this.#resumed.push(`${group.name} on ${device.name}, ${clock} clock`);
          continue;
        }
        if (bound.length === 0) for (const member of group.members) bound.push(new BoundCase(member, device, seed));
        const cases = Object.fromEntries(bound.map(({ plan }, at) => [names[at]!, plan]));
        const { records } = await compare(cases, {
          fidelity: kept,
          clock,
          cache,
          seed,
          target,
          // A prefill of 2048 tokens needs this long on two cores for six blocks, the fewest that have an interval.
          maxSeconds: flags.quick ? 3 : 8,
          quick: flags.quick ?? false,
          check: { seconds: flags.quick ? 0.2 : 0.5 },
          // Once is enough: the same native loop would be metered again.
          energy: clock === 'device' && (flags.energy ?? true),
          signal,
          onProgress: ({ phase, done }) => onProgress(phase, (i + done) / 2),
        });
        for (const record of Object.values(records)) this.keep(record);
        runs[clock] = names.map((name) => ({ record: records[name]!, file: flags.out ?? '', line: 0 }));
      }
    } finally {
      for (const one of bound) one[Symbol.dispose]();
    }
    return { group, device: runs.device!, host: runs.host!, fidelity };
  }

  text(): string {
    return this.#done
      .map(({ suite, groups }) => suiteText(suite, groups))
      .filter((text) => text !== '')
      .join('\n');
  }

  result(): unknown[] {
    const ids = (records: readonly FileRecord[]) => records.map(({ record }) => record.id);
    return this.#done.flatMap(({ suite, device, groups }) =>
      groups.map((runs) => ({
        suite: suite.name,
        group: runs.group.name,
        device,
        members: runs.group.members.map(({ label }) => label),
        fidelity: runs.fidelity,
        records: { device: ids(runs.device), host: ids(runs.host) },
        ratios: runs.device.map(({ record: { comparison } }) =>
          comparison ? { value: comparison.ratio, ci95: comparison.ci95 } : null,
        ),
        scores: Object.fromEntries(
          groupScores(runs).map(({ form, labels, metrics, leftOut, members }) => [
            form,
            { metrics, leftOut, members: members.map((one, i) => ({ label: labels[i], ...one })) },
          ]),
        ),
      })),
    );
  }
}

/** A group that this device cannot run is left out aloud; anything else ends the run. */
export const skippable: ReadonlySet<string> = new Set(['ERR_KERNWATT_UNSUPPORTED', 'ERR_KERNWATT_OUT_OF_MEMORY']);
