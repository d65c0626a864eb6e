// Conformance of the sm_80 wrappers of ptx.cuh, against conformance.h.
#include "../../../kernels/core/cuda/ptx.cuh"
#include "../conformance.h"

namespace kw::test {
namespace {

constexpr int kLanes = 32;

// ---- addresses, lanes --------------------------------------------------------------------------
__global__ void address_kernel(uint32_t* out) {
  KW_SHARED(uint32_t[64], words);
  const uint32_t base = ptx::smem_u32(dyn_smem());
  out[threadIdx.x * 4 + 0] = base % 1024;
  out[threadIdx.x * 4 + 1] = ptx::smem_u32(dyn_smem() + 4 * threadIdx.x) - base;
  out[threadIdx.x * 4 + 2] = ptx::smem_u32(&words[threadIdx.x]) - ptx::smem_u32(&words[0]);
  out[threadIdx.x * 4 + 3] = static_cast<uint32_t>(ptx::lane_id());
}
KW_TEST(smem_u32_and_lane_id) {
  DeviceBuffer<uint32_t> out(64 * 4);
  launch({.grid = {1}, .block = {64}, .smem = 1024}, address_kernel, out.data());
  std::vector<uint32_t> want;
  for (uint32_t t = 0; t < 64; ++t) want.insert(want.end(), {0, 4 * t, 4 * t, t % 32});
  conforms("smem_u32", out.download(), want);
}

// ---- arithmetic --------------------------------------------------------------------------------
__global__ void ex2_kernel(const float* in, float* out) { out[threadIdx.x] = ptx::ex2(in[threadIdx.x]); }
KW_TEST(ex2) {
  const auto run = [](const std::vector<float>& in) {
    DeviceBuffer<float> din(in), out(in.size());
    launch({.grid = {1}, .block = {static_cast<unsigned>(in.size())}}, ex2_kernel, din.data(), out.data());
    return out.download();
  };
  // PTX ISA, "ex2": what is exact, with .ftz.
  conforms("ex2 of special values", run({0.f, -0.f, -INFINITY, INFINITY, -127.f, -140.f, -1e30f}),
           std::vector<float>{1, 1, 0, INFINITY, 0, 0, 0});
  Random random(31);
  std::vector<float> in(256), want;
  for (float& x : in) x = random.uniform(-20, 0);
  for (const float x : in) want.push_back(static_cast<float>(std::exp2(static_cast<double>(x))));
  conforms("ex2", run(in), want, 0x1p-22);
}

// ---- mma ---------------------------------------------------------------------------------------
enum class Mma { bf16, f16, s8 };

template <Mma Type, class Acc>
__global__ void mma_kernel(const uint32_t* a, const uint32_t* b, const Acc* c, Acc* d) {
  const uint32_t lane = threadIdx.x;
  uint32_t fa[4], fb[2];
  Acc fc[4], fd[4];
  for (uint32_t i = 0; i < 4; ++i) fa[i] = a[lane * 4 + i], fc[i] = c[lane * 4 + i];
  for (uint32_t i = 0; i < 2; ++i) fb[i] = b[lane * 2 + i];
  if constexpr (Type == Mma::bf16)
    ptx::mma_m16n8k16_bf16(fd, fa, fb, fc);
  else if constexpr (Type == Mma::f16)
    ptx::mma_m16n8k16_f16(fd, fa, fb, fc);
  else
    ptx::mma_m16n8k32_s8(fd, fa, fb, fc);
  for (uint32_t i = 0; i < 4; ++i) d[lane * 4 + i] = fd[i];
}

void check_mma_16(bool f16, bool integers) {
  Random random(f16 ? 20 : 21);
  std::vector<uint16_t> a(kLanes * 8), b(kLanes * 4);
  std::vector<float> c(kLanes * 4), want(kLanes * 4);
  for (auto& x : a) x = random_16(random, f16, integers);
  for (auto& x : b) x = random_16(random, f16, integers);
  for (auto& x : c) x = integers ? static_cast<float>(random.below(100)) : random.uniform(-1, 1);
  double ma[16][16], mb[16][8], md[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) ma[place_a16(lane, i).row][place_a16(lane, i).column] = from_16(a[lane * 8 + i], f16);
    for (int i = 0; i < 4; ++i) mb[place_b16(lane, i).row][place_b16(lane, i).column] = from_16(b[lane * 4 + i], f16);
    for (int i = 0; i < 4; ++i) md[place_c(lane, i).row][place_c(lane, i).column] = c[lane * 4 + i];
  }
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n)
      for (int k = 0; k < 16; ++k) md[m][n] += ma[m][k] * mb[k][n];
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i)
      want[lane * 4 + i] = static_cast<float>(md[place_c(lane, i).row][place_c(lane, i).column]);
  std::vector<uint32_t> ra(kLanes * 4), rb(kLanes * 2);
  std::memcpy(ra.data(), a.data(), a.size() * 2);
  std::memcpy(rb.data(), b.data(), b.size() * 2);
  DeviceBuffer<uint32_t> da(ra), db(rb);
  DeviceBuffer<float> dc(c), dd(kLanes * 4);
  launch({.grid = {1}, .block = {32}}, f16 ? mma_kernel<Mma::f16, float> : mma_kernel<Mma::bf16, float>, da.data(),
         db.data(), dc.data(), dd.data());
  conforms(std::string("mma_m16n8k16_") + (f16 ? "f16" : "bf16") + (integers ? " integers" : ""), dd.download(), want,
           integers ? 0 : 1e-5);
}
KW_TEST(mma_bf16) {
  check_mma_16(false, true);
  check_mma_16(false, false);
}
KW_TEST(mma_f16) {
  check_mma_16(true, true);
  check_mma_16(true, false);
}

KW_TEST(mma_s8) {
  Random random(22);
  const auto a = random.integers<int8_t>(kLanes * 16, 256), b = random.integers<int8_t>(kLanes * 8, 256);
  auto c = random.integers<int>(kLanes * 4, 1000);
  c[0] = INT32_MAX, c[1] = INT32_MIN;  // sums wrap
  std::vector<int> want(kLanes * 4);
  int ma[16][32], mb[32][8];
  uint32_t md[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 16; ++i) ma[place_a8(lane, i).row][place_a8(lane, i).column] = a[lane * 16 + i];
    for (int i = 0; i < 8; ++i) mb[place_b8(lane, i).row][place_b8(lane, i).column] = b[lane * 8 + i];
    for (int i = 0; i < 4; ++i)
      md[place_c(lane, i).row][place_c(lane, i).column] = static_cast<uint32_t>(c[lane * 4 + i]);
  }
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n)
      for (int k = 0; k < 32; ++k) md[m][n] += static_cast<uint32_t>(ma[m][k] * mb[k][n]);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i)
      want[lane * 4 + i] = static_cast<int>(md[place_c(lane, i).row][place_c(lane, i).column]);
  std::vector<uint32_t> ra(kLanes * 4), rb(kLanes * 2);
  std::memcpy(ra.data(), a.data(), a.size());
  std::memcpy(rb.data(), b.data(), b.size());
  DeviceBuffer<uint32_t> da(ra), db(rb);
  DeviceBuffer<int> dc(c), dd(kLanes * 4);
  launch({.grid = {1}, .block = {32}}, mma_kernel<Mma::s8, int>, da.data(), db.data(), dc.data(), dd.data());
  conforms("mma_m16n8k32_s8", dd.download(), want);
}

// ---- ldmatrix ----------------------------------------------------------------------------------
constexpr uint32_t kRows = 64;  // of 16 bytes

template <int Count, bool Trans>
__global__ void ldmatrix_kernel(const uint32_t* image, const uint32_t* row_of_lane, uint32_t* out) {
  auto* smem = reinterpret_cast<uint32_t*>(dyn_smem());
  for (uint32_t i = threadIdx.x; i < kRows * 4; i += 32) smem[i] = image[i];
  __syncthreads();
  const uint32_t addr = ptx::smem_u32(dyn_smem()) + row_of_lane[threadIdx.x] * 16;
  uint32_t r[Count];
  if constexpr (Count == 2 && !Trans)
    ptx::ldmatrix_x2(r, addr);
  else if constexpr (Count == 2)
    ptx::ldmatrix_x2_trans(r, addr);
  else if constexpr (!Trans)
    ptx::ldmatrix_x4(r, addr);
  else
    ptx::ldmatrix_x4_trans(r, addr);
  for (int i = 0; i < Count; ++i) out[threadIdx.x * Count + i] = r[i];
}

template <int Count, bool Trans>
void check_ldmatrix() {
  Random random(23);
  const auto image = random.integers<uint16_t>(kRows * 8, 65536);
  const auto rows = random.integers<uint32_t>(kLanes, kRows);
  std::vector<uint32_t> words(kRows * 4), want(kLanes * Count);
  std::memcpy(words.data(), image.data(), image.size() * 2);
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < Count; ++i) {
      // Row j of matrix i begins at the address of lane 8 i + j. A lane holds two neighbours of row lane / 4, columns
      // 2 (lane % 4) and the next; transposed, row and column change roles.
      uint32_t pair[2];
      for (int half = 0; half < 2; ++half) {
        const int across = lane % 4 * 2 + half, down = lane / 4;
        const int row = Trans ? across : down, column = Trans ? down : across;
        pair[half] = image[rows[i * 8 + row] * 8 + column];
      }
      want[lane * Count + i] = pair[0] | pair[1] << 16;
    }
  DeviceBuffer<uint32_t> dimage(words), drows(rows), out(kLanes * Count);
  launch({.grid = {1}, .block = {32}, .smem = kRows * 16}, ldmatrix_kernel<Count, Trans>, dimage.data(), drows.data(),
         out.data());
  conforms("ldmatrix_x" + std::to_string(Count) + (Trans ? "_trans" : ""), out.download(), want);
}
KW_TEST(ldmatrix_x2) { check_ldmatrix<2, false>(); }
KW_TEST(ldmatrix_x2_trans) { check_ldmatrix<2, true>(); }
KW_TEST(ldmatrix_x4) { check_ldmatrix<4, false>(); }
KW_TEST(ldmatrix_x4_trans) { check_ldmatrix<4, true>(); }

// ---- cp.async ----------------------------------------------------------------------------------
// Thread t copies min(t, Bytes) of Bytes bytes; three groups, of which the first two are waited for, then the last.
template <int Bytes>
__global__ void cp_async_kernel(const unsigned char* src, unsigned char* out) {
  unsigned char* smem = dyn_smem();
  const int t = static_cast<int>(threadIdx.x), bytes = min(t, Bytes);
  for (int group = 0; group < 3; ++group) {
    const int at = (group * 32 + t) * Bytes;
    const uint32_t dst = ptx::smem_u32(smem + at);
    if constexpr (Bytes == 4)
      ptx::cp_async_4(dst, src + at, bytes);
    else if constexpr (Bytes == 8)
      ptx::cp_async_8(dst, src + at, bytes);
    else
      ptx::cp_async_16(dst, src + at, bytes);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<1>();
  for (int i = 0; i < 2 * Bytes; ++i) {
    const int at = (i / Bytes * 32 + t) * Bytes + i % Bytes;
    out[at] = smem[at];
  }
  ptx::cp_async_wait<0>();
  for (int i = 0; i < Bytes; ++i) out[(2 * 32 + t) * Bytes + i] = smem[(2 * 32 + t) * Bytes + i];
}
template <int Bytes>
void check_cp_async() {
  const auto src = Random(24).integers<unsigned char>(3 * 32 * Bytes, 256);
  std::vector<unsigned char> want(src.size());
  for (int i = 0; i < 3 * 32 * Bytes; ++i) want[i] = i % Bytes < i / Bytes % 32 ? src[i] : 0;
  DeviceBuffer<unsigned char> dsrc(src), out(src.size());
  launch({.grid = {1}, .block = {32}, .smem = 3 * 32 * Bytes}, cp_async_kernel<Bytes>, dsrc.data(), out.data());
  conforms("cp_async_" + std::to_string(Bytes), out.download(), want);
}
KW_TEST(cp_async_4) { check_cp_async<4>(); }
KW_TEST(cp_async_8) { check_cp_async<8>(); }
KW_TEST(cp_async_16) { check_cp_async<16>(); }

// ---- barriers and flags ------------------------------------------------------------------------
// Warps 0 and 1 write and arrive, warps 2 and 3 sync and read, through barrier 15 and then back through barrier 1.
__global__ void named_barrier_kernel(const int* in, int* out) {
  KW_SHARED(int[64], there);
  KW_SHARED(int[64], back);
  const uint32_t t = threadIdx.x % 64;
  if (threadIdx.x < 64) {
    there[t] = in[t];
    ptx::named_bar_arrive(15, 128);
    ptx::named_bar_sync(1, 128);
    out[t] = back[63 - t];
  } else {
    ptx::named_bar_sync(15, 128);
    back[t] = there[63 - t] + 1;
    ptx::named_bar_arrive(1, 128);
  }
}
KW_TEST(named_barriers_order_memory) {
  const auto in = Random(25).integers<int>(64, 1000);
  auto want = in;
  for (int& v : want) v += 1;
  DeviceBuffer<int> din(in), out(64);
  launch({.grid = {1}, .block = {128}}, named_barrier_kernel, din.data(), out.data());
  conforms("named_bar", out.download(), want);
}

// Thread 0 of warp 0 waits for a release by each of the other warps.
__global__ void flag_kernel(unsigned* flag, int* data, int* out) {
  const int warp = static_cast<int>(threadIdx.x / 32);
  if (threadIdx.x % 32 != 0) return;
  if (warp != 0) {
    data[warp] = warp * 7;
    ptx::red_release_gpu(flag, 1);
    return;
  }
  for (unsigned arrived = 0; arrived != 3;) arrived = ptx::ld_acquire_gpu(flag);
  out[0] = data[1] + data[2] + data[3];
}
KW_TEST(release_and_acquire) {
  DeviceBuffer<unsigned> flag(std::vector<unsigned>{0});
  DeviceBuffer<int> data(4), out(1);
  launch({.grid = {1}, .block = {128}}, flag_kernel, flag.data(), data.data(), out.data());
  conforms("red_release_gpu", out.download(), {42});
}

}  // namespace
}  // namespace kw::test
