// Deliberate faults: `if (KW_FAULT == 3)` in a test kernel does something wrong on purpose, so that the fault list
// (test/simt/faults.cc) can check that the emulator notices. 0, the only value on a GPU, is the correct kernel.
#pragma once

#if defined(KW_EMU)
namespace kw::test {
extern int current_fault;
}
#define KW_FAULT ::kw::test::current_fault
#else
#define KW_FAULT 0
#endif
