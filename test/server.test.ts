// The example of a server, run as a user would: answers, bad input, a client that goes away, shutting down.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { gemm, openDevice } from '../src/index.js';

const width = 64;
const rows = (count: number, seed: number) =>
  Float32Array.from({ length: count * width }, (_, i) => ((i * 7 + seed) % 9) - 4);

describe('examples/server.mjs', () => {
  let child: ChildProcess;
  let port = 0;
  let said = '';
  let expected: (x: Float32Array) => Promise<Float32Array>;
  let closing: () => Promise<void>;

  beforeAll(async () => {
    const file = resolve(import.meta.dirname, '../examples/server.mjs');
    child = spawn(process.execPath, [file], { env: { ...process.env, PORT: '0' }, stdio: ['ignore', 'pipe', 'pipe'] });
    child.stderr!.on('data', (text) => {
      said += text;
    });
    const [line] = await once(createInterface(child.stdout!), 'line');
    port = Number(/^listening on (\d+), computing on \w+/.exec(line)![1]);
    const device = await openDevice('cpu', { threads: 1 });
    const w = device.random([width, width], 'f32', { seed: 1, distribution: 'integers' });
    const bias = device.full([width], 1);
    expected = async (data) => {
      using x = device.tensor(data, [data.length / width, width]);
      const { y } = gemm({ x, w, bias, activation: 'relu' }, { backend: 'ref' });
      return (await y.read()) as Float32Array;
    };
    closing = () => device.close();
  });
  afterAll(async () => {
    child.kill('SIGKILL');
    await closing();
  });

  const post = (body: Float32Array | string) => {
    const bytes = typeof body === 'string' ? body : new Uint8Array(body.buffer);
    return fetch(`http://127.0.0.1:${port}/layer`, { method: 'POST', body: bytes });
  };
  const answered = async (response: Response) => new Float32Array(await response.arrayBuffer());

  test('answers many requests of many sizes at a time, each with its own', async () => {
    const asked = Array.from({ length: 60 }, (_, i) => rows(1 + ((i * 37) % 256), i));
    const responses = await Promise.all(asked.map(post));
    expect(responses.map(({ status }) => status)).toEqual(asked.map(() => 200));
    for (const [i, response] of responses.entries())
      expect(await answered(response)).toEqual(await expected(asked[i]!));
  });

  test('refuses what is not whole rows, or too many', async () => {
    for (const body of ['seven bytes or so', rows(257, 0)]) {
      const response = await post(body);
      expect([response.status, await response.text()]).toEqual([400, 'expected up to 256 rows of 64 floats\n']);
    }
    expect((await fetch(`http://127.0.0.1:${port}/elsewhere`)).status).toBe(404);
  });

  test('survives clients that go away in the middle, and answers 503 to more than it takes', async () => {
    const body = rows(256, 1);
    const head = `POST /layer HTTP/1.1\r\nhost: here\r\ncontent-length: ${body.byteLength}\r\n\r\n`;
    for (const sent of [0, 1000, body.byteLength]) {
      const socket = connect(port, '127.0.0.1');
      await once(socket, 'connect');
      socket.write(head);
      await new Promise((done) => socket.write(new Uint8Array(body.buffer, 0, sent), done));
      socket.destroy();
    }
    const responses = await Promise.all(Array.from({ length: 300 }, () => post(body)));
    const statuses = responses.map(({ status }) => status);
    expect(statuses.every((status) => status === 200 || status === 503)).toBe(true);
    expect(statuses).toContain(200);
    await Promise.all(responses.map((response) => response.arrayBuffer()));
    const health = await fetch(`http://127.0.0.1:${port}/health`);
    expect(await health.json()).toMatchObject({ running: 0, waiting: 0 });
  });

  test('stops when told to, after its answers', async () => {
    const asked = rows(256, 2);
    const last = post(asked);
    // It is there once the server has read it: the next answer comes after.
    await fetch(`http://127.0.0.1:${port}/health`);
    child.kill('SIGTERM');
    const response = await last.catch(() => undefined);
    if (response?.status === 200) expect(await answered(response)).toEqual(await expected(asked));
    const [code, signal] = child.exitCode === null ? await once(child, 'exit') : [child.exitCode, child.signalCode];
    expect({ code, signal, said }).toEqual({ code: 0, signal: null, said: '' });
  });
});
