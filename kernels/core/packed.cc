// Packing and unpacking, a few kilobytes at a time so that both sides stay in L1.
#include "packed.h"

#include <algorithm>
#include <string>

#include "error.h"
#include "numeric.h"

namespace kw {
namespace {

constexpr int64_t kBlock = 64;  // elements along k at a time

// Memory by the index of an element.
template <class Stored>
struct Elements {
  Stored* data;
  explicit Elements(void* data) : data(static_cast<Stored*>(data)) {}
  Stored get(int64_t i) const { return data[i]; }
  void set(int64_t i, Stored value) const { data[i] = value; }
};
struct Nibble {};
template <>
struct Elements<Nibble> {
  void* data;
  explicit Elements(void* data) : data(data) {}
  int get(int64_t i) const { return nibble(data, i); }
  void set(int64_t i, int value) const { store_nibble(data, i, value); }
};

template <bool Pack, class Stored>
void move_panel(const PackedExtent& extent, Elements<Stored> plain, int64_t offset, int64_t row_stride,
                int64_t k_stride, int64_t first, Elements<Stored> panels, int64_t panel) {
  const PanelFormat& f = extent.format;
  const int64_t padded = extent.panel() / f.rows, rows = std::min<int64_t>(f.rows, extent.rows - first);
  for (int64_t from = 0; from < padded; from += kBlock) {
    const int64_t to = std::min(from + kBlock, Pack ? padded : extent.k);
    for (int64_t r = 0; r < (Pack ? f.rows : rows); ++r) {
      const int64_t row = offset + r * row_stride;
      for (int64_t i = from; i < to; ++i) {
        const int64_t packed = panel + (i / f.group * f.rows + r) * f.group + i % f.group;
        if constexpr (!Pack) {
          plain.set(row + i * k_stride, panels.get(packed));
        } else if (r < rows && i < extent.k) {
          panels.set(packed, plain.get(row + i * k_stride));
        } else {
          panels.set(packed, 0);
        }
      }
    }
  }
}

template <bool Pack, class Stored>
void move_panels(const TensorView& packed, const TensorView& plain, int64_t begin, int64_t end) {
  const PackedExtent extent(packed);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t matrix = i / extent.panels(), first = i % extent.panels() * extent.format.rows;
    int64_t rest = matrix, offset = first * plain.step(-2);
    for (int d = plain.rank - 3; d >= 0; --d) offset += rest % plain.dim(d) * plain.step(d), rest /= plain.dim(d);
    move_panel<Pack>(extent, Elements<Stored>(plain.data), offset, plain.step(-2), plain.step(-1), first,
                     Elements<Stored>(packed.data),
                     matrix * extent.matrix() + first / extent.format.rows * extent.panel());
  }
}

template <bool Pack>
void move(const TensorView& packed, const TensorView& plain, int64_t begin, int64_t end) {
  if (bits(packed.dtype) == 16) return move_panels<Pack, uint16_t>(packed, plain, begin, end);
  if (bits(packed.dtype) == 32) return move_panels<Pack, uint32_t>(packed, plain, begin, end);
  if (bits(packed.dtype) == 4) {
    // Panels, and what they are of, then begin on a byte, so that threads share none.
    const PackedExtent extent(packed);
    if (extent.k % 2 == 0 && extent.panel() % 2 == 0) return move_panels<Pack, Nibble>(packed, plain, begin, end);
  }
  throw Error(Code::UNSUPPORTED,
              std::string("pack: dtype is ") + name(packed.dtype) + ", expected 16 or 32 bits, or 4 with an even k");
}

}  // namespace

void pack_panels(const TensorView& plain, const TensorView& packed, int64_t begin, int64_t end) {
  move<true>(packed, plain, begin, end);
}

void unpack_panels(const TensorView& packed, const TensorView& plain, int64_t begin, int64_t end) {
  move<false>(packed, plain, begin, end);
}

}  // namespace kw
