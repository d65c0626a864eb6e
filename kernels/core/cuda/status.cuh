// The kernel's side of status.h.
#pragma once
#include "launch.cuh"
#include "status.h"

namespace kw {

// Leaves a record unless there is one. `what` is passed on and never read here; columns: StreamStatus has them.
KW_DEVICE void report_index(StreamStatus* status, const char* const* what, int index, int64_t value, int64_t lowest,
                            int64_t highest, int columns = 0) {
  if (!status || atomicCAS(&status->state, 0u, 1u) != 0) return;
  status->index = index;
  status->columns = columns;
  status->value = value;
  status->lowest = lowest;
  status->highest = highest;
  status->what = what;
  __threadfence_system();
  atomicExch(&status->state, 2u);
}

}  // namespace kw
