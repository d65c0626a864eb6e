// The HTML report in headless Chromium: charts drawn, sorted, filtered, weighed, themed, narrow, printed; it asks the network for
// nothing and a name cannot break out of it. Needs dist/report/page (npm test builds it); skipped aloud without a browser.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { known } from '../../src/measure/quantity.js';
import type { MeasureRecord } from '../../src/measure/record.js';
import { embedded, html } from '../../src/report/html.js';
import { report } from '../../src/report/model.js';
import { pack, unpack } from '../../src/report/pack.js';
import { equalWeights } from '../../src/report/quantities.js';
import { clock, metered, record, subject } from '../measure/record.js';
import { browser } from './browser.js';

const evil = `</script><script>window.broken = 1</script><img src="https://example.com/x.png" onerror="window.broken = 2"><!--`;

/** Records of one work by different means; the first half of them cold. */
function made(name: string, seconds: number, { bytes = 1e7, cache = 'cold' as const, joules = 0 } = {}): MeasureRecord {
  const half = 0.02 * seconds;
  const times = { device: { ...clock(seconds), ci95Median: [seconds - half, seconds + half] as [number, number] } };
  const one = record({ times: { ...times, host: clock(1.1 * seconds) } }, { cache });
  const averageBytes = known(bytes, 'B', 'a test');
  const metrics = { ...one.metrics!, AMU: { ...one.metrics!.AMU } };
  metrics.AMU.honest = { ...metrics.AMU.honest, averageBytes };
  if (joules > 0)
    metrics.AEC = { ...metrics.AEC, honest: { ...metrics.AEC.honest, joulesPerToken: known(joules, 'J', 'a test') } };
  return { ...one, case: { ...one.case, name }, metrics };
}

const records = [
  made('slow', 0.03, { bytes: 3e7 }),
  made('quick', 0.01, { bytes: 2e7 }),
  made('small', 0.02, { bytes: 1e7 }),
  made(evil, 0.04, { bytes: 4e7 }),
];

const reportOf = (all: readonly MeasureRecord[]) =>
  report(
    ['f.jsonl'],
    all.map((one, i) => ({ record: one, file: 'f.jsonl', line: i + 1 })),
    [{ file: 'f.jsonl', line: 99, reason: 'is cut off' }],
  );

describe('the data in the page', () => {
  test('no string of a record ends the element it stands in', () => {
    const text = embedded({ name: evil, other: 'a\u2028b' });
    expect(text).not.toMatch(/[<>\u2028]/);
    expect(JSON.parse(text)).toEqual({ name: evil, other: 'a\u2028b' });
  });

  test('what is packed comes back, to six digits', () => {
    const all = reportOf([...records, made('other', 1 / 3)]);
    const [before, after] = [all.groups[0]!, unpack(JSON.parse(JSON.stringify(pack(all, equalWeights)))).groups[0]!];
    expect(after.rows).toHaveLength(before.rows.length);
    for (const [i, { id: _, runId: __, ...row }] of before.rows.entries()) {
      const same = after.rows[i]!;
      expect({ ...same, cells: [] }).toEqual({ ...row, cells: [] });
      for (const [j, cell] of row.cells.entries()) {
        const back = same.cells[j]!;
        if (typeof cell === 'string' || typeof back === 'string') expect(back).toBe(cell);
        else
          for (const end of ['value', 'low', 'high'] as const) {
            if (cell[end] === null) expect(back[end]).toBe(null);
            else expect(Math.abs(back[end]! - cell[end])).toBeLessThanOrEqual(1e-5 * Math.abs(cell[end]));
          }
      }
    }
  });

  test('5,000 records take less than 5 MB', () => {
    const many = Array.from({ length: 5000 }, (_, i) =>
      made(`qwen2.5-1.5b gate_up decode ${i}`, (1 + (i % 977)) / 3e5, { bytes: 1e7 + i }),
    );
    expect(Buffer.byteLength(html(reportOf(many), equalWeights))).toBeLessThan(5e6);
  });
});

describe.skipIf(!browser)('in a browser', () => {
  let folder: string;
  let running: Browser;
  const heard: string[] = [];
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'kernwatt-page-'));
    running = await chromium.launch({ executablePath: browser!, args: ['--no-sandbox'] });
  });
  afterAll(async () => {
    await running?.close();
    rmSync(folder, { recursive: true });
  });
  afterEach(async () => {
    for (const context of running.contexts()) await context.close();
    // Console errors, exceptions and requests of whatever page the test opened.
    expect(heard.splice(0)).toEqual([]);
  });

  async function open(all: readonly MeasureRecord[], options: BrowserContextOptions = {}): Promise<Page> {
    const path = join(folder, 'report.html');
    writeFileSync(path, html(reportOf(all), equalWeights));
    const page = await (await running.newContext(options)).newPage();
    const url = pathToFileURL(path).href;
    page.on('console', (message) => heard.push(`console ${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => heard.push(`exception: ${error.message}`));
    page.on('request', (request) => {
      if (request.url() !== url && !request.url().startsWith('data:')) heard.push(`request: ${request.url()}`);
    });
    await page.goto(url);
    await page.waitForSelector('html[data-ready]');
    return page;
  }

  /** How many pixels of a chart differ from nothing, and a sum of their colours. */
  const inked = (page: Page, id: string): Promise<{ pixels: number; colours: number }> =>
    page.locator(`#${id} canvas`).evaluate((element) => {
      const canvas = element as unknown as {
        width: number;
        height: number;
        getContext(kind: '2d'): { getImageData(...box: number[]): { data: Uint8ClampedArray } };
      };
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      let pixels = 0;
      let colours = 0;
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3]! === 0) continue;
        pixels++;
        colours += data[i]! + 2 * data[i + 1]! + 3 * data[i + 2]!;
      }
      return { pixels, colours };
    });
  const names = (page: Page) => page.locator('[aria-label=records] tbody td:first-child').allTextContents();

  test('draws four charts, each with a name for those who do not see it', async () => {
    const page = await open(records);
    for (const id of ['roofline', 'pareto', 'bars', 'radar']) {
      expect((await inked(page, id)).pixels, id).toBeGreaterThan(1000);
      const canvas = page.locator(`#${id} canvas`);
      expect(await canvas.getAttribute('role')).toBe('img');
      expect((await canvas.getAttribute('aria-label'))!.length).toBeGreaterThan(20);
    }
    expect(await page.locator('#pareto canvas').getAttribute('aria-label')).toContain('2 of 4 on the front');
    const text = (await page.locator('main').textContent())!;
    expect(text).toContain('energy per token (a test has no meter');
    expect(text).toContain('f.jsonl:99: is cut off');
  });

  test('joules: the front over latency and energy per token, columns, flags and what they cover', async () => {
    const energetic = [metered([1, 1.02, 0.98]), metered([2, 2.02, 1.98], { powerShare: 1.3 })].map((energy, i) => {
      const times = { device: clock(0.01 * (i + 1)), host: clock(0.02) };
      return record({ energy, times }, { case: { ...subject.case, name: ['thrifty', 'wasteful'][i]! } });
    });
    const page = await open(energetic);
    expect(await page.locator('#pareto canvas').getAttribute('aria-label')).toBe(
      'Pareto chart: latency against energy per token, 1 of 2 on the front',
    );
    expect((await inked(page, 'pareto')).pixels).toBeGreaterThan(1000);
    const row = page.locator('[aria-label=records] tbody tr', { hasText: 'wasteful' });
    expect(await row.textContent()).toMatch(/200 mJ.*2\.00 J.*disputed/);
    const text = (await page.locator('main').textContent())!;
    expect(text).toContain('energy of gpu:0 (nvml) covers a made-up board');
    expect(text).toContain('energy is disputed: the power readings add up to 30 % more');
  });

  test('a name that looks like markup is text', async () => {
    const page = await open(records);
    expect(await names(page)).toContain(evil);
    expect(await page.evaluate('window.broken')).toBe(undefined);
    expect(await page.locator('img').count()).toBe(0);
  });

  test('sorts by any column, both ways, and tells assistive software', async () => {
    const page = await open(records);
    const head = page.getByRole('button', { name: /^latency/ });
    await head.click();
    expect(await names(page)).toEqual(['quick', 'small', 'slow', evil]);
    await head.click();
    expect(await names(page)).toEqual([evil, 'slow', 'small', 'quick']);
    expect(await page.locator('th', { has: head }).getAttribute('aria-sort')).toBe('descending');
    await page.getByRole('button', { name: 'case' }).click();
    expect((await names(page)).slice(1)).toEqual(['quick', 'slow', 'small']);
  });

  test('filters by words and by cache, and the charts follow', async () => {
    const page = await open([...records, made('quick hot', 0.005, { cache: 'hot' as never })]);
    const label = page.locator('#roofline canvas');
    expect(await label.getAttribute('aria-label')).toContain('5 records');
    await page.getByLabel('cache').selectOption('hot');
    expect(await names(page)).toEqual(['quick hot']);
    expect(await label.getAttribute('aria-label')).toMatch(/ 1 record$/);
    await page.getByLabel('cache').selectOption('');
    await page.getByLabel('find').fill('QUICK avx2');
    await expect.poll(() => names(page)).toEqual(['quick', 'quick hot']);
    expect(await page.getByRole('status').textContent()).toBe('2 of 5 records');
    await page.getByLabel('find').fill('nothing of the kind');
    await expect.poll(() => names(page)).toEqual([]);
  });

  test('weights and the form of the metrics change scores at once', async () => {
    const page = await open(
      records.map((one, i) => made(one.case.name, 0.01 * (i + 1), { bytes: 1e7 * (9 - i), joules: 1 + i })),
    );
    const best = () => page.locator('[aria-label=scores] tbody tr:first-child td').first().textContent();
    const weigh = (metric: string, weight: string) => page.getByLabel(metric, { exact: true }).fill(weight);
    await weigh('AMU', '0');
    expect(await best()).toBe('slow');
    await weigh('AMU', '1');
    for (const metric of ['PCU', 'AL', 'AT', 'AEC']) await weigh(metric, '0');
    expect(await best()).toBe(evil);
    const heads = () => page.locator('[aria-label=scores] th').allTextContents();
    expect(await heads()).toContain('AEC');
    await page.getByRole('combobox', { name: /^form/ }).selectOption('paper');
    expect(await heads()).not.toContain('AEC');
  });

  test('follows the system theme and the switch, charts included', async () => {
    const page = await open(records, { colorScheme: 'dark' });
    const back = () => page.evaluate('getComputedStyle(document.documentElement).backgroundColor');
    const seen = new Set([`${await back()} ${(await inked(page, 'bars')).colours}`]);
    await page.getByLabel('theme').selectOption('light');
    const light = `${await back()} ${(await inked(page, 'bars')).colours}`;
    seen.add(light);
    expect(seen.size).toBe(2);
    await page.getByLabel('theme').selectOption('system');
    await page.emulateMedia({ colorScheme: 'light' });
    await expect.poll(async () => `${await back()} ${(await inked(page, 'bars')).colours}`).toBe(light);
  });

  test('fits a phone without scrolling sideways', async () => {
    const page = await open(records, { viewport: { width: 390, height: 844 } });
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
    expect((await inked(page, 'pareto')).pixels).toBeGreaterThan(1000);
  });

  test('prints', async () => {
    const page = await open(records, { colorScheme: 'dark' });
    expect((await page.pdf()).length).toBeGreaterThan(20_000);
    await page.emulateMedia({ media: 'print' });
    expect(await page.getByLabel('find').isVisible()).toBe(false);
  });

  test('two machines are two reports in one page, and thousands of rows come a hundred at a time', async () => {
    const other = (one: MeasureRecord): MeasureRecord => ({
      ...one,
      env: { ...one.env, cpu: { ...one.env.cpu, model: 'another processor' } },
    });
    const many = Array.from({ length: 1234 }, (_, i) => other(made(`case ${i}`, (1 + i) / 1e4)));
    const page = await open([...records, ...many]);
    expect(await names(page)).toHaveLength(4);
    await page.getByRole('combobox', { name: /^device/ }).selectOption('1');
    expect(await names(page)).toHaveLength(100);
    expect(await page.locator('main').textContent()).toContain('another processor');
    await page.getByRole('button', { name: 'all 1134' }).click();
    expect(await names(page)).toHaveLength(1234);
    for (const name of await page.getByLabel('compare').locator('option').allTextContents())
      expect(name).toMatch(/1234/);
  });
});
