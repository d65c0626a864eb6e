// wgmma: every warp computes the 16 rows it owns, so a warpgroup's warps need not meet, as on the hardware. Results appear
// at wait_group; until then the accumulator registers hold NaN. A registers and shared operands are read on completion.
#include <algorithm>
#include <cstring>

#include "elements.h"
#include "runtime.h"

namespace kw::emu {
namespace {

// PTX ISA "Matrix Descriptor Format": the offsets in units of 16 bytes.
struct Descriptor {
  uint32_t start, lbo, sbo, base_offset;
  uint32_t units;  // 16-byte units per row of the swizzle pattern: 8, 4, 2, or 1 without swizzle
  explicit Descriptor(uint64_t d)
      : start(static_cast<uint32_t>(d & 0x3fff) << 4),
        lbo(static_cast<uint32_t>(d >> 16 & 0x3fff) << 4),
        sbo(static_cast<uint32_t>(d >> 32 & 0x3fff) << 4),
        base_offset(static_cast<uint32_t>(d >> 49 & 7)),
        units(d >> 62 ? 16u >> (d >> 62) : 1u) {}
  bool swizzled() const { return units > 1; }

  // Address of the 16 bytes that hold (mn, k .. k+7) if K is contiguous, (mn .. mn+7, k) otherwise.
  uint32_t chunk(bool mn_major, int mn, int k) const {
    const auto m = static_cast<uint32_t>(mn), kk = static_cast<uint32_t>(k);
    uint32_t a = start;
    if (!mn_major)
      a += m / 8 * sbo + m % 8 * units * 16 + (swizzled() ? kk / 8 * 16 : kk / 8 * lbo);
    else if (swizzled())
      a += m / 8 % units * 16 + m / 8 / units * lbo + kk % 8 * units * 16 + kk / 8 * sbo;
    else
      a += m / 8 * sbo + kk % 8 * 16 + kk / 8 * lbo;
    return a ^ (a >> 7 & (units - 1)) << 4;
  }
};

// Calls f(address, mn - first, k) for every 16-byte chunk of rows (or columns) first .. first + count - 1.
template <class F>
void each_chunk(const Descriptor& d, bool mn_major, int first, int count, F&& f) {
  if (!mn_major) {
    for (int i = 0; i < count; ++i)
      for (int k = 0; k < 16; k += 8) f(d.chunk(false, first + i, k), i, k);
  } else {
    for (int i = 0; i < count; i += 8)
      for (int k = 0; k < 16; ++k) f(d.chunk(true, first + i, k), i, k);
  }
}

int first_row(const Warp* w) { return static_cast<int>(w->index % 4) * 16; }
// Register i of lane l holds this row and column of the warp's 16 rows.
constexpr int row(int lane, int i) { return lane / 4 + (i >> 1 & 1) * 8; }
constexpr int column(int lane, int i) { return (i >> 2) * 8 + lane % 4 * 2 + (i & 1); }

void execute(const Warp* w, const WgmmaOp& o) {
  static thread_local float a[16 * 16], b[16 * 256];
  const Block* block = w->block;
  const auto load = [&](uint64_t descriptor, bool mn_major, int first, int count, auto&& put) {
    each_chunk(Descriptor(descriptor), mn_major, first, count, [&](uint32_t addr, int i, int k) {
      check_range(block, addr, 16, "wgmma operand", o.loc);
      uint16_t e[8];
      std::memcpy(e, block->window + addr, 16);
      for (int j = 0; j < 8; ++j) put(mn_major ? i + j : i, mn_major ? k : k + j, element(e[j], o.f16));
    });
  };
  if (o.a_in_registers) {
    for (int l = 0; l < 32; ++l)
      for (int i = 0; i < 4; ++i)
        load_pair(&a[(l / 4 + (i & 1) * 8) * 16 + l % 4 * 2 + (i >> 1) * 8], 1, o.a[l][i], o.f16);
  } else {
    load(o.desc_a, o.trans_a, first_row(w), 16, [&](int m, int k, float v) { a[m * 16 + k] = v; });
  }
  load(o.desc_b, o.trans_b, 0, o.n, [&](int n, int k, float v) { b[k * o.n + n] = v; });
  float* d = o.acc->value.data();
  if (!o.scale_d) std::fill(d, d + 16 * o.n, 0.f);
  multiply_add(d, a, b, o.n);
  --o.acc->in_flight;
}

uint64_t hash_registers(const Accumulator& acc) {
  uint64_t h = 1469598103934665603ULL;
  for (const float* d : acc.d)
    for (int i = 0; i < acc.n / 2; ++i) {
      uint32_t bits;
      std::memcpy(&bits, &d[i], 4);
      h = (h ^ bits) * 1099511628211ULL;
    }
  return h;
}

void write_back(Warp* w, Accumulator* acc) {
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < acc->n / 2; ++i)
      acc->d[l][i] = acc->value[static_cast<size_t>(row(l, i) * acc->n + column(l, i))];
  w->written_back[acc->d[0]] = hash_registers(*acc);
  std::erase_if(w->accumulators, [&](const auto& a) { return a.get() == acc; });
}

struct Args {
  float* d;
  int n;
  const uint32_t* a;
  uint64_t desc_a, desc_b;
  bool scale_d, trans_a, trans_b, f16;
};

void check_operand(uint64_t descriptor, bool mn_major, int extent, Loc loc) {
  const Descriptor d(descriptor);
  if (d.base_offset) fail("wgmma", "a matrix base offset other than 0 is not modelled", loc);
  if (d.sbo == 0 && (mn_major ? d.swizzled() : extent > 8))
    fail("wgmma", "the descriptor has no stride byte offset", loc);
}

// The accumulator registers of this instruction: already in flight, or taken up now.
Accumulator* accumulator_for(Warp* w, void* const* lanes, Loc loc) {
  const auto& x = *static_cast<const Args*>(lanes[0]);
  for (const auto& acc : w->accumulators)
    if (acc->d[0] == x.d) {
      if (acc->n != x.n) fail("wgmma", "an accumulator in flight is used with another shape", loc);
      return acc.get();
    }
  auto acc = std::make_unique<Accumulator>();
  acc->n = x.n;
  acc->value.resize(static_cast<size_t>(16 * x.n));
  for (int l = 0; l < 32; ++l) acc->d[l] = static_cast<const Args*>(lanes[l])->d;
  // Registers that still hold what wgmma left there were not written since.
  const auto left = w->written_back.find(x.d);
  const bool untouched = !x.a && left != w->written_back.end() && left->second == hash_registers(*acc);
  if (!w->fenced && !untouched)
    fail("wgmma", "wgmma.fence missing: registers were written or first used since the last one", loc);
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < x.n / 2; ++i) acc->value[static_cast<size_t>(row(l, i) * x.n + column(l, i))] = acc->d[l][i];
  return w->accumulators.emplace_back(std::move(acc)).get();
}

void check_reads(Warp* w, const WgmmaOp& o) {
  if (!rt->opt.race) return;
  Clock clock;
  for (const Fiber* f : w->lane) clock.join(f->clock);
  const Access access{.async = true, .agent = agent_wgmma(w), .time = o.tick};
  const auto check = [&](uint64_t descriptor, bool mn_major, int first, int count) {
    each_chunk(Descriptor(descriptor), mn_major, first, count, [&](uint32_t addr, int, int) {
      check_range(w->block, addr, 16, "wgmma operand", o.loc);
      check_access(w->block, addr, 16, access, clock, o.loc);
    });
  };
  if (!o.a_in_registers) check(o.desc_a, o.trans_a, first_row(w), 16);
  check(o.desc_b, o.trans_b, 0, o.n);
}

void issue(void* const* lanes, uint32_t, Loc loc) {
  const auto& x = *static_cast<const Args*>(lanes[0]);
  Warp* w = rt->running->warp;
  ++rt->stats.wgmma;
  if (w->index / 4 * 4 + 4 > w->block->warps.size()) fail("wgmma", "the warp is not part of a full warpgroup", loc);
  for (int l = 1; l < 32; ++l) {
    const auto& y = *static_cast<const Args*>(lanes[l]);
    if (y.desc_a != x.desc_a || y.desc_b != x.desc_b || y.scale_d != x.scale_d)
      fail("wgmma", "descriptors or scale_d differ between the lanes of a warp", loc);
  }
  if (!x.a) check_operand(x.desc_a, x.trans_a, 64, loc);
  check_operand(x.desc_b, x.trans_b, x.n, loc);
  w->trace.push_back(x.desc_b * 31 + static_cast<uint64_t>(x.n) * 7 + (x.a ? 1 : x.desc_a) + x.scale_d);

  WgmmaOp op{.tick = w->wgmma.tick,
             .n = x.n,
             .desc_a = x.desc_a,
             .desc_b = x.desc_b,
             .a = {},
             .a_in_registers = x.a != nullptr,
             .scale_d = x.scale_d,
             .trans_a = x.trans_a,
             .trans_b = x.trans_b,
             .f16 = x.f16,
             .acc = accumulator_for(w, lanes, loc),
             .loc = loc};
  for (int l = 0; l < 32; ++l) op.a[l] = static_cast<const Args*>(lanes[l])->a;
  ++op.acc->in_flight;
  check_reads(w, op);
  // Earlier ones first: with none queued, this one may already be done, and its result visible or not.
  if (w->wgmma.pending.empty() && now()) {
    execute(w, op);
    if (op.acc->in_flight == 0 && now()) return write_back(w, op.acc);
  } else {
    w->wgmma.pending.push_back(op);
  }
  if (rt->opt.poison)
    for (float* d : op.acc->d) std::memset(static_cast<void*>(d), 0xff, sizeof(float) * static_cast<size_t>(x.n) / 2);
}

}  // namespace

// Products of 16-bit elements are exact in f32, so a fused multiply-add would give the same sum.
void multiply_add(float* d, const float* a, const float* b, int n) {
  for (int m = 0; m < 16; ++m, d += n)
    for (int k = 0; k < 16; ++k) {
      const float factor = a[m * 16 + k];
      const float* row_b = b + k * n;
      for (int i = 0; i < n; ++i) d[i] += factor * row_b[i];
    }
}

void wgmma(float* d, int n, const uint32_t* a_regs, uint64_t desc_a, uint64_t desc_b, bool scale_d, bool trans_a,
           bool trans_b, bool f16, Loc loc) {
  if (n % 8 || n < 8 || n > 256)
    fail("wgmma", "N is " + std::to_string(n) + ", expected a multiple of 8 up to 256", loc);
  Args args{d, n, a_regs, desc_a, desc_b, scale_d, trans_a, trans_b, f16};
  meet("wgmma", kFullWarp, true, &args, issue, loc);
}

void wgmma_fence(Loc loc) {
  meet(
      "wgmma.fence", kFullWarp, true, nullptr, [](void* const*, uint32_t, Loc) { rt->running->warp->fenced = true; },
      loc);
}

void wgmma_commit(Loc loc) {
  meet(
      "wgmma.commit_group", kFullWarp, true, nullptr,
      [](void* const*, uint32_t, Loc) { rt->running->warp->wgmma.commit(); }, loc);
}

void wgmma_wait(int pending, Loc loc) {
  const auto run = [](void* const* lanes, uint32_t, Loc) {
    Warp* w = rt->running->warp;
    const uint32_t covered = w->wgmma.covered(static_cast<size_t>(*static_cast<const int*>(lanes[0])));
    w->wgmma.retire(covered, [&](const WgmmaOp& o) { execute(w, o); });
    for (size_t i = w->accumulators.size(); i-- > 0;)
      if (w->accumulators[i]->in_flight == 0) write_back(w, w->accumulators[i].get());
    w->fenced = false;
    if (rt->opt.race)
      for (Fiber* f : w->lane) f->clock.seen.raise(agent_wgmma(w), covered);
  };
  meet("wgmma.wait_group", kFullWarp, true, &pending, run, loc);
}

}  // namespace kw::emu
