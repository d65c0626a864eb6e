// What each file adds to the addon's exports; src/native.ts describes them.
#pragma once
#include <napi.h>

namespace kw {

void export_library(Napi::Object exports);
void export_device(Napi::Object exports);
void export_stream(Napi::Object exports);
void export_buffer(Napi::Object exports);
void export_host_memory(Napi::Object exports);
void export_transfer(Napi::Object exports);
void export_format(Napi::Object exports);
void export_fill(Napi::Object exports);
void export_quantize(Napi::Object exports);
void export_ops(Napi::Object exports);
void export_plan(Napi::Object exports);
void export_check(Napi::Object exports);
void export_sample(Napi::Object exports);
void export_meter(Napi::Object exports);
void export_nvml(Napi::Object exports);

}  // namespace kw
