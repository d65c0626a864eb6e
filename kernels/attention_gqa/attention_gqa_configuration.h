// The names of attention_gqa's CUDA kernels, and what asks for one of them: KERNWATT_ATTENTION_GQA or a configuration, NAME or
// NAME/SPLITS. Host code without CUDA.
#pragma once
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "attention_gqa_sm90.h"

namespace kw::attention_gqa_cuda {

// Those for every compute capability: tiles of bf16 and f16 in the order of their rows, f32.
inline constexpr const char* kPortableKernels[] = {"mma_16", "mma_64", "mma_128", "fma_32"};

inline bool is_portable(std::string_view name) {
  return std::find(std::begin(kPortableKernels), std::end(kPortableKernels), name) != std::end(kPortableKernels);
}

inline std::vector<const char*> kernel_names() {
  std::vector<const char*> names(std::begin(kPortableKernels), std::end(kPortableKernels));
  for (const Sm90Configuration& c : kSm90Configurations) names.push_back(c.name);
  return names;
}

struct Wish {
  const char* by = nullptr;  // what said it; null: nothing is wished for
  std::string text;          // as it was said
  std::string name;          // of a kernel
  int splits = 0;            // of the keys over blocks; 0: any number

  explicit operator bool() const { return by; }
  bool allows(std::string_view kernel, int64_t splits_of_it) const {
    return !by || (name == kernel && (splits == 0 || splits == splits_of_it));
  }
};

// What follows a slash, where it is no number of splits, stays with the name, which then is that of no kernel.
inline Wish wish_of(const char* by, const std::string& text) {
  Wish wish{by, text, text, 0};
  const size_t slash = text.find('/');
  if (slash == std::string::npos) return wish;
  char* end = nullptr;
  const long splits = std::strtol(text.c_str() + slash + 1, &end, 10);
  if (*end || splits < 1 || splits > 1000) return wish;
  wish.name.resize(slash), wish.splits = static_cast<int>(splits);
  return wish;
}

inline std::string configuration_name(const char* kernel, int64_t splits) {
  return splits > 1 ? std::string(kernel) + '/' + std::to_string(splits) : kernel;
}

}  // namespace kw::attention_gqa_cuda
