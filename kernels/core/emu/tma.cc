// Bulk copies: TMA loads and stores of boxes of up to four dimensions, plain bulk loads.
#include <algorithm>
#include <cstring>

#include "runtime.h"

namespace kw::emu {
namespace {

constexpr uint64_t kMagic = 0x70616d726f736e74;  // an initialised map

// 16-byte chunks within a pattern of 8 rows of 128 bytes: address bits 4.. change with bits 7.. (PTX ISA, "Swizzling Modes").
uint32_t swizzled(uint32_t addr, uint32_t mode) {
  const uint32_t bits = (1u << mode) - 1;  // mode 0..3: none, 32, 64, 128 bytes
  return addr ^ (addr >> 7 & bits) << 4;
}

uint32_t box_bytes(const TensorMap& m) { return m.box[0] * m.box[1] * m.box[2] * m.box[3] * m.element; }

void check_map(const TensorMap* map, uint32_t rank, uint32_t offset, const char* what, Loc loc) {
  if (map->magic != kMagic) fail("TMA", "the tensor map is not initialised", loc);
  if (map->rank != rank)
    fail("TMA",
         "the tensor map has " + std::to_string(map->rank) + " dimensions, expected " + std::to_string(rank) +
             " for this instruction",
         loc);
  const uint32_t align = map->swizzle ? 128u << map->swizzle : 128u;
  if (offset % align)
    fail("alignment",
         std::string(what) + " is at shared address " + std::to_string(offset) + ", expected a multiple of " +
             std::to_string(align) + " for this swizzle",
         loc);
  uint64_t bytes = map->extent[0] * map->element;
  for (int i = 0; i < 3; ++i) bytes += (map->extent[i + 1] - 1) * map->pitch[i];
  check_gmem(map->base, bytes, "the tensor of the map", loc);
}

// Calls f(shared offset, global address, bytes) for every run of bytes of the box that lies in the tensor.
template <class F>
void each_run(const TensorMap& m, uint32_t offset, const BoxAt& box, F&& f) {
  const uint32_t row = m.box[0] * m.element, rows = m.box[1] * m.box[2] * m.box[3];
  const int64_t width = static_cast<int64_t>(m.extent[0] * m.element);
  for (uint32_t r = 0; r < rows; ++r) {
    const uint32_t place[3] = {r % m.box[1], r / m.box[1] % m.box[2], r / m.box[1] / m.box[2]};
    int64_t from = 0;  // of the row, in bytes
    bool inside = true;
    for (int i = 0; i < 3; ++i) {
      const int64_t at = int64_t{box.at[i + 1]} + place[i];
      inside &= at >= 0 && at < static_cast<int64_t>(m.extent[i + 1]);
      from += at * static_cast<int64_t>(m.pitch[i]);
    }
    if (!inside) continue;
    char* line = m.base + from;
    for (uint32_t chunk = 0; chunk < row; chunk += 16) {
      const uint32_t at = swizzled(offset + r * row + chunk, m.swizzle);
      const int64_t gx = int64_t{box.at[0]} * m.element + chunk;
      const int64_t first = std::max<int64_t>(0, -gx), end = std::min<int64_t>(16, width - gx);
      if (first < end) f(at + static_cast<uint32_t>(first), line + gx + first, static_cast<size_t>(end - first));
    }
  }
}

void run_store(const Fiber* f, const StoreOp& o) {
  const char* window = f->block->window;
  each_run(o.map, o.src, o.at,
           [&](uint32_t at, char* global, size_t bytes) { std::memcpy(global, window + at, bytes); });
}

}  // namespace

TensorMap tensor_map(uint32_t rank, uint32_t element, const void* base, const uint64_t (&extents)[4],
                     const uint64_t (&pitches)[3], const uint32_t (&box)[4], uint32_t swizzle) {
  TensorMap map{.magic = kMagic,
                .base = static_cast<char*>(const_cast<void*>(base)),
                .extent = {},
                .pitch = {},
                .box = {},
                .rank = rank,
                .element = element,
                .swizzle = swizzle,
                .unused = {}};
  std::copy_n(extents, 4, map.extent);
  std::copy_n(pitches, 3, map.pitch);
  std::copy_n(box, 4, map.box);
  return map;
}

void run_tma_load(const DeferredOp& o) {
  char* window = o.block->window;
  std::memset(window + o.dst, 0, box_bytes(o.map));  // elements outside the tensor are zero
  each_run(o.map, o.dst, o.at,
           [&](uint32_t at, const char* global, size_t bytes) { std::memcpy(window + at, global, bytes); });
  mbar_complete_tx(o.block, o.bar, box_bytes(o.map), o.loc);
}

void defer(DeferredOp op, uint32_t bytes) {
  Block* b = op.block;
  check_range(b, op.dst, bytes, "a bulk load's destination", op.loc);
  const Mbarrier& m = mbar_for_use(b, op.bar, op.issuer, op.loc);
  if (!m.fenced)
    fail("proxy", "a bulk load signals an mbarrier whose init was not followed by fence_mbar_init or fence_proxy_async",
         op.loc);
  check_access(b, op.dst, bytes, {.write = true, .async = true, .agent = m.agent, .time = m.phase}, op.issuer->clock,
               op.loc);
  poison(b, op.dst, bytes);
  rt->deferred.push_back(std::move(op));
  if (now()) run_deferred(rt->deferred.size() - 1);
}

void tma_load(uint32_t dst, const TensorMap* map, uint32_t bar, BoxAt at, uint32_t cta_mask, Loc loc) {
  ++rt->stats.tma;
  DeferredOp op{.kind = DeferredOp::tma, .issuer = rt->running, .block = nullptr, .map = *map, .at = at, .loc = loc};
  const uint32_t bytes = box_bytes(*map);
  op.block = resolve(dst, &op.dst, 1, loc);
  const Block* bar_block = resolve(bar, &op.bar, 8, loc);
  check_map(map, at.rank, op.dst, "the TMA destination", loc);
  if (!cta_mask) {
    if (op.block != bar_block) fail("TMA", "destination and mbarrier are in different blocks", loc);
    return defer(std::move(op), bytes);
  }
  const auto& blocks = rt->running->block->cluster->blocks;
  for (size_t rank = 0; rank < 16; ++rank) {
    if (!(cta_mask >> rank & 1)) continue;
    if (rank >= blocks.size()) fail("TMA", "the multicast mask names a block outside the cluster", loc);
    op.block = blocks[rank];
    defer(op, bytes);
  }
}

void bulk_load(uint32_t dst, const void* src, uint32_t bytes, uint32_t bar, Loc loc) {
  DeferredOp op{.kind = DeferredOp::bulk, .issuer = rt->running, .block = nullptr};
  op.src = static_cast<const char*>(src), op.bytes = bytes, op.loc = loc;
  op.block = resolve(dst, &op.dst, 1, loc);
  resolve(bar, &op.bar, 8, loc);
  if (op.dst % 16 || reinterpret_cast<uintptr_t>(src) % 16 || bytes % 16 || !bytes)
    fail("alignment", "cp.async.bulk: addresses and size must be multiples of 16, and the size not 0", loc);
  check_gmem(src, bytes, "cp.async.bulk", loc);
  defer(std::move(op), bytes);
}

void tma_store(const TensorMap* map, uint32_t src, BoxAt at, Loc loc) {
  ++rt->stats.tma;
  Fiber* f = rt->running;
  StoreOp op{f->stores.tick, *map, 0, at};
  Block* b = resolve(src, &op.src, 1, loc);
  if (b != f->block) fail("TMA", "a store reads the shared memory of another block", loc);
  check_map(map, at.rank, op.src, "the TMA source", loc);
  check_range(b, op.src, box_bytes(*map), "a bulk store's source", loc);
  check_access(b, op.src, box_bytes(*map), {.async = true, .agent = agent_store(f), .time = f->stores.tick}, f->clock,
               loc);
  if (now()) return run_store(f, op);
  f->stores.pending.push_back(op);
}

void bulk_commit(Loc) { rt->running->stores.commit(); }

// Both forms of the wait: a store reads and writes at the same moment here.
void bulk_wait(int pending, Loc) {
  Fiber* f = rt->running;
  const uint32_t covered = f->stores.covered(static_cast<size_t>(pending));
  f->stores.retire(covered, [&](const StoreOp& o) { run_store(f, o); });
  if (rt->opt.race) f->clock.seen.raise(agent_store(f), covered);
}

}  // namespace kw::emu
