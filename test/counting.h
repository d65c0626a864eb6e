// How C++ tests count: expectations, and the closing line.
#pragma once
#include <cstdio>
#include <string>

namespace kw::test {

inline int passed = 0, failed = 0;

// Of failures the first hundred are printed, of a broken kernel there may be thousands.
inline void expect(bool ok, const std::string& what) {
  ++(ok ? passed : failed);
  if (!ok && failed <= 100) std::printf("FAILED %s\n", what.c_str());
}

// Prints the last line of a test program and gives its exit code.
inline int closing_line() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed ? 1 : 0;
}

}  // namespace kw::test
