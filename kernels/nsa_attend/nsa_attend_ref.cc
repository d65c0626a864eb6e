// nsa_attend, the definition: the keys and values that a query sees, gathered, and attention_gqa of them.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "../attention_gqa/attention_gqa.h"
#include "../core/error.h"
#include "../core/numeric.h"
#include "nsa_attend.h"
#include "nsa_attend_shape.h"

namespace kw::ref {
namespace {

// One query and one key head at a time: its rows are the query heads of the group.
class Selected {
 public:
  Selected(const NsaAttendArgs& args, const NsaAttendLengths& lengths) : args_(args), lengths_(lengths) {}

  // y of the group's heads, and lse; nothing where the query is not there or sees no key.
  bool attend(int64_t b, int64_t i, int64_t g, ReferenceOutputs& out) {
    keys_.clear(), values_.clear();
    int64_t count = 0;
    const int64_t visible = lengths_.visible(args_, b, i), group = args_.q.shape[2] / args_.k.shape[2];
    if (i < lengths_.q[b]) {
      const SelectedRow row = selected_row(args_.blocks, b, i, g, selected_reach(args_));
      if (row.wrong && wrong.empty()) wrong = selected_wrong(args_.blocks, b, i, g, row);
      for (int64_t n = 0; n < row.count; ++n) {
        const int64_t block =
            static_cast<const int32_t*>(args_.blocks.data)[b * args_.blocks.stride[0] + i * args_.blocks.stride[1] +
                                                           g * args_.blocks.stride[2] + n * args_.blocks.stride[3]];
        for (int64_t j = block * args_.block; j < std::min(visible, (block + 1) * args_.block); ++j, ++count) {
          add(args_.k, b, j, g, keys_);
          add(args_.v, b, j, g, values_);
        }
      }
    }
    if (count == 0) return false;
    AttentionGqaArgs one;
    one.q = args_.q;
    one.q.data =
        static_cast<char*>(args_.q.data) +
        (b * args_.q.stride[0] + i * args_.q.stride[1] + g * group * args_.q.stride[2]) * bits(args_.q.dtype) / 8;
    one.q.shape[0] = one.q.shape[1] = 1, one.q.shape[2] = group;
    static_cast<TensorView&>(one.k) = gathered(keys_, count, args_.k.shape[3]);
    static_cast<TensorView&>(one.v) = gathered(values_, count, args_.v.shape[3]);
    one.y.dtype = args_.y.dtype;
    one.scale = args_.scale;
    attention_gqa(one, {}, out);
    return true;
  }

  std::string wrong;

 private:
  static void add(const TensorView& t, int64_t b, int64_t j, int64_t g, std::vector<float>& to) {
    for (int64_t e = 0; e < t.shape[3]; ++e) {
      const int64_t at = b * t.stride[0] + j * t.stride[1] + g * t.stride[2] + e * t.stride[3];
      to.push_back(load_f32(t.data, t.dtype, at));
    }
  }
  static TensorView gathered(const std::vector<float>& from, int64_t count, int64_t columns) {
    TensorView v;
    v.data = const_cast<float*>(from.data());
    v.rank = 4;
    v.shape[0] = 1, v.shape[1] = count, v.shape[2] = 1, v.shape[3] = columns;
    v.stride[1] = columns, v.stride[2] = columns, v.stride[3] = 1;
    return v;
  }

  const NsaAttendArgs& args_;
  const NsaAttendLengths& lengths_;
  std::vector<float> keys_, values_;
};

}  // namespace

void nsa_attend(const NsaAttendArgs& a, const RowList& rows, ReferenceOutputs& out) {
  const NsaAttendLengths lengths(a);
  Selected selected(a, lengths);
  const int64_t batch = a.q.shape[0], len_q = a.q.shape[1], heads = a.q.shape[2], dim_v = a.v.shape[3];
  const int64_t group = a.k.shape[2] ? heads / a.k.shape[2] : 1;
  out.assign(2, {});
  ReferenceOutput &y = out[0], &lse = out[1];
  y.resize(rows.count(batch * len_q * heads), dim_v);
  if (rows.every)
    lse.resize(batch * heads, len_q);
  else
    lse.resize(rows.size, 1);
  ReferenceOutputs one;
  int64_t last = -1;  // the query and key head whose rows `one` holds
  bool there = false;
  for (int64_t n = 0; n < y.rows; ++n) {
    const int64_t row = rows.row(n), h = row % heads, i = row / heads % len_q, b = row / heads / len_q;
    if (row / group != last) last = row / group, there = selected.attend(b, i, h / group, one);
    const int64_t flat = (b * heads + h) * len_q + i, at = rows.every ? flat : n;
    if (!rows.every) lse.element.push_back(flat);
    const double none = -std::numeric_limits<double>::infinity();
    lse.value[at] = there ? one[1].value[h % group] : none;
    lse.plain[at] = there ? one[1].plain[h % group] : none;
    lse.slack[at] = there ? one[1].slack[h % group] : 0;
    for (int64_t c = 0; there && c < dim_v; ++c) {
      const int64_t from = h % group * dim_v + c;
      y.value[n * dim_v + c] = one[0].value[from];
      y.plain[n * dim_v + c] = one[0].plain[from];
      y.slack[n * dim_v + c] = one[0].slack[from];
    }
  }
  const std::string& wrong = lengths.wrong.empty() ? selected.wrong : lengths.wrong;
  if (!wrong.empty()) throw Error(Code::INDEX, wrong);
}

}  // namespace kw::ref
