// Conformance of wgmma and setmaxnreg: operand layouts of every swizzle mode and major-ness, A from shared memory and from
// registers, every N listed in wgmma.inc, against conformance.h. Layouts: the canonical forms of the CuTe comments in
// "mma_sm90_desc", in units of 16 bytes, written out as sums.
#include "../../../kernels/core/cuda/ptx.cuh"
#include "../conformance.h"

namespace kw::test {
namespace {

constexpr uint32_t kOperandBytes = 32768;  // room for B with N = 256, and as much for A

// One operand [extent][16] in shared memory; the contiguous dimension is K, or with mn_major the other.
struct Layout {
  Swizzle swizzle;
  bool mn_major;
  uint32_t lbo, sbo;  // bytes

  // Byte address, from the operand's base, of element (mn, k).
  uint32_t address(uint32_t mn, uint32_t k) const {
    const uint32_t span = 16u << static_cast<uint32_t>(swizzle);  // 16, 32, 64 or 128 bytes
    uint32_t a;
    if (!mn_major && swizzle == Swizzle::none)
      a = mn % 8 * 16 + mn / 8 * sbo + k / 8 * lbo + k % 8 * 2;
    else if (!mn_major)
      a = mn % 8 * span + mn / 8 * sbo + k * 2;
    else if (swizzle == Swizzle::none)
      a = mn % 8 * 2 + mn / 8 * sbo + k % 8 * 16 + k / 8 * lbo;
    else
      a = mn % (span / 2) * 2 + mn / (span / 2) * lbo + k % 8 * span + k / 8 * sbo;
    return swizzle_address(a, swizzle);
  }
};

// Strides that keep `extent` x 16 elements apart, with gaps.
Layout layout_for(Swizzle swizzle, bool mn_major, uint32_t extent) {
  const uint32_t span = 16u << static_cast<uint32_t>(swizzle), atom = 8 * span;
  if (swizzle == Swizzle::none) {
    // Core matrices of 128 bytes: all of one k half (plus a gap), then the other.
    const uint32_t step = 128, half = (extent / 8) * step + 256;
    return {swizzle, mn_major, half, step};
  }
  if (!mn_major) return {swizzle, false, 16, atom};
  const uint32_t columns = (extent * 2 + span - 1) / span;
  return {swizzle, true, 2 * atom, columns > 1 ? atom : 2 * atom};  // lbo along mn, sbo along k
}

template <class T, int N, int TransA, int TransB>
__global__ void __launch_bounds__(128) ss_kernel(const uint32_t* image, uint32_t lbo_a, uint32_t sbo_a, uint32_t lbo_b,
                                                 uint32_t sbo_b, int swizzle_a, int swizzle_b, float* out) {
  auto* smem = reinterpret_cast<uint32_t*>(dyn_smem());
  for (uint32_t i = threadIdx.x; i < 2 * kOperandBytes / 4; i += 128) smem[i] = image[i];
  ptx::fence_proxy_async();
  __syncthreads();
  const uint32_t a = ptx::smem_u32(dyn_smem()), b = a + kOperandBytes;
  const uint64_t da = ptx::wgmma_desc(a, lbo_a, sbo_a, static_cast<Swizzle>(swizzle_a));
  const uint64_t db = ptx::wgmma_desc(b, lbo_b, sbo_b, static_cast<Swizzle>(swizzle_b));
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 1.f;
  ptx::wgmma_fence();
  ptx::wgmma_ss<T, N, TransA, TransB>(d, da, db, 0);  // overwrites
  ptx::wgmma_ss<T, N, TransA, TransB>(d, da, db, 1);  // adds
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) out[threadIdx.x * (N / 2) + i] = d[i];
}

template <class T, int N, int TransB>
__global__ void __launch_bounds__(128) rs_kernel(const uint32_t* image, const uint32_t* fragments, uint32_t lbo_b,
                                                 uint32_t sbo_b, int swizzle_b, float* out) {
  auto* smem = reinterpret_cast<uint32_t*>(dyn_smem());
  for (uint32_t i = threadIdx.x; i < 2 * kOperandBytes / 4; i += 128) smem[i] = image[i];
  ptx::fence_proxy_async();
  __syncthreads();
  const uint64_t db =
      ptx::wgmma_desc(ptx::smem_u32(dyn_smem()) + kOperandBytes, lbo_b, sbo_b, static_cast<Swizzle>(swizzle_b));
  uint32_t a[4];
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i) a[i] = fragments[threadIdx.x * 4 + i];
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 1.f;
  ptx::wgmma_fence();
  ptx::wgmma_rs<T, N, TransB>(d, a, db, 1);  // adds to what was there
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>(d);
  ptx::wgmma_release(a);
#pragma unroll
  for (int i = 0; i < N / 2; ++i) out[threadIdx.x * (N / 2) + i] = d[i];
}

template <class T, int N, int TransA, int TransB>
void check_wgmma(Swizzle swizzle_a, Swizzle swizzle_b, bool integers) {
  constexpr bool kF16 = std::is_same_v<T, __half>;
  Random random(40 + N);
  std::vector<uint16_t> a(64 * 16), b(static_cast<size_t>(N) * 16);
  for (auto& x : a) x = random_16(random, kF16, integers);
  for (auto& x : b) x = random_16(random, kF16, integers);
  const Layout la = layout_for(swizzle_a, TransA, 64), lb = layout_for(swizzle_b, TransB, N);
  std::vector<uint16_t> image(kOperandBytes, 0x7fff);  // NaN wherever no element belongs
  for (uint32_t k = 0; k < 16; ++k) {
    for (uint32_t m = 0; m < 64; ++m) image.at(la.address(m, k) / 2) = a[m * 16 + k];
    for (uint32_t n = 0; n < N; ++n) image.at((kOperandBytes + lb.address(n, k)) / 2) = b[n * 16 + k];
  }
  std::vector<float> want_ss(128 * N / 2), want_rs(want_ss.size());
  for (int thread = 0; thread < 128; ++thread)
    for (int i = 0; i < N / 2; ++i) {
      const Place at = place_d64(thread, i);
      double sum = 0;
      for (int k = 0; k < 16; ++k)
        sum += double{from_16(a[at.row * 16 + k], kF16)} * from_16(b[at.column * 16 + k], kF16);
      want_ss[thread * (N / 2) + i] = static_cast<float>(2 * sum);
      want_rs[thread * (N / 2) + i] = static_cast<float>(1 + sum);
    }
  std::vector<uint32_t> fragments(128 * 4), words(2 * kOperandBytes / 4);
  for (int thread = 0; thread < 128; ++thread)
    for (int i = 0; i < 8; ++i) {
      const Place at = place_a16(thread % 32, i);
      const uint32_t bits16 = a[(thread / 32 * 16 + at.row) * 16 + at.column];
      fragments[thread * 4 + i / 2] |= bits16 << (i % 2 * 16);
    }
  std::memcpy(words.data(), image.data(), image.size() * 2);

  DeviceBuffer<uint32_t> dimage(words), dfragments(fragments);
  DeviceBuffer<float> out(want_ss.size());
  const std::string name = std::string(kF16 ? "f16" : "bf16") + " n" + std::to_string(N) + " a " + name_of(swizzle_a) +
                           (TransA ? " M" : " K") + " b " + name_of(swizzle_b) + (TransB ? " N" : " K") +
                           (integers ? " integers" : "");
  const LaunchConfig config{.grid = {1}, .block = {128}, .smem = 2 * kOperandBytes};
  prepare(ss_kernel<T, N, TransA, TransB>, config.smem);
  launch(config, ss_kernel<T, N, TransA, TransB>, dimage.data(), la.lbo, la.sbo, lb.lbo, lb.sbo,
         static_cast<int>(swizzle_a), static_cast<int>(swizzle_b), out.data());
  conforms("wgmma_ss " + name, out.download(), want_ss, integers ? 0 : 1e-5);
  if (TransA) return;  // registers have no major-ness
  prepare(rs_kernel<T, N, TransB>, config.smem);
  launch(config, rs_kernel<T, N, TransB>, dimage.data(), dfragments.data(), lb.lbo, lb.sbo, static_cast<int>(swizzle_b),
         out.data());
  conforms("wgmma_rs " + name, out.download(), want_rs, integers ? 0 : 1e-5);
}

template <class T, int N>
void check_majors(Swizzle a, Swizzle b) {
  check_wgmma<T, N, 0, 0>(a, b, true);
  check_wgmma<T, N, 0, 1>(a, b, true);
  check_wgmma<T, N, 1, 0>(a, b, true);
  check_wgmma<T, N, 1, 1>(a, b, true);
}

KW_TEST_SM90(wgmma_swizzle_modes) {
  for (const Swizzle a : {Swizzle::none, Swizzle::b32, Swizzle::b64, Swizzle::b128}) {
    check_majors<__nv_bfloat16, 64>(a, a);
    check_majors<__nv_bfloat16, 64>(a, Swizzle::b128);
  }
  check_majors<__half, 128>(Swizzle::b128, Swizzle::b64);
}
template <int... N>
void check_every_n() {
  (check_wgmma<__nv_bfloat16, N, 0, 0>(Swizzle::b128, Swizzle::b128, true), ...);
  (check_wgmma<__half, N, 0, 0>(Swizzle::b128, Swizzle::b128, true), ...);
}
KW_TEST_SM90(wgmma_every_n) { check_every_n<8, 16, 32, 64, 80, 96, 128, 176, 192, 256>(); }
KW_TEST_SM90(wgmma_rounding) {
  check_wgmma<__nv_bfloat16, 128, 0, 0>(Swizzle::b128, Swizzle::b128, false);
  check_wgmma<__half, 128, 0, 1>(Swizzle::b128, Swizzle::b128, false);
}

// Two groups in flight on two accumulators; the older is waited for alone.
__global__ void __launch_bounds__(128) groups_kernel(const uint32_t* image, float* out) {
  auto* smem = reinterpret_cast<uint32_t*>(dyn_smem());
  for (uint32_t i = threadIdx.x; i < 2 * kOperandBytes / 4; i += 128) smem[i] = image[i];
  ptx::fence_proxy_async();
  __syncthreads();
  const uint32_t a = ptx::smem_u32(dyn_smem()), b = a + kOperandBytes;
  const uint64_t da = ptx::wgmma_desc(a, 16, 1024, Swizzle::b128), db = ptx::wgmma_desc(b, 16, 1024, Swizzle::b128);
  float first[4], second[4];
  ptx::wgmma_fence();
  ptx::wgmma_ss<__nv_bfloat16, 8>(first, da, db, 0);
  ptx::wgmma_commit();
  ptx::wgmma_ss<__nv_bfloat16, 8>(second, da, db, 0);
  ptx::wgmma_commit();
  ptx::wgmma_wait<1>(first);
  out[threadIdx.x * 2] = first[0] + first[1] + first[2] + first[3];
  ptx::wgmma_wait<0>(second);
  out[threadIdx.x * 2 + 1] = second[0] + second[1] + second[2] + second[3];
}
KW_TEST_SM90(wgmma_groups) {
  std::vector<uint16_t> image(kOperandBytes, 0x3f80);  // ones
  std::vector<uint32_t> words(2 * kOperandBytes / 4);
  std::memcpy(words.data(), image.data(), image.size() * 2);
  DeviceBuffer<uint32_t> dimage(words);
  DeviceBuffer<float> out(256);
  prepare(groups_kernel, 2 * kOperandBytes);
  launch({.grid = {1}, .block = {128}, .smem = 2 * kOperandBytes}, groups_kernel, dimage.data(), out.data());
  conforms("wgmma_wait<1>", out.download(), std::vector<float>(256, 64));
}

// One warpgroup gives registers up, the other takes them.
__global__ void __launch_bounds__(256, 1) registers_kernel(unsigned* out) {
  if (threadIdx.x < 128)
    ptx::reg_dec<40>();
  else
    ptx::reg_inc<232>();
  out[threadIdx.x] = threadIdx.x;
}
// Two warpgroups by turns, each told by the other through a named barrier that its turn has come, while a third has given its
// registers up: the accumulators that only one may use at a time are filled in the order of the turns.
__global__ void __launch_bounds__(384, 1) turns_kernel(const uint32_t* image, int* order, float* out) {
  auto* smem = reinterpret_cast<uint32_t*>(dyn_smem());
  for (uint32_t i = threadIdx.x; i < 2 * kOperandBytes / 4; i += 384) smem[i] = image[i];
  ptx::fence_proxy_async();
  KW_SHARED(int, turn);
  if (threadIdx.x == 0) turn = 0;
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 2) {
    ptx::reg_dec<24>();
    return;
  }
  ptx::reg_inc<240>();
  const uint32_t a = ptx::smem_u32(dyn_smem()), b = a + kOperandBytes;
  const uint64_t da = ptx::wgmma_desc(a, 16, 1024, Swizzle::b128), db = ptx::wgmma_desc(b, 16, 1024, Swizzle::b128);
  float d[4] = {0, 0, 0, 0};
  if (group == 0) ptx::named_bar_arrive(1, 256);
#pragma unroll 1
  for (int round = 0; round < 5; ++round) {
    if (group == 0)
      ptx::named_bar_sync(1, 256);
    else
      ptx::named_bar_sync(2, 256);
    if (threadIdx.x % 128 == 0) order[turn++] = group;
    ptx::wgmma_fence();
    ptx::wgmma_ss<__nv_bfloat16, 8>(d, da, db, 1);
    ptx::wgmma_commit();
    if (group == 0)
      ptx::named_bar_arrive(2, 256);
    else
      ptx::named_bar_arrive(1, 256);
    ptx::wgmma_wait<0>(d);
  }
  out[threadIdx.x] = d[0] + d[1] + d[2] + d[3];
}
KW_TEST_SM90(warpgroups_take_turns) {
  std::vector<uint16_t> image(kOperandBytes, 0x3f80);  // ones
  std::vector<uint32_t> words(2 * kOperandBytes / 4);
  std::memcpy(words.data(), image.data(), image.size() * 2);
  DeviceBuffer<uint32_t> dimage(words);
  DeviceBuffer<int> order(10);
  DeviceBuffer<float> out(256);
  prepare(turns_kernel, 2 * kOperandBytes);
  launch({.grid = {1}, .block = {384}, .smem = 2 * kOperandBytes}, turns_kernel, dimage.data(), order.data(),
         out.data());
  conforms("turns by named barriers", order.download(), std::vector<int>{0, 1, 0, 1, 0, 1, 0, 1, 0, 1});
  conforms("wgmma by turns", out.download(), std::vector<float>(256, 5 * 64));
}
KW_TEST_SM90(setmaxnreg) {
  DeviceBuffer<unsigned> out(256);
  launch({.grid = {1}, .block = {256}}, registers_kernel, out.data());
  std::vector<unsigned> want(256);
  for (unsigned i = 0; i < 256; ++i) want[i] = i;
  conforms("setmaxnreg", out.download(), want);
}

}  // namespace
}  // namespace kw::test
