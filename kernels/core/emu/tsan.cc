// The race build: kernel sources are compiled with -fsanitize=thread but linked without libtsan, and these are the
// functions the compiler then calls on every plain load and store. They check shared memory, local variables, the ends of device
// buffers, and that addresses are as aligned as the type asks for, which this processor does not mind and a GPU does.
#include <cstring>

#include "runtime.h"

namespace kw::emu {
namespace {

[[gnu::noinline]] void check_local_and_global(const void* p, size_t bytes, bool write, const void* pc) {
  if (gmem_contains(p, bytes)) return;
  const Loc loc{nullptr, 0, pc};
  for (size_t i = 0; i < rt->threads; ++i)
    if (rt->fibers[i]->context.owns(p)) fail("local", "access to a local variable of another thread", loc);
  // Buffers end at a guard page; an access that lands there, or in the padding before it, is out of bounds.
  const auto a = reinterpret_cast<uintptr_t>(p);
  if (gmem_near(a))
    fail("gmem out of bounds",
         std::string(write ? "store" : "load") + " of " + std::to_string(bytes) + " bytes, " + describe_gmem(a), loc);
}

void check(const void* p, size_t bytes, bool write, bool atomic, const void* pc) {
  Fiber* f = rt->running;
  for (const auto& b : rt->blocks) {
    const uintptr_t offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(b->window);
    if (offset >= kWindow) continue;
    const Loc loc{nullptr, 0, pc};
    const auto at = static_cast<uint32_t>(offset);
    check_range(b.get(), at, bytes, write ? "store" : "load", loc);
    if (b.get() != f->block && b->live == 0)
      fail("cluster", "access to the shared memory of a block that has exited", loc);
    const Access access{.write = write, .async = false, .atomic = atomic, .agent = agent_thread(f), .time = f->time};
    check_access(b.get(), at, static_cast<uint32_t>(bytes), access, f->clock, loc);
    return;
  }
  check_local_and_global(p, bytes, write, pc);
}

// The compiler takes these functions for ones that never throw, so a failure ends the thread here.
void plain(const volatile void* where, size_t bytes, bool write, bool atomic, const void* pc, size_t align = 1) {
  const Runtime* r = rt;
  if (!r || !r->running) return;
  const void* p = const_cast<const void*>(where);
  if (r->running->context.owns(p)) return;
  try {
    if (reinterpret_cast<uintptr_t>(p) % align)
      fail("alignment",
           std::string(write ? "store" : "load") + " of " + std::to_string(bytes) +
               " bytes at an address that is not a multiple of " + std::to_string(align),
           {nullptr, 0, pc});
    check(p, bytes, write, atomic, pc);
    return;
  } catch (const Failure& failure) {
    rt->error = failure.what();
  }
  switch_to(nullptr);
}

}  // namespace
}  // namespace kw::emu

using kw::emu::plain;

#define KW_HOOK extern "C" __attribute__((visibility("hidden")))
#define KW_PC __builtin_return_address(0)

KW_HOOK void __tsan_init() {}
KW_HOOK void __tsan_func_entry(void*) {}
KW_HOOK void __tsan_func_exit() {}
KW_HOOK void __tsan_vptr_update(void**, void*) {}
KW_HOOK void __tsan_vptr_read(void**) {}
KW_HOOK void __tsan_read_range(void* p, unsigned long n) { plain(p, n, false, false, KW_PC); }
KW_HOOK void __tsan_write_range(void* p, unsigned long n) { plain(p, n, true, false, KW_PC); }
KW_HOOK void __tsan_atomic_thread_fence(int) {}
KW_HOOK void __tsan_atomic_signal_fence(int) {}

// ALIGN: the least alignment of a type of N bytes for which the compiler calls these; below it, the unaligned ones.
#define KW_PLAIN(N, ALIGN)                                                                      \
  KW_HOOK void __tsan_read##N(void* p) { plain(p, N, false, false, KW_PC, ALIGN); }             \
  KW_HOOK void __tsan_write##N(void* p) { plain(p, N, true, false, KW_PC, ALIGN); }             \
  KW_HOOK void __tsan_unaligned_read##N(void* p) { plain(p, N, false, false, KW_PC); }          \
  KW_HOOK void __tsan_unaligned_write##N(void* p) { plain(p, N, true, false, KW_PC); }          \
  KW_HOOK void __tsan_volatile_read##N(void* p) { plain(p, N, false, false, KW_PC, ALIGN); }    \
  KW_HOOK void __tsan_volatile_write##N(void* p) { plain(p, N, true, false, KW_PC, ALIGN); }    \
  KW_HOOK void __tsan_unaligned_volatile_read##N(void* p) { plain(p, N, false, false, KW_PC); } \
  KW_HOOK void __tsan_unaligned_volatile_write##N(void* p) { plain(p, N, true, false, KW_PC); }
KW_PLAIN(1, 1)
KW_PLAIN(2, 2)
KW_PLAIN(4, 4)
KW_PLAIN(8, 8)
KW_PLAIN(16, 8)

#define KW_FETCH(BITS, T, OP)                                           \
  KW_HOOK T __tsan_atomic##BITS##_fetch_##OP(volatile T* p, T v, int) { \
    plain(p, sizeof(T), true, true, KW_PC);                             \
    return __atomic_fetch_##OP(p, v, __ATOMIC_SEQ_CST);                 \
  }
#define KW_EXCHANGE(BITS, T, STRENGTH, WEAK)                                                                 \
  KW_HOOK int __tsan_atomic##BITS##_compare_exchange_##STRENGTH(volatile T* p, T* expected, T v, int, int) { \
    plain(p, sizeof(T), true, true, KW_PC);                                                                  \
    return __atomic_compare_exchange_n(p, expected, v, WEAK, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);            \
  }
#define KW_ATOMIC(BITS, T)                                                                  \
  KW_HOOK T __tsan_atomic##BITS##_load(const volatile T* p, int) {                          \
    plain(p, sizeof(T), false, true, KW_PC);                                                \
    return __atomic_load_n(p, __ATOMIC_SEQ_CST);                                            \
  }                                                                                         \
  KW_HOOK void __tsan_atomic##BITS##_store(volatile T* p, T v, int) {                       \
    plain(p, sizeof(T), true, true, KW_PC);                                                 \
    __atomic_store_n(p, v, __ATOMIC_SEQ_CST);                                               \
  }                                                                                         \
  KW_HOOK T __tsan_atomic##BITS##_exchange(volatile T* p, T v, int) {                       \
    plain(p, sizeof(T), true, true, KW_PC);                                                 \
    return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST);                                     \
  }                                                                                         \
  KW_HOOK T __tsan_atomic##BITS##_compare_exchange_val(volatile T* p, T e, T v, int, int) { \
    plain(p, sizeof(T), true, true, KW_PC);                                                 \
    __atomic_compare_exchange_n(p, &e, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);       \
    return e;                                                                               \
  }                                                                                         \
  KW_EXCHANGE(BITS, T, strong, false)                                                       \
  KW_EXCHANGE(BITS, T, weak, true)                                                          \
  KW_FETCH(BITS, T, add)                                                                    \
  KW_FETCH(BITS, T, sub)                                                                    \
  KW_FETCH(BITS, T, and)                                                                    \
  KW_FETCH(BITS, T, or)                                                                     \
  KW_FETCH(BITS, T, xor)
KW_ATOMIC(8, unsigned char)
KW_ATOMIC(16, unsigned short)
KW_ATOMIC(32, unsigned int)
KW_ATOMIC(64, unsigned long)
