// A small HTTP server around one layer of a model: `POST /layer` takes rows of 64 floats and gives rows of 64 floats, as bytes in
// the machine's order. Full queues, clients that go away, and shutting down are handled as a server has to.
//
//   node examples/server.mjs                             PORT=0 takes any free port; stop it with Ctrl-C
//   head -c 512 /dev/zero | curl -s --data-binary @- localhost:8080/layer | wc -c
import { createServer } from 'node:http';
import { gemm, openDevice } from 'kernwatt';

const [width, mostRows] = [64, 256];
const device = await openDevice(); // a GPU that opens, else the CPU
const w = device.random([width, width], 'f32', { seed: 1, distribution: 'integers' });
const bias = device.full([width], 1);
// Memory for 8 requests in flight is allocated here, once; 64 more may wait.
const pool = gemm.pool({ m: mostRows, w, bias, activation: 'relu' }, { slots: 8, queue: 64 });

/** The floats of a request's body, or undefined where it is not whole rows, or too many. */
async function readRows(request) {
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > 4 * width * mostRows) return undefined;
    chunks.push(chunk);
  }
  if (bytes % (4 * width) !== 0) return undefined;
  const rows = new Float32Array(bytes / 4);
  Buffer.concat(chunks).copy(new Uint8Array(rows.buffer));
  return rows;
}

async function layer(request, response) {
  const gone = new AbortController();
  response.on('close', () => gone.abort()); // the client went away, or has its answer
  const x = await readRows(request);
  if (!x)
    return void response
      .writeHead(400, { connection: 'close' })
      .end(`expected up to ${mostRows} rows of ${width} floats\n`);
  try {
    const { y } = await pool.run({ x }, { signal: gone.signal });
    if (pool.closed) response.setHeader('connection', 'close'); // keeps no connection open past the last answer
    response.writeHead(200, { 'content-type': 'application/octet-stream' });
    response.end(new Uint8Array(y.buffer, y.byteOffset, y.byteLength));
  } catch (error) {
    if (gone.signal.aborted) return;
    if (error.code === 'ERR_KERNWATT_BUSY') response.writeHead(503, { 'retry-after': '1' }).end('busy\n');
    else if (error.code === 'ERR_KERNWATT_DISPOSED') response.writeHead(503).end('shutting down\n');
    else {
      console.error(error);
      response.writeHead(500).end('failed\n');
    }
  }
}

const server = createServer(async (request, response) => {
  try {
    if (request.method === 'POST' && request.url === '/layer') await layer(request, response);
    else if (request.url === '/health')
      response.end(JSON.stringify({ device: device.name, running: pool.running, waiting: pool.waiting }));
    else response.writeHead(404).end('POST /layer or GET /health\n');
  } catch (error) {
    // A body that breaks off is the client's affair.
    if (!response.writableEnded) response.destroy(error);
  }
});

async function stop() {
  server.close(); // takes no new connections
  server.closeIdleConnections();
  await pool.close(); // answers what was taken
  await device.close();
}
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, stop);

server.listen(Number(process.env.PORT ?? 8080), () => {
  console.log(`listening on ${server.address().port}, computing on ${device.name}`);
});
