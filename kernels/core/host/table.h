// Opening a library of kernels (libkernwatt_cuda.so, libkernwatt_emu.so) and checking that it speaks this interface.
#pragma once
#include <string>

#include "../abi.h"
#include "../error.h"

namespace kw {

// Never closed: a library's threads and contexts outlive who opened it. Throws LIBRARY with the loader's or the library's
// reason, `library: <path>: <reason>`.
const kw_table& open_table(const std::string& path);

// Null when the library has no such operator.
const kw_op* find_op(const kw_table& table, const std::string& name);

// The code of a status, INTERNAL for one that is none.
Code code_of(int32_t status);

}  // namespace kw
