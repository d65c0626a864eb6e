// attention_gqa_paged, the definition: the keys and values of a request gathered from their pages, and attention_gqa of them.
#include "attention_gqa_paged_ref.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "../attention_gqa/attention_gqa_ref.h"
#include "../core/error.h"
#include "../core/numeric.h"
#include "attention_gqa_paged_shape.h"

namespace kw::ref {
namespace {

// One request at a time, as a batch of its own.
class Gathered {
 public:
  Gathered(const AttentionGqaPagedArgs& args, const AttentionPagedLengths& lengths) : args_(args), lengths_(lengths) {}

  // Rows of a request, counted within it.
  ReferenceOutputs attention(int64_t request, const RowList& rows) {
    if (request != request_) {
      request_ = request;
      len_q_ = {lengths_.q[request]}, len_kv_ = {lengths_.kv[request]};
      gather(args_.k_cache, keys_);
      gather(args_.v_cache, values_);
    }
    AttentionGqaArgs one = attention_without_keys(args_);
    one.q.data = static_cast<char*>(args_.q.data) + request * args_.q.stride[0] * bits(args_.q.dtype) / 8;
    one.q.shape[0] = 1;
    static_cast<TensorView&>(one.k) = view(keys_, args_.k_cache);
    static_cast<TensorView&>(one.v) = view(values_, args_.v_cache);
    one.lens_q = view_of(len_q_);
    ReferenceOutputs out;
    attention_gqa(one, {args_.k_scale, args_.v_scale}, rows, out);
    return out;
  }

 private:
  void gather(const TensorView& cache, std::vector<float>& to) const {
    const TensorView& table = args_.page_table;
    const int64_t size = cache.shape[1], heads = cache.shape[2], dim = cache.shape[3];
    to.assign(len_kv_[0] * heads * dim, 0);
    for (int64_t j = 0; j < len_kv_[0]; ++j) {
      const int64_t entry = request_ * table.stride[0] + j / size * table.stride[1];
      const int64_t page = static_cast<const int32_t*>(table.data)[entry];
      if (page < 0 || page >= cache.shape[0]) continue;
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t e = 0; e < dim; ++e) {
          const int64_t at =
              page * cache.stride[0] + j % size * cache.stride[1] + h * cache.stride[2] + e * cache.stride[3];
          to[(j * heads + h) * dim + e] = load_f32(cache.data, cache.dtype, at);
        }
      }
    }
  }

  TensorView view(const std::vector<float>& from, const TensorView& cache) const {
    const int64_t heads = cache.shape[2], dim = cache.shape[3];
    TensorView v;
    v.data = const_cast<float*>(from.data());
    v.rank = 4;
    v.shape[0] = 1, v.shape[1] = len_kv_[0], v.shape[2] = heads, v.shape[3] = dim;
    v.stride[1] = heads * dim, v.stride[2] = dim, v.stride[3] = 1;
    return v;
  }

  const AttentionGqaPagedArgs& args_;
  const AttentionPagedLengths& lengths_;
  int64_t request_ = -1;
  std::vector<int32_t> len_q_, len_kv_;
  std::vector<float> keys_, values_;
};

void append(ReferenceOutput& to, const ReferenceOutput& from) {
  const auto add = [](auto& all, const auto& more) { all.insert(all.end(), more.begin(), more.end()); };
  add(to.value, from.value), add(to.plain, from.plain), add(to.slack, from.slack);
}

}  // namespace

void attention_paged(const char* where, const AttentionGqaPagedArgs& args, const RowList& rows, ReferenceOutputs& out) {
  const AttentionPagedLengths lengths(where, args);
  Gathered gathered(args, lengths);
  const int64_t batch = args.q.shape[0], len_q = args.q.shape[1], heads = args.q.shape[2], each = len_q * heads;
  out.assign(2, {});
  ReferenceOutput &y = out[0], &lse = out[1];
  const auto add = [&](const ReferenceOutputs& more) { append(y, more[0]), append(lse, more[1]); };
  y.columns = args.v_cache.shape[3], y.rows = rows.count(batch * each);
  if (rows.every) {
    lse.rows = batch * heads, lse.columns = len_q;
    for (int64_t b = 0; b < batch; ++b) add(gathered.attention(b, {}));
  } else {
    lse.rows = rows.size, lse.columns = 1;
    for (int64_t n = 0; n < rows.size; ++n) {
      const int64_t request = rows.index[n] / each, row = rows.index[n] % each;
      const ReferenceOutputs one = gathered.attention(request, {&row, 1, false});
      add(one);
      lse.element.push_back(request * each + one[1].element[0]);
    }
  }
  if (!lengths.wrong.empty()) throw Error(Code::INDEX, lengths.wrong);
}

void attention_gqa_paged(const AttentionGqaPagedArgs& args, const RowList& rows, ReferenceOutputs& out) {
  attention_paged("attention_gqa_paged", args, rows, out);
}

}  // namespace kw::ref
