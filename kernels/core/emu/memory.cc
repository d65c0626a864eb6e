// Shared memory: an address space of its own per block, so that swizzles and descriptors act on real address bits.
#include <sys/mman.h>

#include <cstring>
#include <new>

#include "runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define KW_ASAN_OPEN(p, n) __asan_unpoison_memory_region(p, n)
#define KW_ASAN_CLOSE(p, n) __asan_poison_memory_region(p, n)
#else
#define KW_ASAN_OPEN(p, n) static_cast<void>(0)
#define KW_ASAN_CLOSE(p, n) static_cast<void>(0)
#endif

namespace kw::emu {
namespace {

constexpr uint32_t kRedZone = 32;      // between static objects, and after the dynamic part
constexpr size_t kWindowAlign = 1024;  // of the host address, like that of the shared address
constexpr uint32_t round_up(uint32_t n, uint32_t to) { return (n + to - 1) / to * to; }

Block* peer(uint32_t rank, const char* what, Loc loc) {
  const auto& blocks = rt->running->block->cluster->blocks;
  if (rank >= blocks.size())
    fail("cluster",
         std::string(what) + ": rank is " + std::to_string(rank) + ", expected below " + std::to_string(blocks.size()),
         loc);
  return blocks[rank];
}

}  // namespace

char* map_window() {
  void* p = mmap(nullptr, kWindow + kWindowAlign, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) throw std::bad_alloc();
  return static_cast<char*>(p);  // pages are 4096-aligned
}

void unmap_window(char* window) {
  KW_ASAN_OPEN(window, kWindow);
  munmap(window, kWindow + kWindowAlign);
}

void open_block_memory(Block* b, size_t dynamic_bytes) {
  b->dynamic_end = kDynamicBase + static_cast<uint32_t>(dynamic_bytes);
  b->static_begin = b->static_end = round_up(b->dynamic_end + kRedZone, 128);
  KW_ASAN_OPEN(b->window, kWindow);
  if (rt->opt.poison) std::memset(b->window + kDynamicBase, 0xff, kWindow - kDynamicBase);
  KW_ASAN_CLOSE(b->window, kDynamicBase);
  KW_ASAN_CLOSE(b->window + round_up(b->dynamic_end, 8), kWindow - round_up(b->dynamic_end, 8));
  if (rt->opt.race) b->shadow.open(b->static_begin);
}

void* dyn_smem() { return rt->running->block->window + kDynamicBase; }

void* static_smem(const void* tag, size_t size, size_t align, const char* name, Loc loc) {
  Block* b = rt->running->block;
  auto found = b->statics.find(tag);
  if (found == b->statics.end()) {
    const auto bytes = static_cast<uint32_t>(size);
    b->static_bytes = round_up(b->static_bytes, static_cast<uint32_t>(align)) + bytes;
    const uint32_t dynamic = b->dynamic_end - kDynamicBase, limit = rt->opt.profile.smem_max;
    if (b->static_bytes > kStaticMax || b->static_bytes + dynamic > limit)
      fail("smem",
           std::string("with ") + name + " the block has " + std::to_string(b->static_bytes) + " static and " +
               std::to_string(dynamic) + " dynamic bytes, expected at most " + std::to_string(kStaticMax) +
               " static and " + std::to_string(limit) + " together on " + rt->opt.profile.name,
           loc);
    const uint32_t offset = round_up(b->static_end + kRedZone, static_cast<uint32_t>(align));
    b->static_end = offset + bytes;
    if (b->static_end > kWindow) fail("smem", "too many static objects for the emulator's window", loc);
    if (rt->opt.race) b->shadow.grow(b->static_end);
    KW_ASAN_OPEN(b->window + offset, size);
    found = b->statics.emplace(tag, StaticObject{offset, bytes, name}).first;
  }
  return b->window + found->second.offset;
}

uint32_t smem_u32(const void* p, Loc loc) {
  const Block* b = rt->running->block;
  const uintptr_t offset = reinterpret_cast<uintptr_t>(p) - reinterpret_cast<uintptr_t>(b->window);
  if (offset > kWindow) fail("smem", "smem_u32: the pointer is not in this block's shared memory", loc);
  return static_cast<uint32_t>(offset);
}

void check_range(const Block* b, uint32_t offset, size_t size, const char* what, Loc loc) {
  const bool dynamic = offset >= kDynamicBase && offset + size <= b->dynamic_end;
  if (dynamic || (offset >= b->static_begin && offset + size <= b->static_end)) return;
  fail("smem out of bounds",
       std::string(what) + " of " + std::to_string(size) + " bytes at " + describe(b, offset) + ", the block has " +
           std::to_string(b->dynamic_end - kDynamicBase) + " dynamic bytes",
       loc);
}

Block* resolve(uint32_t addr, uint32_t* offset, size_t size, Loc loc) {
  Block* b = rt->running->block;
  *offset = addr & 0xffffff;
  if (const uint32_t rank_plus_1 = addr >> 24) {
    b = peer(rank_plus_1 - 1, "shared address", loc);
    if (b->live == 0) fail("smem", "access to the shared memory of a block that has exited", loc);
  }
  check_range(b, *offset, size, "shared access", loc);
  return b;
}

void poison(Block* b, uint32_t offset, size_t size) {
  if (rt->opt.poison) std::memset(b->window + offset, 0xff, size);
}

uint32_t mapa(uint32_t addr, uint32_t rank, Loc loc) {
  peer(rank, "mapa", loc);
  return (addr & 0xffffff) | (rank + 1) << 24;
}

void* map_shared_rank(void* p, uint32_t rank, Loc loc) {
  return peer(rank, "map_shared_rank", loc)->window + smem_u32(p, loc);
}

}  // namespace kw::emu
