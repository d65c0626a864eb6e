// Which kernels compute attention on a CPU, forward or backward: there is a set for each instruction set and dtype, and every set that
// the CPU runs is a configuration by the name of its instruction set.
#pragma once
#include <string>
#include <vector>

#include "../core/cpu/features.h"
#include "../core/error.h"
#include "../core/tensor.h"

namespace kw::cpu {

template <class Kernels>
struct KernelSets {
  const Kernels* generic;  // this and the next two by dtype: f32, f16, bf16
  const Kernels* avx2 = nullptr;
  const Kernels* avx512 = nullptr;
  const Kernels* avx512_bf16 = nullptr;  // of bf16

  // The one that is taken unasked first.
  std::vector<const Kernels*> all(Isa isa, DType dtype) const {
    const int index = static_cast<int>(dtype);
    const bool dot = isa >= Isa::avx512_bf16 && dtype == DType::bf16, dot_first = dot && dot_bf16_pays();
    std::vector<const Kernels*> sets;
    if (dot_first) sets.push_back(avx512_bf16);
    if (isa >= Isa::avx512) sets.push_back(avx512 + index);
    if (dot && !dot_first) sets.push_back(avx512_bf16);
    if (isa >= Isa::avx2) sets.push_back(avx2 + index);
    if (sets.empty()) sets.push_back(generic + index);
    return sets;
  }

  // invariant: what would round otherwise is no choice.
  std::vector<std::string> configurations(Isa isa, DType dtype, bool invariant) const {
    std::vector<std::string> names;
    for (const Kernels* kernels : all(isa, dtype)) names.push_back(kernels->isa);
    if (invariant) names.resize(1);
    return names;
  }

  // configuration: one of configurations(), or empty. where: the operator that asks.
  const Kernels& of(const std::string& where, Isa isa, DType dtype, bool invariant,
                    const std::string& configuration) const {
    const auto sets = all(isa, dtype);
    if (configuration.empty()) return *sets[0];
    std::string names;
    for (const std::string& name : configurations(isa, dtype, invariant)) {
      for (const Kernels* kernels : sets)
        if (name == configuration && name == kernels->isa) return *kernels;
      names += (names.empty() ? "" : ", ") + name;
    }
    throw Error(Code::UNSUPPORTED, where + ": configuration is " + configuration + ", expected one of " + names);
  }
};

}  // namespace kw::cpu
