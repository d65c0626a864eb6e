// Binding and launching a kernel made of gemm_sm90.cuh: which instantiation a configuration is, how its tiles and clusters are
// laid out, the tensor maps of x and y. Whoever has weights of another kind adds their map.
#pragma once
#include <iterator>
#include <string>
#include <utility>

#include "gemm_sm90_epilogue.cuh"

namespace kw::gemm_cuda {

template <class T, class Shape>
using Sm90Epilogue = std::conditional_t<Shape::kWhole, Sm90Whole<Shape>, Sm90Stream<T, Shape>>;

// A configuration as it is compiled.
template <class Params>
struct Sm90Compiled {
  void (*bf16)(Params);
  void (*f16)(Params);
  int box_x, box_y;  // rows of the boxes of x and y
};

// Kernels::of<T, Shape>() gives the kernel.
template <class Params, class Kernels, const auto& Configurations, size_t I>
constexpr Sm90Compiled<Params> sm90_compiled() {
  constexpr const Sm90Configuration& c = Configurations[I];
  constexpr Sm90Mode kMode = !c.streams()                      ? Sm90Mode::whole
                             : c.share == Sm90Configuration::x ? Sm90Mode::stream_share_x
                             : c.share == Sm90Configuration::w ? Sm90Mode::stream_share_w
                                                               : Sm90Mode::stream;
  using Shape =
      Sm90Shape<c.slabs, c.rows / c.slabs / 64, c.tokens, c.stages, kMode, c.blocks_per_sm, c.weight_bits, c.registers>;
  static_assert(Shape::kRows == c.rows && Shape::kThreads == c.threads() && Shape::kSmem == c.smem() &&
                c.most_splits <= kSm90MostSplits);
  return {Kernels::template of<__nv_bfloat16, Shape>(), Kernels::template of<__half, Shape>(),
          c.tokens / (Shape::kShareX ? Shape::kCluster : 1), Shape::kBoxTokens};
}

inline TensorMap sm90_map_of(const GemmOperand& o, int64_t batch, int64_t rows, int64_t length, int box_rows) {
  const int64_t size = bits(o.dtype) / 8, pitch = rows == 1 ? (length * size + 15) / 16 * 16 : o.row * size;
  const int64_t layers = o.batch ? batch : 1, layer_pitch = o.batch ? o.batch * size : pitch;
  return make_tensor_map_3d(o.dtype, o.data, length, rows, layers, pitch, layer_pitch, Sm90Configuration::kDepth,
                            box_rows, Swizzle::b128);
}

// What a launch needs, kept until it is enqueued.
template <class Params>
struct Sm90Bound {
  Params params;
  LaunchConfig config;
  void (*kernel)(Params) = nullptr;

  // Everything but the map of w. c is one of Configurations and takes the problem. Prepares the kernel on the current device
  // where it is another than before; throws UNSUPPORTED from 2^31 tiles of y on.
  template <const auto& Configurations, class Kernels>
  void bind(const char* op, const Sm90Configuration& c, int splits, const GemmParams& p, const kw_device_info& device) {
    const GemmShape& s = p.s;
    const Sm90Tiles tiles = sm90_tiles(c, s, p.gated);
    const int cluster = c.cluster(splits);
    if (tiles.units * cluster >= int64_t{1} << 31)
      throw Error(Code::UNSUPPORTED, std::string(op) + " cuda: " + c.name + ": y has 2^31 tiles or more");
    const Sm90Compiled<Params> compiled = compiled_of<Configurations, Kernels>(
        &c - Configurations, std::make_index_sequence<std::size(Configurations)>());
    Params& q = params;
    q.p = p;
    q.x = sm90_map_of(s.x, s.batch, s.m, s.k, compiled.box_x);
    q.tiles_rows = static_cast<int>(tiles.rows);
    q.tiles_tokens = static_cast<int>(tiles.tokens);
    q.units = static_cast<int>(tiles.units);
    q.splits = splits;
    q.store = c.streams() && s.y.dtype == s.x.dtype && !s.c.data && !s.residual.data &&
              (p.activation == Activation::none || p.activation == Activation::relu) && tma_takes(s.y, s.m, s.n);
    q.y = q.store ? sm90_map_of(s.y, s.batch, s.m, s.n, compiled.box_y) : q.x;

    const int64_t resident = std::max(device.sm_count / cluster, 1);
    const int64_t clusters = c.streams() ? std::min(tiles.units, resident) : tiles.units;
    config.grid = {static_cast<unsigned>(clusters * cluster)};
    config.block = {static_cast<unsigned>(c.threads())};
    config.cluster = {static_cast<unsigned>(cluster)};
    config.smem = static_cast<size_t>(c.smem());
    const auto chosen = s.x.dtype == DType::bf16 ? compiled.bf16 : compiled.f16;
    if (chosen != kernel) prepare(chosen, config.smem);
    kernel = chosen;
  }

  void enqueue(void* stream) const {
    LaunchConfig with_stream = config;
    with_stream.stream = static_cast<Stream>(stream);
    launch(with_stream, kernel, params);
  }

 private:
  template <const auto& Configurations, class Kernels, size_t... I>
  static Sm90Compiled<Params> compiled_of(ptrdiff_t index, std::index_sequence<I...>) {
    static constexpr Sm90Compiled<Params> kAll[] = {sm90_compiled<Params, Kernels, Configurations, I>()...};
    return kAll[index];
  }
};

}  // namespace kw::gemm_cuda
