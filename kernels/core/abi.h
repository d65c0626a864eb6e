/* The C interface between the addon and a library of kernels (libkernwatt_cuda.so, libkernwatt_emu.so).
 *
 * Plain data only: every struct begins with its own size, a status is an int32_t (kw::Code; 0 is OK), and the message
 * of the last failure on the calling thread comes from last_error(). No exception and no C++ library type crosses.
 * The CPU and reference backends inside the addon fill the same kw_op, so native/ handles every backend alike. */
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KW_ABI 3

typedef struct kw_plan kw_plan; /* opaque, owned by the backend that made it */

typedef struct kw_device_info {
  uint64_t size;
  char name[128];
  char uuid[48];                           /* empty when unknown */
  char pci[32];                            /* domain:bus:device.function, empty when unknown */
  int32_t cc_major, cc_minor;              /* compute capability; 0.0 on the CPU */
  int32_t sm_count;                        /* streaming multiprocessors; worker threads on the CPU */
  int32_t emulated;                        /* 1: results are emulated and must never be timed */
  uint64_t total_bytes;                    /* memory of the device */
  uint64_t smem_bytes;                     /* shared memory a block may opt in to */
  uint64_t llc_bytes;                      /* last-level cache */
  int32_t driver_version, runtime_version; /* as CUDA encodes them, 0 when unknown */
  int32_t clock_khz, memory_clock_khz, memory_bus_bits;
  int32_t isa; /* CPU only: kw::cpu::Isa, the strongest instruction set operators may use; 0 elsewhere */
} kw_device_info;

/* One operator on one backend. args points at the operator's <Op>Args struct (kernels/<op>/<op>.h). */
typedef struct kw_op {
  uint64_t size;
  const char* name;
  uint64_t args_size;
  int32_t (*supports)(const kw_device_info*, const void* args); /* OK, or UNSUPPORTED with the reason in last_error */
  int32_t (*plan_create)(const kw_device_info*, const void* args, kw_plan** plan);
  uint64_t (*plan_workspace)(const kw_plan*); /* bytes, fixed for the plan's life */
  int32_t (*plan_rebind)(kw_plan*, const void* args,
                         void* workspace); /* once after create, then at will: pointers, and lengths within capacity */
  int32_t (*plan_enqueue)(
      kw_plan*, void* stream); /* stream: cudaStream_t; kw::ThreadPool* on the CPU, where it runs before returning */
  const char* (*plan_explain)(kw_plan*); /* JSON object: variant, tile, reason ...; lives as long as the plan */
  void (*plan_destroy)(kw_plan*);
  /* The format (kernels/core/packed.h) in which an operand, a kw::TensorView of its shape and dtype, is fastest; 0: plain.
     It is the only one but plain that the operator takes. Null: plain alone. */
  uint64_t (*format)(const kw_device_info*, const char* operand, const void* view);
  /* The ways in which the arguments can be computed, by stable names, each followed by a newline: first the one that
     plan_create takes, then by falling hope. Valid until the thread's next call. Null: there is one way alone. */
  int32_t (*configurations)(const kw_device_info*, const void* args, const char** names);
  /* As plan_create, in one of those ways; bound to another problem later, the plan may choose again. Null with the former. */
  int32_t (*plan_create_as)(const kw_device_info*, const void* args, const char* configuration, kw_plan** plan);
} kw_op;

typedef enum { KW_TO_DEVICE = 1, KW_TO_HOST = 2, KW_ON_DEVICE = 3 } kw_copy_kind;

/* Everything a library offers. Device numbers count from 0. Functions that queue take a stream of that device. */
typedef struct kw_table {
  uint64_t size;
  int32_t abi;
  const char* build; /* compiler, architectures, commit: one line */
  const char* (*last_error)(void);
  int32_t (*device_count)(int32_t* count); /* CUDA status text in last_error when there is no driver or device */
  int32_t (*device_info)(int32_t device, kw_device_info* info);
  int32_t (*memory_info)(int32_t device, uint64_t* free_bytes, uint64_t* total_bytes);
  int32_t (*alloc)(int32_t device, uint64_t bytes, void** ptr);
  int32_t (*free)(int32_t device, void* ptr);
  int32_t (*host_alloc)(uint64_t bytes, void** ptr); /* page-locked where that exists */
  int32_t (*host_free)(void* ptr);
  int32_t (*stream_create)(int32_t device, void** stream);
  int32_t (*stream_destroy)(void* stream);
  int32_t (*copy)(int32_t device, void* dst, const void* src, uint64_t bytes, int32_t kind, void* stream);
  int32_t (*event_create)(int32_t device, int32_t timing, void** event); /* waits block without spinning */
  int32_t (*event_destroy)(void* event);
  int32_t (*event_record)(void* event, void* stream);
  int32_t (*event_wait)(void* event); /* blocks the calling thread; returns the stream's error if it has one */
  int32_t (*event_seconds)(void* start, void* end, double* seconds);
  int32_t (*graph_begin)(void* stream);
  int32_t (*graph_end)(void* stream, void** graph);
  int32_t (*graph_launch)(void* graph, void* stream);
  int32_t (*graph_destroy)(void* graph);
  uint64_t op_count;
  const kw_op* const* ops;
  /* 1: from now on note which kernels the calling thread launches. 0: stop, and give their names as the compiler mangled
     them, sorted, each followed by a newline; valid until the thread's next call. The emulator knows none and gives "". */
  const char* (*trace)(int32_t on);
} kw_table;

/* Exported by each library. Null when the library cannot speak this abi. */
typedef const kw_table* (*kw_table_fn)(int32_t abi);
#define KW_CUDA_TABLE "kw_cuda_table"

#ifdef __cplusplus
}
#endif
