// The rule on GPU figures in prose (tools/figures.mjs), through the command line of a small program around it.
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';

const kernel = 'gemm_mma<true, TileShape<128, 128>>';
const measured = (metric: string, value: number, ratio: number | null = null) => ({ metric, value, ratio });
const ledgers = [
  {
    folder: 'h200',
    ledger: {
      kernels: [
        { name: kernel, arch: 'sm_90', measured: [measured('flops', 612.4e12, 1.034), measured('time', 0.2246e-3)] },
        { name: 'copy', arch: 'sm_90', measured: [measured('bandwidth', 4.216e12)] },
      ],
    },
  },
];
const program = `
  import { figureProblems } from './tools/figures.mjs';
  const [markdown, ledgers] = JSON.parse(process.argv[1]);
  console.log(JSON.stringify(figureProblems('README.md', markdown, ledgers)));
`;
function problems(markdown: string, held: object[] = ledgers): string[] {
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', program, JSON.stringify([markdown, held])],
    { encoding: 'utf8' },
  );
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}
const of = (metric: string, name = kernel) => `<!-- ledger: ${name} | ${metric} -->`;

test.each([
  'On an H200 it is predicted to reach 45-55 % of 989 TFLOP/s.',
  'An H200 has 4.8 TB/s by specification.',
  'We estimate 20 us on an A100.',
  'The CPU reaches 446 GFLOP/s. An H200 is needed for the rest.',
  'It needs an H100 and 48 KB of shared memory, tiles of 128x128 or 2 x 64.',
  'square 1024 f32 takes 9.09 ms',
  `On an H200 it reaches 612 TFLOP/s ${of('flops')}.`,
  `On an H200 it reaches 0.61 PFLOP/s. ${of('flops')} An A100 was not measured.`,
  `On an H200 it reaches 612 TFLOP/s in 0.225 ms, 1.03x the time of cuBLAS ${of('flops')} ${of('time')} ${of('ratio')}.`,
  `A copy reaches 4,200 GB/s (±0.5 %) on an H200 ${of('bandwidth', 'copy sm_90')}`,
  `| H200 | 612.4 TFLOP/s | 225 µs | ${of('flops')} ${of('time')} |`,
  `The H200 reaches\n612 TFLOP/s\n${of('flops')}.`,
])('holds: %s', (markdown) => {
  expect(problems(markdown)).toEqual([]);
});

test.each([
  ['On an H200 it reaches 612 TFLOP/s.', '"612 TFLOP/s" is said of a GPU'],
  ['It takes 20 us on an RTX 4090.', '"20 us" is said of a GPU'],
  ['Twice as fast on Hopper: 2.0x.', '"2.0x" is said of a GPU'],
  ['On a GPU it needs 300 W.', '"300 W" is said of a GPU'],
  ['An L4 is at 70 %.', '"70 %" is said of a GPU'],
  ['| A100 | 250-270 TFLOP/s |', '"250-270 TFLOP/s" is said of a GPU'],
  ['```\nH200  4.1 TB/s\n```', '"4.1 TB/s" is said of a GPU'],
  ['It is predicted to be fast. On an H200 it took 3 ms.', '"3 ms" is said of a GPU'],
  [`On an H200 it reaches 613 TFLOP/s ${of('flops')}.`, '"613 TFLOP/s" is not what the ledger holds (flops: 612.4)'],
  [`On an H200 it reaches 612 TFLOP/s ${of('time')}.`, '(flops: nothing)'],
  [`On an H200 it reaches 612 TFLOP/s in 1 ms ${of('flops')}.`, '"1 ms" is not what the ledger holds (time: nothing)'],
  [`1.1x of cuBLAS ${of('ratio')}.`, '"1.1x" is not what the ledger holds (ratio: 1.034)'],
  [`On an H200 it reaches 612 TFLOP/s ${of('flops', 'gone')}.`, 'the ledger has no kernel gone'],
])('is refused: %s', (markdown, why) => {
  expect(problems(markdown)).toContainEqual(expect.stringContaining(why));
});

test('names file and line', () => {
  expect(problems('# Title\n\nText.\nOn an H200\nit takes 3 ms.\n')).toEqual([
    expect.stringMatching(/^README\.md:4: "3 ms"/),
  ]);
});

test('a figure that points at the ledger is refused once the ledger has lost it', () => {
  expect(problems(`On an H200 it reaches 612 TFLOP/s ${of('flops')}.`, [])).toHaveLength(2);
});
