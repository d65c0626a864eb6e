// What the addon knows of an operator, whatever it computes: its arguments, its definition and its backends.
#pragma once
#include <string>
#include <vector>

#include "../kernels/core/abi.h"
#include "../kernels/core/host/definitions.h"
#include "device.h"

namespace kw {

struct Operator : Definition {
  const kw_op* ref;
  const kw_op* cpu;
};

const std::vector<Operator>& operators();
// Throws ARGUMENT when there is none.
const Operator& get_operator(const std::string& name);

// The entry of a backend for a device. Throws ARGUMENT for a backend that does not go with the device, UNSUPPORTED for a
// library without the operator.
const kw_op& get_backend(const Operator& op, const std::string& backend, const Device& device);
// Throws what a failed call of an entry on that device means.
void check_backend(const Device& device, int32_t status);

}  // namespace kw
