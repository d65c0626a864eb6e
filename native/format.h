// Packed operands (kernels/core/packed.h) between JavaScript and kernels.
#pragma once
#include "args.h"
#include "ops.h"

namespace kw {

// Throws UNSUPPORTED unless the entry takes every argument in the format it has. The definition takes any that the CPU
// backend has.
void check_formats(const Operator& op, const kw_op& entry, const Device& device, const Arguments& arguments);

// dst = src where one of them is packed, or both alike, with the stream's threads. Throws UNSUPPORTED for other pairs.
void copy_packed(Stream& stream, const TensorView& src, const TensorView& dst);

}  // namespace kw
