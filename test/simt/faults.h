// The deliberate-fault list. See faults.cc.
#pragma once

namespace kw::test {

struct Counts {
  int passed = 0, failed = 0;
};
// Runs every fault and control under the columns this build can judge, prints the table, and counts what must hold.
Counts run_faults(bool race_build);
// Correct kernels under every schedule, completion time and seeds 1 .. seeds: nothing may be reported.
Counts run_soak(bool race_build, int seeds);

}  // namespace kw::test
