// JavaScript object -> kernel argument struct, for every operator at once, by its schema (kernels/core/host/schema.h).
#pragma once
#include <napi.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "../kernels/core/host/schema.h"
#include "buffer.h"

namespace kw {

// A filled Args struct and the buffers its views point into.
struct Arguments {
  std::vector<std::byte> bytes;
  std::vector<std::shared_ptr<Buffer>> buffers;

  const void* data() const { return bytes.data(); }
  // Belongs to JavaScript, at least in part (Memory::external).
  bool external() const;
};

// Fills an Args struct from { field: NativeView | number | boolean | choice index | undefined }. A scalar left out keeps
// its default. Throws ARGUMENT, SHAPE, DTYPE, DISPOSED as `<op>: <field> ...`.
// stream: the work's, where it is known already.
Arguments read_arguments(const Schema& schema, Napi::Value object, const Device& device, const char* op,
                         const Stream* stream = nullptr);

// NativeOp.fields of src/native.ts.
Napi::Array describe_fields(Napi::Env env, const Schema& schema);

}  // namespace kw
