// The loops of gemm over tile registers (gemm_cpu_tiles.h) with a model of the registers, on any machine: packing of x
// with every tail, beforehand or between the micro-tiles of the piece before, panels of w stored or packed as they are used,
// blocks of every size, in pieces of k. Sums of small whole numbers, bit for bit.
//
//   gemm_tiles_test [cases [seed]]
#include <bit>

#include "../../kernels/core/packed.h"
#include "../../kernels/gemm/gemm_cpu_tiles.h"
#include "support.h"

namespace {

using namespace kw;
using namespace kw::test;

// What Intel's manual says of the instructions, for tiles of 16 rows by 64 bytes. Tiles that nothing has loaded hold NaN.
class ModelTiles {
 public:
  ModelTiles() { std::memset(tiles_, kGuard, sizeof(tiles_)), ++alive; }
  ~ModelTiles() { --alive; }
  template <int Tile>
  void zero() {
    std::memset(tiles_[Tile], 0, sizeof(tiles_[Tile]));
  }
  template <int Tile>
  void load(const void* from, int64_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(tiles_[Tile][i], static_cast<const char*>(from) + i * stride, 64);
  }
  template <int Tile>
  void store(void* to, int64_t stride) {
    for (int i = 0; i < 16; ++i) std::memcpy(static_cast<char*>(to) + i * stride, tiles_[Tile][i], 64);
  }
  // Even and odd elements of k are summed apart, then added to each other and to the sums.
  template <int Sums, int A, int B>
  void dot() {
    for (int i = 0; i < 16; ++i) {
      for (int j = 0; j < 16; ++j) {
        float even = 0, odd = 0;
        for (int k = 0; k < 16; ++k) {
          even += bf16(tiles_[A][i][k] << 16) * bf16(tiles_[B][k][j] << 16);
          odd += bf16(tiles_[A][i][k] & 0xffff0000) * bf16(tiles_[B][k][j] & 0xffff0000);
        }
        tiles_[Sums][i][j] = std::bit_cast<uint32_t>(bf16(tiles_[Sums][i][j]) + (even + odd));
      }
    }
  }
  static inline int alive = 0;

 private:
  static float bf16(uint32_t bits) { return std::bit_cast<float>(bits); }
  uint32_t tiles_[8][16][16];
};

// A panel of w as the tiles take it: [cells][32][2].
void pack_w(float* to, const void* from, int64_t row_stride, int64_t k_stride, int rows, int64_t k, int64_t cells,
            int panel) {
  auto* pairs = reinterpret_cast<uint16_t*>(to);
  for (int64_t i = 0; i < cells * panel * 2; ++i) {
    const int64_t row = i / 2 % panel, at = i / 2 / panel * 2 + i % 2;
    pairs[i] = row < rows && at < k ? static_cast<const uint16_t*>(from)[row * row_stride + at * k_stride] : 0;
  }
}

// x [m, k] (stored [k, m] with `transposed`) times w [n, k] as gemm_cpu.cc would: x packed in pieces of `depth` cells, w
// stored as its panels.
void check(bool transposed) {
  const int64_t m = pick(1, 70), n = pick(1, 100), k = one_of<int64_t>({1, 2, 31, 32, 33, 63, 64, pick(1, 300)});
  const int mr = m <= cpu::kTile ? cpu::kTile : 2 * cpu::kTile, nr = cpu::kTileColumns;
  const std::string text = "tiles of " + std::to_string(m) + " x " + std::to_string(n) + " x " + std::to_string(k);
  Holder x, w;
  x.shape(DType::bf16, transposed ? std::vector<int64_t>{k, m} : std::vector<int64_t>{m, k}, chance(0.5));
  w.shape(DType::bf16, {n, k}, chance(0.5));
  for (Holder* h : {&x, &w}) h->fill([] { return static_cast<float>(pick(-3, 3)); });
  TensorView stored = w.view;
  stored.format = PanelFormat{nr, 2, 2 * cpu::kTile}.tag();
  std::vector<uint8_t> panels(packed_bytes(stored), kGuard);
  stored.data = panels.data();
  const PackedExtent extent(stored);
  pack_panels(w.view, stored, 0, extent.panels());

  const int64_t row = x.view.stride[transposed], column = x.view.stride[!transposed];
  const int64_t cells = (k + 31) / 32 * 16, panels_x = (m + mr - 1) / mr, depth = 16 * pick(1, cells / 16);
  const int64_t stride = extent.panels() * nr;
  std::vector<float> packed, packed_w, next, sums(panels_x * mr * stride, NAN);
  for (int64_t c = 0; c < cells; c += depth) {
    const int64_t piece = std::min(depth, cells - c);
    packed.assign(panels_x * mr * piece, NAN);
    const bool waiting = !next.empty();
    if (waiting) packed.swap(next), next.clear();
    for (int64_t i = 0; i < panels_x && !waiting; ++i) {
      const auto* from = static_cast<const uint16_t*>(x.view.data) + i * mr * row + 2 * c * column;
      cpu::pack_tiles(packed.data() + i * mr * piece, from, row, column,
                      static_cast<int>(std::min<int64_t>(mr, m - i * mr)), std::min(2 * piece, k - 2 * c), piece, mr);
    }
    cpu::GemmBlock block{.x = packed.data(),
                         .panels_x = static_cast<int>(panels_x),
                         .mr = mr,
                         .w = panels.data() + c * nr * 4,
                         .panel_w = extent.panel() * 2,
                         .panels_w = static_cast<int>(extent.panels()),
                         .cells = piece,
                         .sums = sums.data(),
                         .stride = stride,
                         .add = c > 0,
                         .ahead = {},
                         .in_place = chance(0.5),
                         .plain = {},
                         .next = {}};
    const auto piece_of = [&](const Holder& h, float* to, int64_t row, int64_t column, int64_t cell, int64_t rows,
                              int64_t count, int64_t panels_of, int high) {
      return cpu::GemmPiece{.to = to,
                            .from = static_cast<const uint16_t*>(h.view.data) + 2 * cell * column,
                            .row_stride = row,
                            .k_stride = column,
                            .rows = rows,
                            .k = k - 2 * cell,
                            .cells = count,
                            .panels = static_cast<int>(panels_of),
                            .mr = high};
    };
    if (chance(0.5)) {
      packed_w.assign(extent.panels() * nr * piece, NAN);
      block.plain = piece_of(w, packed_w.data(), w.view.stride[0], 1, c, n, piece, extent.panels(), nr);
      block.w = packed_w.data(), block.panel_w = piece * nr * 4, block.in_place = false;
    }
    if (c + depth < cells && chance(0.5)) {
      const int64_t count = std::min(depth, cells - c - depth);
      next.assign(panels_x * mr * count, NAN);
      block.next = piece_of(x, next.data(), row, column, c + depth, m, count, panels_x, mr);
    }
    cpu::block_of_tiles<ModelTiles, pack_w>(block);
  }
  expect(ModelTiles::alive == 0, text + ": tiles are not released");
  const auto element = [](const Holder& h, int64_t at) { return load_f32(h.view.data, DType::bf16, at); };
  int wrong = 0;
  for (int64_t i = 0; i < panels_x * mr; ++i) {
    for (int64_t r = 0; r < stride; ++r) {
      float s = 0;
      for (int64_t j = 0; i < m && r < n && j < k; ++j) {
        s += element(x, i * row + j * column) * element(w, r * w.view.stride[0] + j);
      }
      wrong += sums[i * stride + r] != s;
    }
  }
  expect(wrong == 0, text + (transposed ? " transposed: " : ": ") + std::to_string(wrong) + " sums are wrong");
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments(argc, argv, 200);
  for (int i = 0; i < arguments.cases; ++i) check(i % 3 == 0);
  return closing_line();
}
