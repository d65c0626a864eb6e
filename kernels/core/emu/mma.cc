// mma.sync, ldmatrix, stmatrix: fragments as PTX ISA "Warp-level Matrix Instructions" lays them out. Sums are f32 in
// ascending k, where the hardware neither promises an order nor rounds every step.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "elements.h"
#include "runtime.h"

namespace kw::emu {
namespace {

struct MmaArgs {
  MmaType type;
  void* d;
  const uint32_t *a, *b;
  const void* c;
};

const MmaArgs& mma_args(void* const* lanes, int lane) { return *static_cast<const MmaArgs*>(lanes[lane]); }

// Element i of lane l's part of C and D lies at row(l, i), column(l, i).
constexpr int row(int lane, int i) { return lane / 4 + (i >> 1) * 8; }
constexpr int column(int lane, int i) { return lane % 4 * 2 + (i & 1); }

void mma_s8(void* const* lanes) {
  int8_t a[16][32], b[8][32];
  int32_t d[16][8];
  for (int l = 0; l < 32; ++l) {
    const MmaArgs& x = mma_args(lanes, l);
    const int group = l / 4, k = l % 4 * 4;
    for (int i = 0; i < 4; ++i) std::memcpy(&a[group + (i & 1) * 8][k + (i >> 1) * 16], &x.a[i], 4);
    for (int i = 0; i < 2; ++i) std::memcpy(&b[group][k + i * 16], &x.b[i], 4);
    for (int i = 0; i < 4; ++i) d[row(l, i)][column(l, i)] = static_cast<const int32_t*>(x.c)[i];
  }
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      auto sum = static_cast<uint32_t>(d[m][n]);  // wraps
      for (int k = 0; k < 32; ++k) sum += static_cast<uint32_t>(a[m][k] * b[n][k]);
      d[m][n] = static_cast<int32_t>(sum);
    }
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) static_cast<int32_t*>(mma_args(lanes, l).d)[i] = d[row(l, i)][column(l, i)];
}

void mma_f32(void* const* lanes, bool f16) {
  float a[16][16], b[16][8], d[16][8];
  for (int l = 0; l < 32; ++l) {
    const MmaArgs& x = mma_args(lanes, l);
    for (int i = 0; i < 4; ++i) load_pair(&a[l / 4 + (i & 1) * 8][l % 4 * 2 + (i >> 1) * 8], 1, x.a[i], f16);
    for (int i = 0; i < 2; ++i) load_pair(&b[l % 4 * 2 + i * 8][l / 4], 8, x.b[i], f16);
    for (int i = 0; i < 4; ++i) d[row(l, i)][column(l, i)] = static_cast<const float*>(x.c)[i];
  }
  multiply_add(&d[0][0], &a[0][0], &b[0][0], 8);
  for (int l = 0; l < 32; ++l)
    for (int i = 0; i < 4; ++i) static_cast<float*>(mma_args(lanes, l).d)[i] = d[row(l, i)][column(l, i)];
}

struct MatrixArgs {
  uint32_t* r;
  int count;
  bool trans;
  uint32_t addr;
};

MatrixArgs& matrix_args(void* const* lanes, int lane) { return *static_cast<MatrixArgs*>(lanes[lane]); }

// Each of the `count` phases moves 8 rows of 16 bytes; rows in the same 16 bytes of 128 take turns.
uint64_t bank_conflicts(void* const* lanes, int count) {
  uint64_t extra = 0;
  for (int phase = 0; phase < count; ++phase) {
    int rows_in_bank[8] = {}, most = 1;
    uint32_t seen[8];
    for (int i = 0; i < 8; ++i) {
      seen[i] = matrix_args(lanes, phase * 8 + i).addr;
      const bool again = std::find(seen, seen + i, seen[i]) != seen + i;
      if (!again) most = std::max(most, ++rows_in_bank[seen[i] >> 4 & 7]);
    }
    extra += static_cast<uint64_t>(most - 1);
  }
  return extra;
}

// Row j of matrix i, in shared memory, as the lane that gives its address sees it.
char* matrix_row(void* const* lanes, int i, int j, bool write, Loc loc) {
  const uint32_t addr = matrix_args(lanes, i * 8 + j).addr;
  if (addr % 16)
    fail("alignment",
         std::string(write ? "stmatrix" : "ldmatrix") + ": the row address of lane " + std::to_string(i * 8 + j) +
             " is not a multiple of 16",
         loc);
  uint32_t offset;
  Block* b = resolve(addr, &offset, 16, loc);
  check_thread(rt->running->warp->lane[i * 8 + j], b, offset, 16, write, loc);
  return b->window + offset;
}

void run_ldmatrix(void* const* lanes, uint32_t, Loc loc) {
  const auto [r, count, trans, addr] = matrix_args(lanes, 0);
  ++rt->stats.ldmatrix;
  for (int i = 0; i < count; ++i) {
    uint16_t m[8][8];
    for (int j = 0; j < 8; ++j) std::memcpy(m[j], matrix_row(lanes, i, j, false, loc), 16);
    for (int l = 0; l < 32; ++l) {
      const int g = l / 4, k = l % 4 * 2;
      const uint32_t low = trans ? m[k][g] : m[g][k], high = trans ? m[k + 1][g] : m[g][k + 1];
      matrix_args(lanes, l).r[i] = low | high << 16;
    }
  }
  if (rt->opt.bank) rt->stats.bank_conflicts += bank_conflicts(lanes, count);
}

void run_stmatrix(void* const* lanes, uint32_t, Loc loc) {
  const auto [r, count, trans, addr] = matrix_args(lanes, 0);
  for (int i = 0; i < count; ++i) {
    uint16_t m[8][8];
    for (int l = 0; l < 32; ++l) {
      const int g = l / 4, k = l % 4 * 2;
      const uint32_t pair = matrix_args(lanes, l).r[i];
      (trans ? m[k][g] : m[g][k]) = static_cast<uint16_t>(pair);
      (trans ? m[k + 1][g] : m[g][k + 1]) = static_cast<uint16_t>(pair >> 16);
    }
    for (int j = 0; j < 8; ++j) std::memcpy(matrix_row(lanes, i, j, true, loc), m[j], 16);
  }
  if (rt->opt.bank) rt->stats.bank_conflicts += bank_conflicts(lanes, count);
}

}  // namespace

float ex2(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < std::numeric_limits<float>::min() ? 0 : y;
}

void mma(MmaType type, void* d, const uint32_t* a, const uint32_t* b, const void* c, Loc loc) {
  MmaArgs args{type, d, a, b, c};
  const auto run = [](void* const* lanes, uint32_t, Loc) {
    ++rt->stats.mma;
    const MmaType t = mma_args(lanes, 0).type;
    if (t == MmaType::s8)
      mma_s8(lanes);
    else
      mma_f32(lanes, t == MmaType::f16);
  };
  meet("mma", kFullWarp, true, &args, run, loc);
}

void ldmatrix(uint32_t* r, int count, bool trans, uint32_t addr, Loc loc) {
  MatrixArgs args{r, count, trans, addr};
  meet("ldmatrix", kFullWarp, true, &args, run_ldmatrix, loc);
}

void stmatrix(const uint32_t* r, int count, bool trans, uint32_t addr, Loc loc) {
  MatrixArgs args{const_cast<uint32_t*>(r), count, trans, addr};
  meet("stmatrix", kFullWarp, true, &args, run_stmatrix, loc);
}

}  // namespace kw::emu
