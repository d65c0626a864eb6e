// See fiber.h.
#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#include <pthread.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(KW_EMU_UCONTEXT) || !defined(__x86_64__)
#define KW_USE_UCONTEXT 1
#include <ucontext.h>
#else
#define KW_USE_UCONTEXT 0
#endif

namespace kw::emu {
namespace {

constexpr size_t kGuard = 4096;
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kStack = 4 * kStackBytes;  // red zones make frames larger
#else
constexpr size_t kStack = kStackBytes;
#endif

}  // namespace

#if KW_USE_UCONTEXT
static void swap_stacks(void** save, void* to) {
  if (!*save) *save = new ucontext_t;
  swapcontext(static_cast<ucontext_t*>(*save), static_cast<ucontext_t*>(to));
}
#else
// Saves the callee-saved registers on the old stack and takes them from the new one.
extern "C" __attribute__((visibility("hidden"))) void kw_emu_swap_stacks(void** save, void* to);
asm(R"(
.text
.globl kw_emu_swap_stacks
.hidden kw_emu_swap_stacks
.type kw_emu_swap_stacks,@function
kw_emu_swap_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size kw_emu_swap_stacks,.-kw_emu_swap_stacks
)");
static void swap_stacks(void** save, void* to) { kw_emu_swap_stacks(save, to); }
#endif

Context::~Context() {
#if KW_USE_UCONTEXT
  delete static_cast<ucontext_t*>(sp_);
#endif
  if (stack_) munmap(stack_ - kGuard, size_ + kGuard);
}

void Context::prepare(void (*entry)()) {
  if (!stack_) {
    void* p =
        mmap(nullptr, kStack + kGuard, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    mprotect(p, kGuard, PROT_NONE);
    stack_ = static_cast<char*>(p) + kGuard;
    size_ = kStack;
  }
#if KW_USE_UCONTEXT
  auto* context = sp_ ? static_cast<ucontext_t*>(sp_) : new ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = stack_;
  context->uc_stack.ss_size = size_;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  sp_ = context;
#else
  auto* top = reinterpret_cast<uintptr_t*>(stack_ + size_);
  *--top = 0;  // the return address of entry, which never returns
  *--top = reinterpret_cast<uintptr_t>(entry);
  for (int i = 0; i < 6; ++i) *--top = 0;  // callee-saved registers
  sp_ = top;
#endif
  fake_stack_ = nullptr;
}

void Context::adopt_thread_stack() {
#if defined(__SANITIZE_ADDRESS__)
  pthread_attr_t attributes;
  void* bottom = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes)) return;
  pthread_attr_getstack(&attributes, &bottom, &thread_stack_size_);
  pthread_attr_destroy(&attributes);
  thread_stack_ = bottom;
#endif
}

void Context::switch_to(Context& to, [[maybe_unused]] bool final) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(final ? nullptr : &fake_stack_, to.stack_ ? to.stack_ : to.thread_stack_,
                                 to.stack_ ? to.size_ : to.thread_stack_size_);
#endif
  swap_stacks(&sp_, to.sp_);
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake_stack_, nullptr, nullptr);
#endif
}

void Context::entered() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

void Context::forget_poison() {
#if defined(__SANITIZE_ADDRESS__)
  if (stack_) __asan_unpoison_memory_region(stack_, size_);
#endif
}

}  // namespace kw::emu
