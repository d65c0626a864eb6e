// Operands stored for a kernel: panels of rows, marked by TensorView::format. Shape and dtype stay what they were; the
// data are [..., panels][k / group][rows][group], zeros where rows or k were padded, and strides mean nothing.
#pragma once
#include <cstdint>
#include <string>

#include "error.h"
#include "tensor.h"

namespace kw {

// The format tag as its parts. A tag is a whole number that JavaScript holds exactly; 0 is a plain tensor.
struct PanelFormat {
  static constexpr int kVersion = 1;
  int rows;   // in a panel, side by side
  int group;  // neighbours along k that stay together
  int step;   // k is padded to a multiple of it, itself a multiple of group

  constexpr uint64_t tag() const {
    return static_cast<uint64_t>(kVersion) | static_cast<uint64_t>(rows) << 8 | static_cast<uint64_t>(group) << 24 |
           static_cast<uint64_t>(step) << 32;
  }
};

// Throws UNSUPPORTED for a tag of another version or none at all.
inline PanelFormat panel_format(uint64_t tag) {
  const PanelFormat f{static_cast<int>(tag >> 8 & 0xffff), static_cast<int>(tag >> 24 & 0xff),
                      static_cast<int>(tag >> 32 & 0xffff)};
  if (f.rows == 0 || f.group == 0 || f.step == 0 || f.step % f.group != 0 || f.tag() != tag) {
    throw Error(Code::UNSUPPORTED, "packed: format is " + std::to_string(tag) + ", expected panels of version " +
                                       std::to_string(PanelFormat::kVersion));
  }
  return f;
}

// For messages and explanations: "panels of 32 rows, pairs along k (version 1)", "runs of 8 along k"; "plain" for 0.
inline std::string describe_format(uint64_t tag) {
  if (tag == 0) return "plain";
  const PanelFormat f = panel_format(tag);
  const std::string along = f.group == 1   ? ""
                            : f.group == 2 ? ", pairs along k"
                                           : ", runs of " + std::to_string(f.group) + " along k";
  return "panels of " + std::to_string(f.rows) + " rows" + along + " (version " +
         std::to_string(PanelFormat::kVersion) + ")";
}

// The last two dimensions of a packed view, the others as `matrices`. Throws SHAPE below rank 2.
struct PackedExtent {
  PanelFormat format;
  int64_t matrices, rows, k;

  explicit PackedExtent(const TensorView&);
  int64_t panels() const { return (rows + format.rows - 1) / format.rows; }                          // of one matrix
  int64_t panel() const { return (k + format.step - 1) / format.step * format.step * format.rows; }  // elements
  int64_t matrix() const { return panels() * panel(); }
  // Where an element of a matrix is.
  int64_t at(int64_t row, int64_t i) const {
    return row / format.rows * panel() + (i / format.group * format.rows + row % format.rows) * format.group +
           i % format.group;
  }
};

inline PackedExtent::PackedExtent(const TensorView& view) : format(panel_format(view.format)), matrices(1) {
  if (view.rank < 2) {
    throw Error(Code::SHAPE, "packed: rank is " + std::to_string(view.rank) + ", expected at least 2");
  }
  rows = view.dim(-2), k = view.dim(-1);
  for (int i = 0; i + 2 < view.rank; ++i) matrices *= view.dim(i);
}

inline uint64_t packed_bytes(const TensorView& view) {
  const PackedExtent extent(view);
  return static_cast<uint64_t>(extent.matrices * extent.matrix()) * static_cast<uint64_t>(bits(view.dtype)) / 8;
}

// Panels [begin, end), counted over all matrices, from a plain view of the same shape and dtype, any strides; and back.
// 16- and 32-bit elements, and 4-bit ones with an even k; throws UNSUPPORTED for others.
void pack_panels(const TensorView& plain, const TensorView& packed, int64_t begin, int64_t end);
void unpack_panels(const TensorView& packed, const TensorView& plain, int64_t begin, int64_t end);

}  // namespace kw
