// Which configuration of gemm's CUDA kernels runs a problem: a pure function of the problem and the device's limits, by a
// cost model. Host code without CUDA, so that tests enumerate what it can return (test/cpu/gemm_choose_test.cc).
//
// The model predicts seconds for every configuration and number of parts of k, and takes the least. Blocks come in waves
// of as many as the multiprocessors hold; a wave takes the longest of
//   arithmetic   FLOPs of the busiest multiprocessor over its peak, times the configuration's share of it (kConfigs) and
//                what its resident warps can issue;
//   memory       bytes over bandwidth, itself at most the bytes in flight over the latency (Little): few small blocks
//                cannot draw on all of it, which is what parts of k are for;
//   L2           bytes of tiles over what a multiprocessor takes from L2;
// and ramps up and down. Parts are written, read again and summed by a second kernel. Figures of the hardware are
// nominal; shares of a peak are guesses that rank configurations until a GPU has measured them.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "../core/abi.h"
#include "gemm_shape.h"
#include "gemm_sm90.h"

namespace kw::gemm_cuda {

// ---- configurations --------------------------------------------------------------------------------------------------

enum class Family : uint8_t { mma, mma_any, fma, sm90, int4 };

// How the lines of x and w lie that can be copied in 16-byte pieces: along k or along rows.
enum class Access : uint8_t { k_k, k_rows, rows_k, rows_rows, any };
constexpr unsigned bit(Access a) { return 1u << static_cast<unsigned>(a); }

struct GemmConfig {
  const char* name;  // stable: explain(), records and the ledger of a GPU call it so
  Family family;
  int m, n, k;                              // tile: rows of x, rows of w, depth
  int warp_m, warp_n;                       // of that, a warp's sums
  int stages;                               // of the ring in shared memory
  int blocks;                               // per multiprocessor that registers allow
  unsigned access;                          // for which it is compiled
  double efficiency;                        // share of the family's peak on a full multiprocessor
  int element, pitch;                       // bytes of an element; elements of a line in shared memory
  const Sm90Configuration* sm90 = nullptr;  // of Family::sm90

  constexpr int threads() const { return sm90 ? sm90->threads() : 32 * (m / warp_m) * (n / warp_n); }
  constexpr int stage_bytes() const {
    if (family != Family::int4) return (m + n) * pitch * element;
    return m * k * element + n * (k / 2 + k / 32 * 4 + k / 64);  // of w with scales and zeros for every 32
  }
  constexpr int smem() const { return sm90 ? sm90->smem() : stages * stage_bytes(); }
};

constexpr unsigned kEvery = bit(Access::k_k) | bit(Access::k_rows) | bit(Access::rows_k) | bit(Access::rows_rows);

constexpr GemmConfig sm90_config(const Sm90Configuration& c) {
  return {c.name,   Family::sm90,    c.tokens,         c.rows,       c.kDepth, 0,        0,
          c.stages, c.blocks_per_sm, bit(Access::k_k), c.efficiency, 2,        c.kDepth, &c};
}

// Stages: 128x128 with three keeps two blocks within 99 KB (Ada, consumer Ampere), with five within 163 KB (A100); what is
// small takes as many as keep 60 KB and more in flight on each multiprocessor.
inline constexpr GemmConfig kConfigs[] = {
    {"mma_128x256", Family::mma, 128, 256, 32, 64, 64, 4, 1, bit(Access::k_k), 0.80, 2, 32},
    {"mma_128x128_deep", Family::mma, 128, 128, 32, 64, 64, 5, 2, bit(Access::k_k), 0.78, 2, 32},
    {"mma_128x128", Family::mma, 128, 128, 32, 64, 64, 3, 2, kEvery, 0.74, 2, 32},
    {"mma_64x128", Family::mma, 64, 128, 32, 32, 64, 4, 2, bit(Access::k_k), 0.65, 2, 32},
    {"mma_64x64", Family::mma, 64, 64, 32, 32, 32, 4, 4, kEvery, 0.55, 2, 32},
    {"mma_32x64", Family::mma, 32, 64, 32, 32, 32, 6, 4, bit(Access::k_k), 0.40, 2, 32},
    {"mma_16x64", Family::mma, 16, 64, 32, 16, 32, 6, 4, bit(Access::k_k) | bit(Access::k_rows), 0.25, 2, 32},
    {"mma_any_64x64", Family::mma_any, 64, 64, 32, 32, 32, 2, 4, bit(Access::any), 0.20, 2, 32},
    {"fma_128x128", Family::fma, 128, 128, 16, 64, 32, 2, 2, bit(Access::any), 0.80, 4, 20},
    {"fma_64x64", Family::fma, 64, 64, 16, 32, 32, 2, 3, bit(Access::any), 0.60, 4, 20},
    {"fma_16x64", Family::fma, 16, 64, 16, 16, 32, 2, 8, bit(Access::any), 0.30, 4, 20},
    sm90_config(kSm90Configurations[0]),
    sm90_config(kSm90Configurations[1]),
    sm90_config(kSm90Configurations[2]),
    sm90_config(kSm90Configurations[3]),
    sm90_config(kSm90Configurations[4]),
    sm90_config(kSm90Configurations[5]),
    sm90_config(kSm90Configurations[6]),
    sm90_config(kSm90Configurations[7]),
};

constexpr int kMostSplits = 32;
constexpr int kLeastDepth = 128;                          // of k in a part: less is not worth a block
constexpr int64_t kMostPartialBytes = int64_t{64} << 20;  // of workspace for parts of k

// Whose kernels run a problem.
struct GemmConfigs {
  const GemmConfig* first = kConfigs;
  size_t count = std::size(kConfigs);
  const GemmConfig* begin() const { return first; }
  const GemmConfig* end() const { return first + count; }
  bool operator==(const GemmConfigs&) const = default;
};

// ---- device ----------------------------------------------------------------------------------------------------------

struct DeviceModel {
  int sms = 1;
  int64_t smem = 0;              // bytes that a block may ask for
  double clock = 0;              // Hz
  double tensor = 0, mma = 0;    // FLOPs per clock and multiprocessor: of the best instruction, and of mma.sync
  double fma = 0;                // the same in f32
  double bandwidth = 0, l2 = 0;  // bytes/s of memory, bytes of its second-level cache
  bool nominal = false;          // clocks are those of a typical product: the device tells none
};

inline DeviceModel model_of(const kw_device_info& d) {
  // Data sheets: dense bf16 with f32 sums over SMs and boost clock. GeForce cards run at half the rate of their chips.
  struct Row {
    int cc;
    double clock, tensor, mma, fma, bandwidth_per_sm;
  };
  constexpr Row kRows[] = {{80, 1.41e9, 2048, 2048, 128, 18.9e9},  {86, 1.74e9, 1024, 1024, 256, 8.3e9},
                           {89, 2.52e9, 1024, 1024, 256, 6.1e9},   {90, 1.83e9, 4096, 2540, 256, 36.4e9},
                           {100, 1.85e9, 8192, 2048, 256, 54.0e9}, {120, 2.41e9, 1024, 1024, 256, 10.5e9}};
  const int cc = 10 * d.cc_major + d.cc_minor;
  const Row* row = &kRows[0];
  for (const Row& r : kRows)
    if (cc >= r.cc) row = &r;
  DeviceModel m;
  m.sms = std::max(d.sm_count, 1);
  m.smem = static_cast<int64_t>(d.smem_bytes);
  m.nominal = d.clock_khz <= 0 || d.memory_clock_khz <= 0 || d.memory_bus_bits <= 0;
  m.clock = m.nominal ? row->clock : d.clock_khz * 1e3;
  m.bandwidth = m.nominal ? row->bandwidth_per_sm * m.sms : d.memory_clock_khz * 1e3 * 2 * d.memory_bus_bits / 8;
  const double rate = std::strstr(d.name, "GeForce") ? 0.5 : 1;
  m.tensor = row->tensor * rate;
  m.mma = row->mma * rate;
  m.fma = row->fma;
  m.l2 = d.llc_bytes ? static_cast<double>(d.llc_bytes) : 40e6;
  return m;
}

// ---- problem ---------------------------------------------------------------------------------------------------------

struct GemmProblem {
  int64_t batch = 1, m = 0, k = 0;
  int64_t columns = 0;   // rows of w in the order of TileRows: with a gate, two blocks of 8 for every 8 of n begun
  int element = 2;       // bytes of an element of x, and of w too
  double w_element = 0;  // unless w has bytes of its own for one: of gemm_int4, with a share of scales and zeros
  Access access = Access::any;
  bool invariant = false;  // batch_invariant: k in one part
  bool gated = false;
  bool sm90 = false;           // the kernels for compute capability 9.0 may run, and can take the operands
  bool w_shared = false;       // one w for all of the batch
  int64_t epilogue_bytes = 0;  // of y, c, bias and residual
  GemmConfigs configs;
  double w_bytes() const { return w_element > 0 ? w_element : element; }  // of an element
  bool operator==(const GemmProblem&) const = default;
};

struct GemmChoice {
  const GemmConfig* config = nullptr;  // null: nothing fits the device
  int splits = 1, split_depth = 0;     // parts of k; elements of k in each but the last
  int64_t tiles_m = 0, tiles_n = 0;
  int blocks_per_sm = 0;
  int64_t partial_pitch = 0, partial_bytes = 0;
  double seconds = 0;       // predicted
  double roof_seconds = 0;  // the least that the device's peaks allow
  bool bandwidth_bound = false;
  int candidates = 0;                  // that were compared
  const GemmConfig* second = nullptr;  // the best of the others
  int second_splits = 1;
  double second_seconds = 0;
};

// Only this configuration, only this number of parts.
struct GemmWish {
  const GemmConfig* config = nullptr;
  int splits = 0;  // 0: as predicted
};

// NAME or NAME/PARTS; without a configuration where it is neither.
inline GemmWish wish_of(const std::string& text, const GemmConfigs& configs) {
  GemmWish wish;
  const size_t slash = std::min(text.find('/'), text.size());
  for (const GemmConfig& c : configs)
    if (text.compare(0, slash, c.name) == 0) wish.config = &c;
  if (slash == text.size()) return wish;
  wish.splits = std::atoi(text.c_str() + slash + 1);
  return wish.splits < 1 || wish.splits > kMostSplits ? GemmWish{} : wish;
}
inline std::string name_of(const GemmConfig& c, int splits) {
  return splits > 1 ? std::string(c.name) + '/' + std::to_string(splits) : c.name;
}

inline int64_t divided(int64_t a, int64_t b) { return (a + b - 1) / b; }

// ---- cost ------------------------------------------------------------------------------------------------------------

constexpr double kLatency = 1.0e-6;       // of memory under load
constexpr double kRamp = 1.2e-6;          // filling a ring, leaving a tile
constexpr double kUnhidden = 0.1;         // of what the longest of a wave's three hides
constexpr double kSecondKernel = 2.0e-6;  // its launch and ramp
constexpr double kReached = 0.92;         // of nominal bandwidth
constexpr double kClusterMeets = 1.0e-6;  // two barriers and the latency between them
constexpr double kRemoteClock = 30;       // bytes a multiprocessor reads from another's shared memory in a clock
constexpr double kL2Clock = 46;           // bytes a multiprocessor takes from L2 in a clock

inline double predicted(const GemmProblem& p, const DeviceModel& d, const GemmConfig& c, int splits, int64_t depth,
                        int resident) {
  // Clusters that share an operand round the tiles up to pairs along the other one.
  const int pair_m = c.sm90 && c.sm90->share == Sm90Configuration::w ? 2 : 1;
  const int pair_n = c.sm90 && c.sm90->share == Sm90Configuration::x ? 2 : 1;
  const int64_t tiles_m = divided(p.m, c.m * pair_m) * pair_m, tiles_n = divided(p.columns, c.n * pair_n) * pair_n;
  const int64_t blocks = tiles_m * tiles_n * p.batch * splits, slots = int64_t{d.sms} * resident;
  if (blocks == 0) return 0;
  const double deep = static_cast<double>(divided(std::min(depth, p.k), c.k) * c.k);
  const double flops = 2.0 * c.m * c.n * deep;
  const double x_line_bytes = static_cast<double>(std::min<int64_t>(p.m, c.m)) * p.element;
  const double w_line_bytes = static_cast<double>(std::min<int64_t>(p.columns, c.n)) * p.w_bytes();
  const double l2_bytes = (x_line_bytes / pair_n + w_line_bytes / pair_m) * deep;
  // Tile rows are walked in groups of 8, which read w once each unless it stays in L2.
  const double w_once =
      static_cast<double>(p.columns * p.k) * p.w_bytes() * static_cast<double>(p.w_shared ? 1 : p.batch);
  const double again = w_once < d.l2 / 2 ? 1 : static_cast<double>(divided(tiles_m, 8));
  const double bytes = static_cast<double>(p.batch * p.m * p.k * p.element + p.epilogue_bytes) + w_once * again;
  const double block_bytes = bytes / static_cast<double>(blocks);
  const double peak = c.family == Family::fma ? d.fma : c.sm90 ? d.tensor : d.mma;
  const double rate = peak * d.clock * c.efficiency;
  // Of a ring, only what really travels; mma_any holds one tile in registers instead.
  const double ring = (x_line_bytes + w_line_bytes) * c.k * std::max(1, c.stages - 1);

  // Where a block makes tile after tile, loads run on under the end of each but the last.
  const bool streams = c.sm90 && c.sm90->streams();
  const double ramp = streams ? kRamp / 4 : kRamp;

  const auto wave = [&](int64_t count, int per_sm) {
    const double busy = static_cast<double>(std::min<int64_t>(d.sms, count));
    const int warps =
        per_sm * c.threads() / 32;  // fewer than eight leave issue slots idle, fewer than four whole units
    const double issued = warps >= 8 ? 1 : warps >= 4 ? 0.8 + 0.05 * (warps - 4) : 0.2 * warps;
    const double arithmetic = flops * per_sm / (rate * issued);
    const double drawn =
        std::min(d.bandwidth * kReached, busy * std::min(per_sm * ring / kLatency, kL2Clock * d.clock));
    const double memory = block_bytes * static_cast<double>(count) / drawn;
    const double l2 = l2_bytes * per_sm / (kL2Clock * d.clock);
    const double longest = std::max({arithmetic, memory, l2});
    return longest + kUnhidden * (arithmetic + memory + l2 - longest) + ramp / per_sm;
  };
  const int64_t full = blocks / slots, rest = blocks % slots;
  double seconds = 2 * kRamp - ramp;
  if (full) seconds += static_cast<double>(full) * wave(slots, resident);
  if (rest) seconds += wave(rest, static_cast<int>(divided(rest, d.sms)));
  if (splits > 1 && c.sm90) {  // a block reads its share of the others' sums, the tile's size in all
    seconds += kClusterMeets + 4.0 * c.m * c.n / (kRemoteClock * d.clock);
  } else if (splits > 1) {
    const double partial = static_cast<double>(p.batch * p.m * divided(p.columns, 8) * 8 * 4) * splits;
    const double speed = partial < d.l2 / 2 ? d.sms * kL2Clock * d.clock / 2 : d.bandwidth * kReached;
    seconds += 2 * partial / speed + kSecondKernel + 0.1e-6 * splits;
  }
  return seconds;
}

// ---- choice ----------------------------------------------------------------------------------------------------------

// Blocks of a configuration on one multiprocessor; 0: it does not fit.
inline int resident_blocks(const GemmConfig& c, int64_t smem_per_block) {
  constexpr int64_t kReserved = 1024;  // what the system keeps of shared memory per block
  if (c.smem() > smem_per_block) return 0;
  return static_cast<int>(std::min<int64_t>(c.blocks, (smem_per_block + kReserved) / (c.smem() + kReserved)));
}

// Elements of k in each of at most `splits` parts, whole tiles of every configuration.
inline int64_t depth_of(int64_t k, int splits) { return divided(divided(k, splits), 64) * 64; }

inline int64_t partial_pitch_of(const GemmProblem& p) { return divided(p.columns, 8) * 8; }
// Of workspace, for each part of k.
inline int64_t part_bytes_of(const GemmProblem& p) { return p.batch * p.m * partial_pitch_of(p) * 4; }

// Everything that may run the problem within most_bytes of workspace: visit(configuration, parts of k, elements of k in
// each, blocks on a multiprocessor).
template <class Visit>
void for_each_candidate(const GemmProblem& p, const DeviceModel& d, int64_t most_bytes, const GemmWish& wish,
                        Visit&& visit) {
  const int64_t part_bytes = part_bytes_of(p);
  most_bytes = std::min(most_bytes, kMostPartialBytes);
  for (const GemmConfig& c : p.configs) {
    if (!(c.access & bit(p.access)) || c.element != p.element || (wish.config && wish.config != &c)) continue;
    if (c.sm90 && (!p.sm90 || p.invariant)) continue;  // wgmma may round unlike mma.sync, which the others take
    if (c.sm90 && c.sm90->registers && !wish.config) continue;
    const int resident = resident_blocks(c, d.smem);
    if (resident == 0) continue;
    const auto consider = [&](int splits, int64_t depth) {
      if (!wish.splits || wish.splits == splits) visit(c, splits, depth, resident);
    };
    if (c.sm90) {
      for (int splits = 1; sm90_declines(*c.sm90, splits, p.k, p.gated).empty(); splits *= 2)
        consider(splits, depth_of(p.k, splits));
      continue;
    }
    int64_t last_depth = 0;
    for (int asked = 1; asked <= kMostSplits; ++asked) {
      if (asked > 1 && p.k <= 64) break;
      const int64_t depth = asked == 1 ? p.k : depth_of(p.k, asked);
      const int splits = asked == 1 ? 1 : static_cast<int>(divided(p.k, depth));
      const bool wished = wish.splits == splits && asked > 1;
      if (asked > 1 && (p.invariant || depth == last_depth || splits < 2 || part_bytes * splits > most_bytes)) continue;
      if (asked > 1 && depth < kLeastDepth && !wished) break;
      last_depth = depth;
      consider(splits, depth);
    }
  }
}

// most_bytes: of workspace.
inline GemmChoice choose(const GemmProblem& p, const kw_device_info& info, int64_t most_bytes,
                         const GemmWish& wish = {}) {
  const DeviceModel d = model_of(info);
  GemmChoice best;
  for_each_candidate(p, d, most_bytes, wish, [&](const GemmConfig& c, int splits, int64_t depth, int resident) {
    const double seconds = predicted(p, d, c, splits, depth, resident);
    ++best.candidates;
    if (best.config && seconds >= best.seconds) {
      if (!best.second || seconds < best.second_seconds)
        best.second = &c, best.second_splits = splits, best.second_seconds = seconds;
      return;
    }
    if (best.config) best.second = best.config, best.second_splits = best.splits, best.second_seconds = best.seconds;
    best.config = &c;
    best.splits = splits, best.split_depth = static_cast<int>(depth);
    best.blocks_per_sm = resident;
    best.seconds = seconds;
  });
  if (!best.config) return best;
  best.tiles_m = divided(p.m, best.config->m);
  best.tiles_n = divided(p.columns, best.config->n);
  best.partial_pitch = partial_pitch_of(p);
  best.partial_bytes = best.splits > 1 && !best.config->sm90 ? part_bytes_of(p) * best.splits : 0;
  if (p.batch * best.tiles_m * best.tiles_n == 0) return best;  // nothing to do, nothing to read
  const double batch = static_cast<double>(p.batch), m = static_cast<double>(p.m), k = static_cast<double>(p.k);
  const double columns = static_cast<double>(p.columns);
  const double arithmetic = 2 * batch * m * columns * k / (d.sms * d.clock * (p.element == 4 ? d.fma : d.tensor));
  const double bytes = k * (p.element * batch * m + p.w_bytes() * (p.w_shared ? 1 : batch) * columns) +
                       static_cast<double>(p.epilogue_bytes);
  best.roof_seconds = std::max(arithmetic, bytes / d.bandwidth);
  best.bandwidth_bound = bytes / d.bandwidth >= arithmetic;
  return best;
}

// Names of all that may run the problem, by predicted time: the first is what choose takes.
inline std::vector<std::string> candidates(const GemmProblem& p, const kw_device_info& info, int64_t most_bytes,
                                           const GemmWish& wish = {}) {
  const DeviceModel d = model_of(info);
  std::vector<std::pair<double, std::string>> found;
  for_each_candidate(p, d, most_bytes, wish, [&](const GemmConfig& c, int splits, int64_t depth, int resident) {
    found.emplace_back(predicted(p, d, c, splits, depth, resident), name_of(c, splits));
  });
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (auto& [seconds, name] : found) names.push_back(std::move(name));
  return names;
}

}  // namespace kw::gemm_cuda
