// Stacks and switching between them: 15 instructions on x86-64, ucontext elsewhere or with KW_EMU_UCONTEXT. Tells
// AddressSanitizer about every switch.
#pragma once
#include <cstddef>

namespace kw::emu {

// A stack to run on, or (without one) the OS thread's own.
class Context {
 public:
  Context() = default;
  Context(const Context&) = delete;
  ~Context();
  // Makes the next switch to this context call entry(), which must never return. Allocates the stack the first time.
  void prepare(void (*entry)());
  // For the context without a stack: the thread that will call switch_to.
  void adopt_thread_stack();
  // `final`: this context will not be resumed. A new context's entry() calls entered() first.
  void switch_to(Context& to, bool final);
  static void entered();
  bool owns(const void* p) const { return static_cast<size_t>(static_cast<const char*>(p) - stack_) < size_; }
  char* stack_top() const { return stack_ + size_; }
  void forget_poison();  // after fibers were abandoned in mid-call

 private:
  void* sp_ = nullptr;  // saved stack pointer, or a ucontext_t
  char* stack_ = nullptr;
  size_t size_ = 0;
  void* fake_stack_ = nullptr;          // AddressSanitizer's
  const void* thread_stack_ = nullptr;  // of a context without a stack of its own, for AddressSanitizer
  size_t thread_stack_size_ = 0;
};

inline constexpr size_t kStackBytes = 128 << 10;

}  // namespace kw::emu
