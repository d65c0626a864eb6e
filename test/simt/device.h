// Device memory for tests, the same on a GPU and in the emulator.
#pragma once
#include <cstring>
#include <vector>

#include "../../kernels/core/cuda/launch.cuh"

namespace kw::test {

// Filled with 0xff, so that what a kernel does not write shows.
template <class T>
class DeviceBuffer {
 public:
  explicit DeviceBuffer(size_t count) : count_(count) {
#if defined(KW_EMU)
    data_ = static_cast<T*>(emu::gmem_alloc(count * sizeof(T)));
#else
    cuda_check("cudaMalloc", cudaMalloc(&data_, count * sizeof(T)));
    cuda_check("cudaMemset", cudaMemset(data_, 0xff, count * sizeof(T)));
#endif
  }
  explicit DeviceBuffer(const std::vector<T>& v) : DeviceBuffer(v.size()) { upload(v); }
  DeviceBuffer(const DeviceBuffer&) = delete;
  ~DeviceBuffer() {
#if defined(KW_EMU)
    emu::gmem_free(data_);
#else
    cudaFree(data_);
#endif
  }

  T* data() { return data_; }
  size_t size() const { return count_; }

  void upload(const std::vector<T>& v) {
#if defined(KW_EMU)
    std::memcpy(static_cast<void*>(data_), v.data(), v.size() * sizeof(T));
#else
    cuda_check("cudaMemcpy", cudaMemcpy(data_, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice));
#endif
  }
  // Waits for the device first.
  std::vector<T> download() {
    std::vector<T> v(count_);
#if defined(KW_EMU)
    std::memcpy(static_cast<void*>(v.data()), data_, count_ * sizeof(T));
#else
    cuda_check("cudaMemcpy", cudaMemcpy(v.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
#endif
    return v;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

}  // namespace kw::test
