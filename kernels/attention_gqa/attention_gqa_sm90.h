// What is known of attention_gqa's kernels for compute capability 9.0 (attention_gqa_sm90.cu) without CUDA: their configurations,
// what they decline, and which of them runs a problem, a pure function of the arguments and the device's limits, so that tests
// enumerate what it can return (test/cpu/attention_gqa_sm90_choose_test.cc).
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "../core/abi.h"
#include "attention_gqa.h"

namespace kw {
struct StreamStatus;
}

namespace kw::attention_gqa_cuda {

struct Sm90Configuration {
  const char* name;
  int dim, dim_v;  // compiled for; shorter heads are padded with zeros
  int consumers;   // warpgroups of 64 rows
  int keys;        // of a tile
  int stages;      // of keys, and of values
  // The weights of a tile's keys go to wgmma through shared memory instead of registers: the twin that proves the other, because
  // ptxas before 13.3 may overwrite registers that wgmma still reads. By name alone.
  bool shared_weights;
  bool whole;  // longer tiles of keys, chosen where neither causality nor a window cuts them
  // A warpgroup waits for its products before it goes on: what is gained by overlapping them with its softmax. By name alone.
  bool simple;

  constexpr bool by_name() const { return shared_weights || simple; }
  constexpr int rows() const { return 64 * consumers; }
  constexpr int threads() const { return 128 * (consumers + 1); }
  // Per thread, of the loading and of the multiplying warpgroups (setmaxnreg).
  constexpr int loading_registers() const { return consumers == 2 ? 40 : 32; }
  constexpr int multiplying_registers() const { return consumers == 2 ? 232 : 160; }
  static constexpr int kFrames = 512;  // bytes: where two tiles lie, and mbarriers
  constexpr int smem() const {
    const int weights = shared_weights ? rows() * ((keys + 63) / 64) * 128 : 0;
    return rows() * dim * 2 + stages * keys * (dim + dim_v) * 2 + weights + kFrames;
  }
};

inline constexpr Sm90Configuration kSm90Configurations[] = {
    {"sm90_attn_64", 64, 64, 3, 128, 2, false, false, false},
    {"sm90_attn_128", 128, 128, 2, 128, 2, false, false, false},
    {"sm90_attn_128_full", 128, 128, 2, 176, 2, false, true, false},
    {"sm90_attn_192_128", 192, 128, 2, 128, 2, false, false, false},
    {"sm90_attn_256", 256, 256, 2, 80, 2, false, false, false},
    {"sm90_attn_64_ss", 64, 64, 3, 128, 2, true, false, false},
    {"sm90_attn_128_ss", 128, 128, 2, 128, 2, true, false, false},
    {"sm90_attn_128_full_ss", 128, 128, 2, 176, 1, true, true, false},
    {"sm90_attn_192_128_ss", 192, 128, 2, 128, 1, true, false, false},
    {"sm90_attn_256_ss", 256, 256, 2, 80, 1, true, false, false},
    {"sm90_attn_64_simple", 64, 64, 3, 128, 2, false, false, true},
    {"sm90_attn_128_simple", 128, 128, 2, 128, 2, false, false, true},
    {"sm90_attn_192_128_simple", 192, 128, 2, 128, 2, false, false, true},
    {"sm90_attn_256_simple", 256, 256, 2, 80, 2, false, false, true},
};

// Why TMA cannot walk the rows of a [batch, length, heads, dim] operand; empty when it can.
inline std::string sm90_declines_layout(const TensorView& t, const char* name) {
  constexpr int64_t kMost = int64_t{1} << 40;
  bool walks = reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
  for (int i = 0; i < 3; ++i) {
    const int64_t bytes = t.step(i) * bits(t.dtype) / 8;
    walks &= t.dim(i) == 1 || (bytes % 16 == 0 && t.step(i) >= t.dim(3) && bytes < kMost);
  }
  return walks ? "" : std::string("rows of ") + name + " do not lie apart at multiples of 16 bytes";
}

// Why none of them can compute this; empty when some can. The portable kernels compute it all the same.
inline std::string sm90_declines(const AttentionGqaArgs& a) {
  if (a.q.dtype != DType::bf16 && a.q.dtype != DType::f16)
    return std::string("q is ") + name(a.q.dtype) + ", expected bf16 or f16";
  if (a.batch_invariant) return "batch_invariant: they may round unlike the others";
  if (a.bias.present() || a.mask.present() || a.alibi.present()) return "they take no bias, mask or ALiBi";
  if (a.softcap != 0) return "they take no softcap";
  if (!(a.scale > 0)) return "they take no scale of 0 or less";
  const int64_t dim = a.q.dim(3), dim_v = a.v.dim(3);
  if (std::max(dim, dim_v) <= 32) return "heads of 32 or less would be padded to 64";
  if (a.q.dim(0) < 1 || a.q.dim(1) < 1 || a.q.dim(2) < 1 || a.k.dim(1) < 1 || a.k.dim(2) < 1)
    return "there is nothing to multiply";
  for (const auto& [view, name] : {std::pair<const TensorView&, const char*>{a.q, "q"}, {a.k, "k"}, {a.v, "v"}})
    if (std::string reason = sm90_declines_layout(view, name); !reason.empty()) return reason;
  return "";
}

// The configuration that runs heads of this size unasked; null when none holds them.
inline const Sm90Configuration* sm90_configuration(const AttentionGqaArgs& a) {
  const bool cut = a.causal || a.window_left >= 0 || a.window_right >= 0;
  const auto padded = [&](const Sm90Configuration& c) { return (a.k.dim(1) + c.keys - 1) / c.keys * c.keys; };
  constexpr double kLongerGain = 1.04;  // of longer tiles of keys
  const Sm90Configuration* found = nullptr;
  for (const Sm90Configuration& c : kSm90Configurations) {
    if (c.by_name() || a.q.dim(3) > c.dim || a.v.dim(3) > c.dim_v) continue;
    if (found && !(c.whole && !cut && c.dim == found->dim && padded(c) <= kLongerGain * padded(*found))) continue;
    if (found || !c.whole) found = &c;
  }
  return found;
}

// How a configuration runs a problem.
struct Sm90Choice {
  const Sm90Configuration* configuration = nullptr;  // null: the portable kernels run it
  int pack = 1;                                      // query heads that share a tile's rows: 1 or the whole group
  int rows = 0;                                      // of a tile that are used: the most that are a multiple of `pack`
  int64_t row_tiles = 0;                             // of one batch and `pack` heads, at least as many as there are
  int64_t tiles = 0;                                 // over all batches and heads
  double filled = 0;                                 // rows there are, over the rows of all waves of tiles
  std::string reason;                                // why this one, or why none
};

inline Sm90Choice sm90_lay_out(const Sm90Configuration& c, const AttentionGqaArgs& a, int sm_count, int pack) {
  const auto divided = [](int64_t x, int64_t y) { return (x + y - 1) / y; };
  Sm90Choice choice;
  choice.configuration = &c;
  choice.pack = pack;
  choice.rows = c.rows() / pack * pack;
  const bool packed = a.cu_q.present();
  const int64_t rows = a.q.dim(1) * pack, heads = a.q.dim(2) / pack;
  choice.row_tiles =
      packed ? rows / choice.rows + std::min<int64_t>(a.cu_q.dim(0) + 1, a.q.dim(1)) : divided(rows, choice.rows);
  choice.tiles = choice.row_tiles * heads * a.q.dim(0);
  // What the lengths on the device are is not known here: sequences of equal length are assumed.
  const int64_t sequences = packed ? std::max<int64_t>(a.cu_q.dim(0) - 1, 1) : a.q.dim(0);
  const int64_t queries = packed ? divided(a.q.dim(1), sequences) : a.q.dim(1);
  const int64_t tiles = divided(queries * pack, choice.rows) * heads * sequences;
  const int64_t slots = divided(tiles, std::max(sm_count, 1)) * std::max(sm_count, 1);
  choice.filled = static_cast<double>(queries * sequences * a.q.dim(2)) / static_cast<double>(slots * c.rows());
  return choice;
}

// wish: the name of a configuration, which then runs whatever it can; or empty.
inline Sm90Choice sm90_choose(const AttentionGqaArgs& a, const kw_device_info& device, std::string_view wish = "") {
  // Where less of the machine would be busy, the portable kernels, at half the speed, but with smaller tiles and the keys split
  // over blocks, are faster.
  constexpr double kLeastFilled = 0.5;
  constexpr double kPackingGain = 1.1;
  Sm90Choice none;
  none.reason = sm90_declines(a);
  if (!none.reason.empty()) return none;
  const int64_t dim = a.q.dim(3), dim_v = a.v.dim(3), group = a.q.dim(2) / a.k.dim(2);
  const Sm90Configuration* c = sm90_configuration(a);
  if (!wish.empty()) {
    std::string names;
    c = nullptr;
    for (const Sm90Configuration& named : kSm90Configurations) {
      names += (names.empty() ? "" : ", ") + std::string(named.name);
      if (wish == named.name) c = &named;
    }
    none.reason = "there are " + names;
    if (!c) return none;
    if (dim > c->dim || dim_v > c->dim_v) c = nullptr;
  }
  if (!c) {
    none.reason = "they hold no heads of " + std::to_string(dim) + " and " + std::to_string(dim_v);
    return none;
  }
  if (device.smem_bytes < static_cast<uint64_t>(c->smem())) {
    none.reason = "shared memory per block is " + std::to_string(device.smem_bytes) + " bytes";
    return none;
  }
  Sm90Choice choice = sm90_lay_out(*c, a, device.sm_count, 1);
  choice.reason = "rows enough to keep the tensor cores busy";
  if (group > 1 && group <= c->rows()) {
    Sm90Choice together = sm90_lay_out(*c, a, device.sm_count, static_cast<int>(group));
    if (together.filled > kPackingGain * choice.filled) {
      choice = together;
      choice.reason = "few queries: the heads of a group share tiles";
    }
  }
  if (choice.tiles > INT32_MAX) {
    none.reason = "there are " + std::to_string(choice.tiles) + " tiles";
    return none;
  }
  if (wish.empty() && choice.filled < kLeastFilled) {
    none.reason = "few rows: tiles of " + std::to_string(c->rows()) + " would leave " +
                  std::to_string(static_cast<int>(100 * (1 - choice.filled))) + " % of the machine idle";
    return none;
  }
  return choice;
}

// Least seconds of a problem by its roofline, from capacities (lengths on the device are not known) and nominal figures of the
// device: predictions, not measurements. Zeros when the device does not tell its clocks.
struct Sm90Roofline {
  double matrix = 0, exponentials = 0, memory = 0;
  const char* bound() const {
    if (memory > std::max(matrix, exponentials)) return "memory";
    return matrix >= exponentials ? "matrix" : "exp";
  }
};
inline Sm90Roofline sm90_roofline(const AttentionGqaArgs& a, const kw_device_info& device) {
  if (device.clock_khz <= 0 || device.memory_clock_khz <= 0 || device.memory_bus_bits <= 0) return {};
  constexpr double kMatrix = 4096, kExponentials = 16;  // FLOPs and powers of two of a multiprocessor's cycle
  const auto d = [](int64_t x) { return static_cast<double>(x); };
  const int64_t len_q = a.q.dim(1), len_kv = a.k.dim(1);
  const int64_t sequences = a.cu_q.present() ? std::max<int64_t>(a.cu_q.dim(0) - 1, 1) : 1;
  // Of one batch and head, rows spread evenly over sequences.
  const double rows = d(len_q) / d(sequences), keys = d(len_kv) / d(sequences);
  const double right = a.causal ? 0 : a.window_right < 0 ? keys : d(a.window_right);
  const double left = a.window_left < 0 ? keys : d(a.window_left);
  double pairs = 0;  // by the middle of each of 64 parts of the rows
  for (int part = 0; part < 64; ++part) {
    const double at = (part + 0.5) / 64 * rows + keys - rows;
    pairs += std::max(0.0, std::min(keys, at + right + 0.5) - std::max(0.0, at - left)) * rows / 64;
  }
  pairs *= d(sequences) * d(a.q.dim(0)) * d(a.q.dim(2));
  const double cycles = device.clock_khz * 1e3 * std::max(device.sm_count, 1);
  const double bandwidth = 2e3 * device.memory_clock_khz * device.memory_bus_bits / 8;
  const double head = d(a.q.dim(3) + a.v.dim(3));
  const double bytes = d(a.q.dim(0)) * head * 2 * (d(len_q) * d(a.q.dim(2)) + d(len_kv) * d(a.k.dim(2)));
  return {2 * head * pairs / (kMatrix * cycles), pairs / (kExponentials * cycles), bytes / bandwidth};
}

struct Params;

// A launch with its tensor maps.
class Sm90Launch {
 public:
  // Prepares the kernel on the current device where it is another than before. p: as for the portable kernels; pack, row_tiles
  // and splits are set here. Throws CUDA when the driver refuses.
  void bind(const Sm90Choice& choice, const Params& p, const kw_device_info& device);
  void enqueue(void* stream, StreamStatus* status) const;
  int64_t blocks() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace kw::attention_gqa_cuda
