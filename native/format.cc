// Which formats a backend takes, and packing on the CPU's threads.
#include "format.h"

#include <cstring>

#include "../kernels/core/packed.h"
#include "export.h"
#include "exports.h"
#include "handle.h"
#include "stream.h"

namespace kw {
namespace {

uint64_t wanted_format(const kw_op& entry, const Device& device, const char* operand, const TensorView& view) {
  return entry.format ? entry.format(&device.info(), operand, &view) : 0;
}

// { tag, bytes, text } of a packed view.
Napi::Object describe_packed(Napi::Env env, const TensorView& view) {
  auto packed = Napi::Object::New(env);
  packed.Set("tag", static_cast<double>(view.format));
  packed.Set("bytes", static_cast<double>(packed_bytes(view)));
  packed.Set("text", describe_format(view.format));
  return packed;
}

TensorView shape_of(Napi::Value dtype, Napi::Value shape) {
  TensorView view;
  view.dtype = static_cast<DType>(integer(dtype, "format", "dtype", 0, kDTypeCount - 1));
  if (!shape.IsArray()) refuse(Code::ARGUMENT, "format", "shape", "no array", "an array of whole numbers");
  const auto sizes = shape.As<Napi::Array>();
  if (sizes.Length() > kMaxRank) {
    refuse(Code::SHAPE, "format", "shape", std::to_string(sizes.Length()) + " numbers",
           "at most " + std::to_string(kMaxRank));
  }
  view.rank = static_cast<int32_t>(sizes.Length());
  for (int i = 0; i < view.rank; ++i) {
    view.shape[i] = integer(sizes.Get(static_cast<uint32_t>(i)), "format", "shape", 0, 9007199254740991.0);
  }
  return view;
}

Napi::Value packed_format(const Napi::CallbackInfo& info) {
  const Operator& op = get_operator(info[0].ToString());
  const std::shared_ptr<Device>& device = get_handle<Device>(info[2], "packedFormat");
  device->check_usable("packedFormat");
  const kw_op& entry = get_backend(op, info[1].ToString(), *device);
  const std::string operand = info[3].ToString();
  TensorView view = shape_of(info[4], info[5]);
  view.format = wanted_format(entry, *device, operand.c_str(), view);
  return view.format == 0 ? info.Env().Null() : describe_packed(info.Env(), view);
}

Napi::Value packed_extent(const Napi::CallbackInfo& info) {
  TensorView view = shape_of(info[0], info[1]);
  view.format = static_cast<uint64_t>(integer(info[2], "packedExtent", "format", 1, 9007199254740991.0));
  return describe_packed(info.Env(), view);
}

}  // namespace

void check_formats(const Operator& op, const kw_op& entry, const Device& device, const Arguments& arguments) {
  for (const Field& field : op.schema.fields) {
    if (!is_tensor(field)) continue;
    const TensorView view = tensor_at(arguments.data(), field);
    if (view.format == 0) continue;
    const bool definition = &entry == op.ref;
    const uint64_t wanted = wanted_format(definition ? *op.cpu : entry, device, field.name, view);
    if (wanted == view.format || (definition && wanted != 0)) continue;
    throw Error(Code::UNSUPPORTED, op.name + ": " + field.name + " is packed in " + describe_format(view.format) +
                                       ", expected " + (wanted ? describe_format(wanted) + " or plain" : "plain"));
  }
}

void copy_packed(Stream& stream, const TensorView& src, const TensorView& dst) {
  if (!stream.device->is_cpu() || src.dtype != dst.dtype || (src.format && dst.format && src.format != dst.format)) {
    throw Error(Code::UNSUPPORTED, std::string("copy: src is ") + name(src.dtype) + " in " +
                                       describe_format(src.format) + ", expected the dtype of dst, plain or in " +
                                       describe_format(dst.format) + ", on the CPU");
  }
  if (src.format == dst.format) {
    std::memcpy(dst.data, src.data, packed_bytes(dst));
    return;
  }
  const PackedExtent extent(dst.format ? dst : src);
  stream.device->threads().parallel_for(
      extent.matrices * extent.panels(),
      [&](int64_t begin, int64_t end, int) {
        dst.format ? pack_panels(src, dst, begin, end) : unpack_panels(src, dst, begin, end);
      },
      1);
}

void export_format(Napi::Object exports) {
  exported<packed_format>(exports, "packedFormat");
  exported<packed_extent>(exports, "packedExtent");
}

}  // namespace kw
