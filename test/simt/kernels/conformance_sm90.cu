// Conformance of the sm_90 wrappers of ptx.cuh: stmatrix, elect, mbarrier, bulk copies, clusters, against conformance.h.
#include "../../../kernels/core/cuda/ptx.cuh"
#include "../conformance.h"

namespace kw::test {
namespace {

constexpr int kLanes = 32;

// ---- stmatrix ----------------------------------------------------------------------------------
template <bool Trans>
__global__ void stmatrix_kernel(const uint32_t* registers, const uint32_t* row_of_lane, uint32_t* out) {
  const uint32_t lane = threadIdx.x;
  uint32_t r[4];
  for (uint32_t i = 0; i < 4; ++i) r[i] = registers[lane * 4 + i];
  const uint32_t addr = ptx::smem_u32(dyn_smem()) + row_of_lane[lane] * 16;
  if constexpr (Trans)
    ptx::stmatrix_x4_trans(addr, r);
  else
    ptx::stmatrix_x4(addr, r);
  __syncthreads();
  for (uint32_t i = lane; i < 32 * 4; i += 32) out[i] = reinterpret_cast<const uint32_t*>(dyn_smem())[i];
}
template <bool Trans>
void check_stmatrix() {
  Random random(30);
  const auto elements = random.integers<uint16_t>(kLanes * 8, 65536);
  std::vector<uint32_t> rows(32), registers(kLanes * 4), words(32 * 4);
  for (uint32_t i = 0; i < 32; ++i) rows[i] = i * 11 % 32;  // every row once
  std::memcpy(registers.data(), elements.data(), elements.size() * 2);
  std::vector<uint16_t> want(32 * 8);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half) {
        const int across = lane % 4 * 2 + half, down = lane / 4;
        const int row = Trans ? across : down, column = Trans ? down : across;
        want[rows[i * 8 + row] * 8 + column] = elements[(lane * 4 + i) * 2 + half];
      }
  std::memcpy(words.data(), want.data(), want.size() * 2);
  DeviceBuffer<uint32_t> dr(registers), drows(rows), out(words.size());
  launch({.grid = {1}, .block = {32}, .smem = 512}, stmatrix_kernel<Trans>, dr.data(), drows.data(), out.data());
  conforms(std::string("stmatrix_x4") + (Trans ? "_trans" : ""), out.download(), words);
}
KW_TEST_SM90(stmatrix_x4) { check_stmatrix<false>(); }
KW_TEST_SM90(stmatrix_x4_trans) { check_stmatrix<true>(); }

// ---- elect -------------------------------------------------------------------------------------
__global__ void elect_kernel(unsigned* count, unsigned* differs) {
  const bool first = ptx::elect_one(), second = ptx::elect_one();
  if (first) atomicAdd(count, 1u);
  if (first != second) atomicAdd(differs, 1u);
}
KW_TEST_SM90(elect_one) {
  DeviceBuffer<unsigned> count(std::vector<unsigned>{0}), differs(std::vector<unsigned>{0});
  launch({.grid = {1}, .block = {128}}, elect_kernel, count.data(), differs.data());
  conforms("elect_one", count.download(), {4u});
  conforms("elect_one again", differs.download(), {0u});
}

// ---- mbarrier ----------------------------------------------------------------------------------
// Five phases in which every thread arrives, writes before and reads after; then the barrier is made anew for 2 arrivals,
// of which one waits for bytes.
__global__ void mbarrier_kernel(const int* src, int* out) {
  KW_SHARED(uint64_t, barrier);
  KW_SHARED(int[64], values);
  auto* bulk = reinterpret_cast<int*>(dyn_smem());
  const uint32_t bar = ptx::smem_u32(&barrier), t = threadIdx.x;
  if (t == 0) ptx::mbar_init(bar, 64);
  __syncthreads();
  for (bool passed = false; !passed;) passed = ptx::mbar_try_wait(bar, 1);  // a new barrier passes
  for (int phase = 0; phase < 5; ++phase) {
    values[t] = phase * 100 + static_cast<int>(t);
    ptx::mbar_arrive(bar);
    ptx::mbar_wait(bar, phase & 1);
    out[phase * 64 + static_cast<int>(t)] = values[63 - t];
    __syncthreads();
  }
  if (t == 0) {
    ptx::mbar_inval(bar);
    ptx::mbar_init(bar, 2);
    ptx::fence_mbar_init();
  }
  __syncthreads();
  if (t == 0) {  // bytes expected apart from the arrival, and with it
    ptx::mbar_expect_tx(bar, 64);
    ptx::mbar_arrive(bar);
    ptx::bulk_load(ptx::smem_u32(bulk), src, 64, bar);
  }
  if (t == 32) {
    ptx::mbar_arrive_expect_tx(bar, 192);
    ptx::bulk_load(ptx::smem_u32(bulk + 16), src + 16, 192, bar);
  }
  ptx::mbar_wait(bar, 0);
  out[5 * 64 + t] = bulk[t];
}
KW_TEST_SM90(mbarrier_phases_and_bytes) {
  const auto src = Random(31).integers<int>(64, 1000);
  std::vector<int> want;
  for (int phase = 0; phase < 5; ++phase)
    for (int t = 0; t < 64; ++t) want.push_back(phase * 100 + 63 - t);
  want.insert(want.end(), src.begin(), src.end());
  DeviceBuffer<int> dsrc(src), out(want.size());
  launch({.grid = {1}, .block = {64}, .smem = 256}, mbarrier_kernel, dsrc.data(), out.data());
  conforms("mbarrier", out.download(), want);
}

struct alignas(16) AlignedRow {
  int value[128];
};
// Warp 0 copies with cp.async and lets the copies arrive; warp 1 waits on the barrier alone.
__global__ void copies_arrive_kernel(const int* src, int* out) {
  KW_SHARED(uint64_t, barrier);
  KW_SHARED(AlignedRow, row);
  int* values = row.value;
  const uint32_t bar = ptx::smem_u32(&barrier), t = threadIdx.x % 32;
  if (threadIdx.x == 0) ptx::mbar_init(bar, 32);
  __syncthreads();
  if (threadIdx.x < 32) {
    ptx::cp_async_16(ptx::smem_u32(&values[t * 4]), src + t * 4, 16);
    ptx::cp_async_mbar_arrive_noinc(bar);
  } else {
    ptx::mbar_wait(bar, 0);
    for (uint32_t i = 0; i < 4; ++i) out[i * 32 + t] = values[i * 32 + t];
  }
}
KW_TEST_SM90(cp_async_arrives_on_mbarrier) {
  const auto src = Random(32).integers<int>(128, 1000);
  DeviceBuffer<int> dsrc(src), out(128);
  launch({.grid = {1}, .block = {64}}, copies_arrive_kernel, dsrc.data(), out.data());
  conforms("cp_async_mbar_arrive_noinc", out.download(), src);
}

// ---- TMA ---------------------------------------------------------------------------------------
constexpr uint32_t kTileBytes = 16384;

template <int Rank>
__global__ void tma_load_kernel(const __grid_constant__ TensorMap map, unsigned char* out, uint32_t bytes, int x, int y,
                                int z) {
  KW_SHARED(uint64_t, barrier);
  const uint32_t bar = ptx::smem_u32(&barrier);
  if (threadIdx.x == 0) {
    ptx::mbar_init(bar, 1);
    ptx::fence_mbar_init();
    ptx::mbar_arrive_expect_tx(bar, bytes);
    if (Rank == 2)
      ptx::tma_load_2d(ptx::smem_u32(dyn_smem()), &map, bar, x, y);
    else
      ptx::tma_load_3d(ptx::smem_u32(dyn_smem()), &map, bar, x, y, z);
  }
  __syncthreads();
  ptx::mbar_wait(bar, 0);
  for (uint32_t i = threadIdx.x; i < bytes; i += blockDim.x) out[i] = dyn_smem()[i];
}
template <int Rank>
__global__ void tma_store_kernel(const __grid_constant__ TensorMap map, const unsigned char* in, uint32_t bytes, int x,
                                 int y, int z, int wait_for_writes) {
  for (uint32_t i = threadIdx.x; i < bytes; i += blockDim.x) dyn_smem()[i] = in[i];
  ptx::fence_proxy_async();
  __syncthreads();
  if (threadIdx.x == 0) {
    if (Rank == 2)
      ptx::tma_store_2d(&map, ptx::smem_u32(dyn_smem()), x, y);
    else
      ptx::tma_store_3d(&map, ptx::smem_u32(dyn_smem()), x, y, z);
    ptx::bulk_commit();
    if (wait_for_writes)
      ptx::bulk_wait<0>();
    else
      ptx::bulk_wait_read<0>();
  }
}

struct Box {
  DType dtype;
  Swizzle swizzle;
  uint32_t inner, outer, pitch, box_inner, box_outer;  // elements, rows, bytes, elements, rows
  int x, y;
  uint32_t layers = 0, layer_pitch = 0;  // matrices, 0 for a map of two dimensions; bytes
  int z = 0;
};
constexpr Box kBoxes[] = {
    {DType::bf16, Swizzle::b128, 128, 64, 256, 64, 64, 64, 0},    // whole
    {DType::bf16, Swizzle::b128, 100, 50, 208, 64, 64, 64, 16},   // past both ends
    {DType::bf16, Swizzle::b128, 100, 50, 208, 64, 32, -24, -8},  // before both
    {DType::bf16, Swizzle::b64, 96, 40, 192, 32, 48, 80, 8},
    {DType::f16, Swizzle::b32, 48, 40, 112, 16, 40, 40, 3},
    {DType::bf16, Swizzle::none, 72, 20, 160, 48, 16, 30, 10},
    {DType::f32, Swizzle::b128, 40, 30, 160, 32, 24, 20, 12},
    {DType::f32, Swizzle::none, 40, 30, 176, 20, 30, -3, 2},
    {DType::i8, Swizzle::b64, 200, 30, 208, 64, 30, 150, 5},
    {DType::u8, Swizzle::none, 256, 16, 256, 256, 16, 0, 1000},             // wholly outside
    {DType::bf16, Swizzle::b128, 3, 5, 16, 64, 8, 0, 0},                    // matrix smaller than the box
    {DType::bf16, Swizzle::b128, 100, 20, 208, 64, 16, 64, 8, 3, 4256, 1},  // past both ends of the middle matrix
    {DType::f16, Swizzle::b128, 64, 10, 128, 64, 24, 0, -4, 2, 1280, 1},    // dense matrices, past the last one
    {DType::f16, Swizzle::b64, 40, 10, 240, 32, 8, 16, 4, 3, 80, 2},        // rows of the matrices alternate
    {DType::bf16, Swizzle::none, 72, 5, 160, 48, 8, 30, 0, 2, 800, 2},      // no such matrix
    {DType::bf16, Swizzle::none, 72, 5, 160, 48, 8, 30, 0, 2, 800, -1},
};

// Calls f(position in the box's bytes, position in the matrix's bytes, inside).
template <class F>
void each_byte(const Box& b, F&& f) {
  const int size = bits(b.dtype) / 8;
  for (int r = 0; r < static_cast<int>(b.box_outer); ++r)
    for (int c = 0; c < static_cast<int>(b.box_inner) * size; ++c) {
      const int row = b.y + r, column = b.x * size + c;
      const bool inside = row >= 0 && row < static_cast<int>(b.outer) && column >= 0 &&
                          column < static_cast<int>(b.inner) * size && b.z >= 0 &&
                          b.z < static_cast<int>(std::max(b.layers, 1u));
      const auto linear = static_cast<uint32_t>(r * static_cast<int>(b.box_inner) * size + c);
      f(swizzle_address(linear, b.swizzle),
        b.z * static_cast<int>(b.layer_pitch) + row * static_cast<int>(b.pitch) + column, inside);
    }
}
uint32_t box_bytes(const Box& b) { return b.box_inner * b.box_outer * static_cast<uint32_t>(bits(b.dtype)) / 8; }
uint32_t tensor_bytes(const Box& b) { return b.outer * b.pitch + (b.layers ? b.layers - 1 : 0) * b.layer_pitch; }
TensorMap map_of(const Box& b, void* p) {
  if (b.layers == 0)
    return make_tensor_map_2d(b.dtype, p, b.inner, b.outer, b.pitch, b.box_inner, b.box_outer, b.swizzle);
  return make_tensor_map_3d(b.dtype, p, b.inner, b.outer, b.layers, b.pitch, b.layer_pitch, b.box_inner, b.box_outer,
                            b.swizzle);
}
std::string place_of(const Box& b) {
  return (b.layers ? "3d " : "2d ") + std::to_string(&b - kBoxes) + " " + name_of(b.swizzle);
}

KW_TEST_SM90(tma_load) {
  for (const Box& b : kBoxes) {
    const auto matrix = Random(33).integers<unsigned char>(tensor_bytes(b), 256);
    DeviceBuffer<unsigned char> dm(matrix), out(box_bytes(b));
    std::vector<unsigned char> want(box_bytes(b));
    each_byte(b, [&](uint32_t at, int global, bool inside) { want[at] = inside ? matrix[global] : 0; });
    launch({.grid = {1}, .block = {64}, .smem = kTileBytes}, b.layers ? tma_load_kernel<3> : tma_load_kernel<2>,
           map_of(b, dm.data()), out.data(), box_bytes(b), b.x, b.y, b.z);
    conforms("tma_load_" + place_of(b), out.download(), want);
  }
}

// Four dimensions, and a box with more than one of each: its rows lie one after the other, dimension 1 first, and the swizzle
// runs through all of them. As attention takes some heads of some queries.
__global__ void tma_load_4d_kernel(const __grid_constant__ TensorMap map, unsigned char* out, uint32_t bytes, int x,
                                   int y, int z, int w) {
  KW_SHARED(uint64_t, barrier);
  const uint32_t bar = ptx::smem_u32(&barrier);
  if (threadIdx.x == 0) {
    ptx::mbar_init(bar, 1);
    ptx::fence_mbar_init();
    ptx::mbar_arrive_expect_tx(bar, bytes);
    ptx::tma_load_4d(ptx::smem_u32(dyn_smem()), &map, bar, x, y, z, w);
  }
  __syncthreads();
  ptx::mbar_wait(bar, 0);
  for (uint32_t i = threadIdx.x; i < bytes; i += blockDim.x) out[i] = dyn_smem()[i];
}
KW_TEST_SM90(tma_load_of_four_dimensions) {
  struct Box4 {
    uint64_t extent[4], pitch[3];  // elements of 16 bits and rows; bytes
    uint32_t box[4];
    int at[4];
    Swizzle swizzle;
  };
  constexpr Box4 kBoxes4[] = {
      {{64, 4, 6, 2}, {128, 512, 3072}, {64, 4, 3, 1}, {0, 0, 2, 1}, Swizzle::b128},     // whole
      {{100, 7, 5, 3}, {208, 1456, 7280}, {64, 7, 3, 2}, {64, 0, 3, 1}, Swizzle::b128},  // past x and z; 21 rows
      {{72, 5, 20, 2},
       {3200, 160, 16000},
       {64, 1, 16, 1},
       {-8, 3, -5, 0},
       Swizzle::b128},                                                               // before; rows between heads
      {{40, 3, 4, 2}, {80, 240, 960}, {32, 2, 2, 2}, {16, 2, 3, 1}, Swizzle::b64},   // past all of them
      {{40, 3, 4, 2}, {80, 240, 960}, {48, 3, 4, 1}, {0, 0, 0, -1}, Swizzle::none},  // no such batch
  };
  for (const Box4& b : kBoxes4) {
    uint64_t bytes = b.extent[0] * 2;
    for (int i = 0; i < 3; ++i) bytes += (b.extent[i + 1] - 1) * b.pitch[i];
    const auto tensor = Random(36).integers<unsigned char>(bytes, 256);
    const uint32_t row = b.box[0] * 2, size = row * b.box[1] * b.box[2] * b.box[3];
    std::vector<unsigned char> want(size);
    uint32_t linear = 0;
    for (uint32_t w = 0; w < b.box[3]; ++w)
      for (uint32_t z = 0; z < b.box[2]; ++z)
        for (uint32_t y = 0; y < b.box[1]; ++y)
          for (uint32_t c = 0; c < row; ++c, ++linear) {
            const int64_t place[4] = {2 * b.at[0] + int64_t{c}, b.at[1] + int64_t{y}, b.at[2] + int64_t{z},
                                      b.at[3] + int64_t{w}};
            bool inside = place[0] >= 0 && place[0] < static_cast<int64_t>(2 * b.extent[0]);
            int64_t from = place[0];
            for (int i = 1; i < 4; ++i) {
              inside &= place[i] >= 0 && place[i] < static_cast<int64_t>(b.extent[i]);
              from += place[i] * static_cast<int64_t>(b.pitch[i - 1]);
            }
            want[swizzle_address(linear, b.swizzle)] = inside ? tensor[from] : 0;
          }
    DeviceBuffer<unsigned char> dm(tensor), out(size);
    launch({.grid = {1}, .block = {64}, .smem = kTileBytes}, tma_load_4d_kernel,
           make_tensor_map_4d(DType::bf16, dm.data(), b.extent, b.pitch, b.box, b.swizzle), out.data(), size, b.at[0],
           b.at[1], b.at[2], b.at[3]);
    conforms("tma_load_4d " + std::to_string(&b - kBoxes4) + " " + name_of(b.swizzle), out.download(), want);
  }
}

KW_TEST_SM90(tma_store) {
  for (const Box& b : kBoxes)
    for (const int wait_for_writes : {0, 1}) {
      const auto tile = Random(34).integers<unsigned char>(box_bytes(b), 256);
      std::vector<unsigned char> want(tensor_bytes(b), 0xff);  // untouched outside the box
      each_byte(b, [&](uint32_t at, int global, bool inside) {
        if (inside) want[global] = tile[at];
      });
      DeviceBuffer<unsigned char> dm(want.size()), in(tile);
      launch({.grid = {1}, .block = {64}, .smem = kTileBytes}, b.layers ? tma_store_kernel<3> : tma_store_kernel<2>,
             map_of(b, dm.data()), in.data(), box_bytes(b), b.x, b.y, b.z, wait_for_writes);
      conforms("tma_store_" + place_of(b), dm.download(), want);
    }
}

// ---- clusters ----------------------------------------------------------------------------------
// Every block loads its quarter of a tile into all four by multicast.
constexpr uint32_t kQuarter = 1024;
template <int Rank>
__global__ void multicast_kernel(const __grid_constant__ TensorMap map, unsigned char* out) {
  KW_SHARED(uint64_t, barrier);
  const uint32_t bar = ptx::smem_u32(&barrier), rank = ptx::cluster_rank();
  if (threadIdx.x == 0) {
    ptx::mbar_init(bar, 1);
    ptx::fence_mbar_init();
  }
  ptx::cluster_sync();
  if (threadIdx.x == 0) {
    ptx::mbar_arrive_expect_tx(bar, 4 * kQuarter);
    const uint32_t quarter = ptx::smem_u32(dyn_smem()) + rank * kQuarter;
    if (Rank == 2)
      ptx::tma_load_2d_multicast(quarter, &map, bar, 0, static_cast<int>(rank) * 8, 15);
    else
      ptx::tma_load_3d_multicast(quarter, &map, bar, 0, static_cast<int>(rank) % 2 * 8, static_cast<int>(rank) / 2, 15);
  }
  ptx::mbar_wait(bar, 0);
  for (uint32_t i = threadIdx.x; i < 4 * kQuarter; i += blockDim.x) out[rank * 4 * kQuarter + i] = dyn_smem()[i];
  ptx::cluster_sync();
}
KW_TEST_SM90(multicast_to_a_cluster) {
  const auto matrix = Random(35).integers<unsigned char>(4 * kQuarter, 256);
  DeviceBuffer<unsigned char> dm(matrix);
  std::vector<unsigned char> want;
  for (int block = 0; block < 4; ++block) want.insert(want.end(), matrix.begin(), matrix.end());
  const auto check = [&](const char* name, auto kernel, const TensorMap& map) {
    DeviceBuffer<unsigned char> out(16 * kQuarter);
    launch({.grid = {4}, .block = {64}, .smem = 4 * kQuarter, .cluster = {4}}, kernel, map, out.data());
    conforms(name, out.download(), want);
  };
  check("tma_load_2d_multicast", multicast_kernel<2>,
        make_tensor_map_2d(DType::bf16, dm.data(), 64, 32, 128, 64, 8, Swizzle::none));
  check("tma_load_3d_multicast", multicast_kernel<3>,
        make_tensor_map_3d(DType::bf16, dm.data(), 64, 16, 2, 128, 2048, 64, 8, Swizzle::none));
}

// Each block reads its right neighbour's shared memory and arrives at the left neighbour's barrier, which waits for it.
__global__ void neighbours_kernel(int* out) {
  KW_SHARED(uint64_t, barrier);
  KW_SHARED(int[64], mine);
  const uint32_t bar = ptx::smem_u32(&barrier), rank = ptx::cluster_rank(), t = threadIdx.x;
  mine[t] = static_cast<int>(rank * 1000 + t);
  if (t == 0) {
    ptx::mbar_init(bar, 64);
    ptx::fence_mbar_init();
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
  const int* theirs = ptx::map_shared_rank(&mine[0], (rank + 1) % 4);
  out[(rank * 64 + t) * 2] = theirs[63 - t];
  ptx::mbar_arrive_cluster(bar, (rank + 3) % 4);
  ptx::mbar_wait(bar, 0);
  out[(rank * 64 + t) * 2 + 1] = static_cast<int>(rank);
  ptx::cluster_sync();
}
KW_TEST_SM90(cluster_ranks_and_distributed_shared_memory) {
  DeviceBuffer<int> out(4 * 64 * 2);
  launch({.grid = {4}, .block = {64}, .cluster = {4}}, neighbours_kernel, out.data());
  std::vector<int> want;
  for (int rank = 0; rank < 4; ++rank)
    for (int t = 0; t < 64; ++t) want.insert(want.end(), {(rank + 1) % 4 * 1000 + 63 - t, rank});
  conforms("map_shared_rank and mbar_arrive_cluster", out.download(), want);
}

}  // namespace
}  // namespace kw::test
