// ggml's CPU backend as node-llama-cpp ships it, driven through its own C interface (koffi calls it): the library that is best
// for this processor, its threads in a pool that stays, weights in the buffers that llama.cpp prefers for them.
// The interface: https://github.com/ggml-org/llama.cpp, ggml/include/ggml.h, ggml-backend.h, ggml-cpu.h
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const platform = `${process.platform}-${process.arch}`;
const name = `@node-llama-cpp/${platform}`;
const found = join(dirname(fileURLToPath(import.meta.url)), 'node_modules', name);
const present = existsSync(found);

/** Whose ggml it is; version '' where this platform has none. */
export const peer = {
  key: 'ggml',
  name,
  version: present ? JSON.parse(readFileSync(join(found, 'package.json'), 'utf8')).version : '',
};

const types = { f32: 0, f16: 1, q4_0: 2, bf16: 30 }; // enum ggml_type
const mostThreads = 512; // GGML_MAX_N_THREADS
const mostNodes = 16; // of a graph: one product and its two operands

/** Opens the library on `threads` threads, which spin between calls or do not; null where this platform has none. */
export function openGgml({ threads, spin }) {
  if (!present) return null;
  const koffi = createRequire(import.meta.url)('koffi');
  const folder = join(found, 'bins', platform);
  const files = readdirSync(folder);
  const [base, registry] = ['libggml-base.', 'libggml.'].map((start) =>
    koffi.load(
      join(
        folder,
        files.find((file) => file.startsWith(start)),
      ),
    ),
  );
  const c = (library, declaration) => library.func(declaration);

  koffi.struct('ggml_init_params', { mem_size: 'size_t', mem_buffer: 'void *', no_alloc: 'bool' });
  koffi.struct('ggml_threadpool_params', {
    cpumask: koffi.array('bool', mostThreads),
    n_threads: 'int',
    prio: 'int',
    poll: 'uint32_t',
    strict_cpu: 'bool',
    paused: 'bool',
  });
  const init = c(base, 'void *ggml_init(ggml_init_params)');
  const free = c(base, 'void ggml_free(void *)');
  const matrix = c(base, 'void *ggml_new_tensor_2d(void *, int, int64_t, int64_t)');
  const product = c(base, 'void *ggml_mul_mat(void *, void *, void *)');
  const tensor4 = c(base, 'void *ggml_new_tensor_4d(void *, int, int64_t, int64_t, int64_t, int64_t)');
  const attention = c(base, 'void *ggml_flash_attn_ext(void *, void *, void *, void *, void *, float, float, float)');
  const newGraph = c(base, 'void *ggml_new_graph_custom(void *, size_t, bool)');
  const expand = c(base, 'void ggml_build_forward_expand(void *, void *)');
  const tensorOverhead = c(base, 'size_t ggml_tensor_overhead()')();
  const graphOverhead = c(base, 'size_t ggml_graph_overhead_custom(size_t, bool)')(mostNodes, false);
  const allocate = c(base, 'void *ggml_backend_alloc_ctx_tensors_from_buft(void *, void *)');
  const freeBuffer = c(base, 'void ggml_backend_buffer_free(void *)');
  const set = c(base, 'void ggml_backend_tensor_set(void *, const void *, size_t, size_t)');
  const get = c(base, 'void ggml_backend_tensor_get(void *, _Out_ void *, size_t, size_t)');
  const compute = c(base, 'int ggml_backend_graph_compute(void *, void *)');
  const nameOf = c(base, 'const char *ggml_backend_buft_name(void *)');

  const silent = koffi.register(() => {}, koffi.pointer(koffi.proto('void Log(int, const char *, void *)')));
  c(base, 'void ggml_log_set(void *, void *)')(silent, null);
  c(registry, 'void *ggml_backend_load_all_from_path(const char *)')(folder);
  const device = c(registry, 'void *ggml_backend_dev_by_type(int)')(0); // the CPU
  const backend = c(base, 'void *ggml_backend_dev_init(void *, const char *)')(device, null);
  const own = c(base, 'void *ggml_backend_dev_backend_reg(void *)')(device);
  const address = c(base, 'void *ggml_backend_reg_get_proc_address(void *, const char *)');
  const call = (name, prototype, ...args) => koffi.call(address(own, name), koffi.proto(prototype), ...args);
  const pool = call('ggml_threadpool_new', 'void *ThreadpoolNew(ggml_threadpool_params *)', {
    cpumask: new Array(mostThreads).fill(false),
    n_threads: threads,
    prio: 0,
    poll: spin ? 50 : 0,
    strict_cpu: false,
    paused: false,
  });
  call('ggml_backend_cpu_set_threadpool', 'void SetThreadpool(void *, void *)', backend, pool);
  call('ggml_backend_set_n_threads', 'void SetThreads(void *, int)', backend, threads);

  const plain = c(base, 'void *ggml_backend_dev_buffer_type(void *)')(device);
  const extra = call('ggml_backend_dev_get_extra_bufts', 'void *ExtraBufts(void *)', device);
  const kinds = [plain];
  for (let i = 0; ; i++) {
    const one = koffi.decode(extra, 8 * i, 'void *');
    if (one === null) break;
    kinds.push(one);
  }

  const context = (tensors) =>
    init({ mem_size: tensors * tensorOverhead + graphOverhead + 1024, mem_buffer: null, no_alloc: true });

  return {
    /** Where weights may lie: the first as they come, the others rearranged. */
    kinds: kinds.map((kind) => ({ kind, how: nameOf(kind) })),

    /** y [m, n] = x [m, k] times a weight [n, k] of `type` transposed, kept as `kind` says; x and y are f32. */
    mulMat({ m, n, k }, x, type, stored, kind) {
      const weights = context(1);
      const w = matrix(weights, types[type], k, n);
      const held = [allocate(weights, kind)];
      set(w, stored, 0, stored.byteLength);
      const rest = context(2);
      const input = matrix(rest, types.f32, k, m);
      const y = product(rest, w, input);
      held.push(allocate(rest, plain));
      set(input, x, 0, x.byteLength);
      const graph = newGraph(rest, mostNodes, false);
      expand(graph, y);
      return {
        run() {
          const status = compute(backend, graph);
          if (status !== 0) throw new Error(`peers: ggml_backend_graph_compute returned ${status}, expected 0`);
        },
        result() {
          const values = new Float32Array(m * n);
          get(y, values, 0, values.byteLength);
          return values;
        },
        release() {
          for (const buffer of held) freeBuffer(buffer);
          for (const one of [weights, rest]) free(one);
        },
      };
    },

    /**
     * One query of each request over `lenKv` keys: q and y f32, [batch, heads, dim]; k and v of `type`,
     * [batch, headsKv, lenKv, dim].
     */
    decode({ batch, headsQ, headsKv, lenKv, dim }, q, type, k, v) {
      const all = context(4);
      const query = tensor4(all, types.f32, dim, 1, headsQ, batch);
      const keys = tensor4(all, types[type], dim, lenKv, headsKv, batch);
      const values = tensor4(all, types[type], dim, lenKv, headsKv, batch);
      const y = attention(all, query, keys, values, null, 1 / Math.sqrt(dim), 0, 0);
      const buffer = allocate(all, plain);
      for (const [tensor, data] of [
        [query, q],
        [keys, k],
        [values, v],
      ])
        set(tensor, data, 0, data.byteLength);
      const graph = newGraph(all, mostNodes, false);
      expand(graph, y);
      return {
        run() {
          const status = compute(backend, graph);
          if (status !== 0) throw new Error(`peers: ggml_backend_graph_compute returned ${status}, expected 0`);
        },
        result() {
          const result = new Float32Array(batch * headsQ * dim);
          get(y, result, 0, result.byteLength);
          return result;
        },
        release() {
          freeBuffer(buffer);
          free(all);
        },
      };
    },
  };
}
