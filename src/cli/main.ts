#!/usr/bin/env node
// The `kernwatt` command. Each subcommand loads its own module, so that `--help` and `ops` start at once.
import { Command, CommanderError, Option } from 'commander';
import { describeTool } from '../measure/environment.js';
import {
  exit,
  gateExit,
  isUsage,
  parseShape,
  parseWeights,
  positiveNumber,
  ScriptError,
  wholeNumber,
} from './usage.js';

const program = new Command('kernwatt')
  .description('Know what every operator of a large language model costs: time, memory, utilisation and energy.')
  .version(describeTool().version)
  .exitOverride()
  // What follows the command of `meter` is that command's own.
  .enablePositionalOptions()
  .showHelpAfterError('Run with --help to see what it takes.');

const json = () => new Option('--json', 'print JSON as docs/measuring.md describes it');
const seed = () => new Option('--seed <n>', 'seed of inputs and random choices').argParser(wholeNumber(0));
const shape = () =>
  new Option('--shape <sizes>', 'one shape instead of the listed ones, for example m=1,n=4096,k=4096').argParser(
    parseShape,
  );
const dtype = () => new Option('--dtype <type>', 'only this type of the main operands, for example bf16');
const threads = () =>
  new Option('--threads <n>', 'CPU worker threads; default: the cores of this process').argParser(wholeNumber(1, 1024));

program
  .command('doctor')
  .description(
    'what works on this machine, what does not, and the line that fixes it; exit code 1 where --require fails',
  )
  .addOption(
    new Option('--require <part...>', 'what has to work; default: cpu').choices(['cpu', 'cuda', 'emu', 'energy']),
  )
  .addOption(json())
  .action(async (options) => finish((await import('./doctor.js')).doctor(options)));

program
  .command('ops')
  .description('operators, their arguments, data types and backends')
  .addOption(json())
  .action(async (options) => finish((await import('./ops.js')).ops(options)));

program
  .command('check')
  .description(
    'compare operators with their definition in double precision; the last line counts what passed and failed',
  )
  .argument('[op...]', 'operators; default: all')
  .addOption(new Option('--backend <name>', 'what to check; default: cpu').choices(['cpu', 'ref', 'cuda', 'emu']))
  .option('--device <name>', 'which device, for example emu:1; default: the first of the backend')
  .option('--case <name>', 'only the case of this name')
  .addOption(seed())
  .addOption(
    new Option('--fuzz <n>', 'instead check n cases of random shapes, strides, types and parameters').argParser(
      wholeNumber(1),
    ),
  )
  .addOption(threads())
  .option('--isa <name>', 'strongest CPU instruction set to use, for example avx2; default: the best there is')
  .addOption(json())
  .action(async (names, options) => finish((await import('./check.js')).check(names, options)));

program
  .command('bench')
  .description('measure operators: time, rates against measured peaks, and the six metrics')
  .argument(
    '[what...]',
    'operators, sets of them (quick, models), suites of the paper (attention, quantization) or a script (*.js, *.mjs); default: quick',
  )
  .addOption(new Option('--backend <name>', 'where to run').choices(['auto', 'cpu', 'cuda', 'emu']).default('auto'))
  .addOption(shape())
  .addOption(dtype())
  .addOption(threads())
  .addOption(new Option('--cache <state>', 'only operands in this state').choices(['cold', 'hot']))
  .addOption(seed())
  .option('--quick', 'wider intervals, less time')
  .option('--group <name>', 'only this group of a suite')
  .option('--no-energy', 'leave out the energy windows, which take seconds for each case where a counter can be read')
  .option(
    '--self',
    "time kernwatt's own overhead instead: eager calls, enqueue, tensor creation, and the meter on against off",
  )
  .option('--out <file>', 'append the records to this file as JSON lines')
  .option('--force', 'let --out replace a file that holds something else')
  .addOption(json())
  .action(async (what, options) => finish((await import('./bench.js')).bench(what, options)));

program
  .command('calibrate')
  .description(
    'measure the ceilings of a device, and what an operation, a byte and a second cost in energy; kept for later runs',
  )
  .addOption(new Option('--backend <name>', 'which device').choices(['auto', 'cpu', 'cuda']).default('auto'))
  .addOption(threads())
  .option('--quick', 'wider intervals, less time')
  .option('--force', 'measure again although there is a calibration')
  .addOption(json())
  .action(async (options) => finish((await import('./calibrate.js')).calibrate(options)));

program
  .command('tune')
  .description(
    "measure every configuration of the operators' backends against the one they take by themselves, and keep what is faster for this device",
  )
  .argument('[what...]', 'operators, sets of their shapes (quick, models); default: quick')
  .addOption(new Option('--backend <name>', 'where to run').choices(['auto', 'cpu', 'cuda', 'emu']).default('auto'))
  .addOption(shape())
  .addOption(dtype())
  .addOption(threads())
  .addOption(seed())
  .option('--quick', 'wider intervals, less time, less found')
  .option('--folder <path>', "where decisions are kept; default: kernwatt in the user's cache folder")
  .addOption(json())
  .action(async (what, options) => finish((await import('./tune.js')).tune(what, options)));

program
  .command('report')
  .description('what files of records say: tables, Pareto fronts, ranks and scores of alternatives')
  .argument('<file...>', 'records, as bench --out writes them')
  .option('--md', 'print Markdown; the default')
  .option('--csv', 'print CSV, one line for each record')
  .option('--html <out>', 'write one HTML page with charts that needs nothing else')
  .addOption(json())
  .addOption(
    new Option('--weights <list>', 'of the efficiency score, for example AL=2,AEC=0.5; default: 1 each').argParser(
      parseWeights,
    ),
  )
  .option('--together', 'rank all records of a device, not only those of the same work')
  .action(async (files, options) => finish((await import('./report.js')).report(files, options)));

program
  .command('gate')
  .description('0 when a metric grew by no more than a ratio, 1 when by more, 2 when nobody can tell, 3 on bad input')
  .argument('<base>', 'records of before, as bench --out writes them')
  .argument('<new>', 'records of after; the same file where one run compared both')
  .option('--metric <name>', 'what is judged: time, energy.perCallJ, memory.workspaceBytes ...', 'time')
  .addOption(
    new Option('--max-ratio <r>', 'largest NEW / BASE that passes, for example 1.03')
      .argParser(positiveNumber)
      .makeOptionMandatory(),
  )
  .addOption(json())
  .option('--md <file>', 'also write Markdown, as for a pull request')
  .option('--junit <file>', 'also write JUnit XML')
  // To a build server 2 means inconclusive here, so a command line that makes no sense has to be 3.
  .exitOverride((error) => {
    throw new CommanderError(error.exitCode === 0 ? 0 : gateExit['bad-input'], error.code, error.message);
  })
  .action(async (base, news, options) => finish((await import('./gate.js')).gate(base, news, options)));

program
  .command('meter')
  .description(
    'run any program and say, on standard error, how long it took and what CPU packages and GPUs drew meanwhile',
  )
  .argument('<command...>', 'the program and its arguments; its exit code is returned')
  .passThroughOptions()
  .option('--gpu <gpu>', 'one GPU alone, by PCI address, UUID or index of nvidia-smi; default: all')
  .addOption(
    new Option(
      '--interval <ms>',
      'time between two readings of a counter; default: 5 for CPU packages, 1 for GPUs',
    ).argParser(wholeNumber(1, 10_000)),
  )
  .option('--out <file>', 'also write JSON to this file')
  .option('--json', "print JSON as docs/measuring.md describes it, on standard error: standard output is the program's")
  .option('--sysfs <folder>', "the host's sysfs where a container hides its own counters", '/sys')
  .action(async (command, options) => finish((await import('./meter.js')).meter(command, options)));

program
  .command('monitor')
  .description(
    'power, energy, clocks, memory, utilisation, temperature and throttling of GPUs and CPU packages, live; Ctrl-C ends it',
  )
  .addOption(
    new Option('--interval <ms>', 'time between two readings').argParser(wholeNumber(100, 3_600_000)).default(1000),
  )
  .addOption(new Option('--count <n>', 'end after so many readings').argParser(wholeNumber(1)))
  .option('--gpu <which>', "one GPU by the driver's index, UUID or PCI address; default: all")
  .option('--json', 'print one JSON object for each reading, as docs/measuring.md describes it')
  .option('--sysfs <folder>', "the host's sysfs where a container hides its own counters", '/sys')
  .action(async (options) => finish((await import('./monitor.js')).monitor(options)));

async function finish(code: number | Promise<number>): Promise<void> {
  process.exitCode = await code;
}

try {
  await program.parseAsync();
} catch (error) {
  // Commander ends every bad command line with 1; only gate has a code of its own for that.
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 1 ? exit.usage : error.exitCode;
  else {
    process.stderr.write(`kernwatt: ${(error as Error).message}\n`);
    if (error instanceof ScriptError) throw error.cause;
    if (!isUsage(error) && process.env.KERNWATT_TRACE) process.stderr.write(`${(error as Error).stack}\n`);
    process.exitCode = isUsage(error) ? exit.usage : exit.failed;
  }
}
