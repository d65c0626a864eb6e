// Which kernels a thread launches, noted while somebody asks (kw_table's trace). Host only.
#pragma once
#include <vector>

namespace kw {

struct LaunchTrace {
  bool on = false;
  std::vector<const void*> kernels;  // with repetitions
};
inline thread_local LaunchTrace launch_trace;

}  // namespace kw
