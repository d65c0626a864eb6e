// Global memory: which addresses a kernel may touch, guard pages, and bad addresses turned into diagnoses.
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#include "runtime.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#define KW_CATCH_FAULTS 1
#include <ucontext.h>
#else
#define KW_CATCH_FAULTS 0
#endif

namespace kw::emu {
namespace {

constexpr size_t kPage = 4096, kAlign = 256;

struct Buffer {
  size_t size = 0;          // what the kernel may touch
  void* mapping = nullptr;  // null when only registered
  size_t mapped = 0;
};
using Buffers = std::map<uintptr_t, Buffer>;

// Launches read a copy of their own, refreshed when the version moved, so that a lookup takes no lock.
struct Registry {
  std::mutex mutex;
  Buffers buffers;
  std::atomic<uint64_t> version{1};
};
Registry& registry() {
  static Registry* r = new Registry;  // never destroyed: streams may outlive static destructors
  return *r;
}

const Buffers& buffers() {
  static thread_local Buffers mine;
  static thread_local uint64_t version = 0;
  Registry& r = registry();
  if (version != r.version.load(std::memory_order_acquire)) {
    const std::lock_guard lock(r.mutex);
    mine = r.buffers;
    version = r.version.load(std::memory_order_relaxed);
  }
  return mine;
}

void insert(uintptr_t p, Buffer b) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  r.buffers[p] = b;
  r.version.fetch_add(1, std::memory_order_release);
}

Buffer erase(const void* p) {
  Registry& r = registry();
  const std::lock_guard lock(r.mutex);
  const auto found = r.buffers.find(reinterpret_cast<uintptr_t>(p));
  if (found == r.buffers.end()) throw kw::Error(Code::ARGUMENT, "gmem_free: the pointer is not a device buffer's");
  const Buffer b = found->second;
  r.buffers.erase(found);
  r.version.fetch_add(1, std::memory_order_release);
  return b;
}

}  // namespace

#if defined(__SANITIZE_ADDRESS__)
void* gmem_alloc(size_t bytes) {  // of the exact size, for the red zones
  void* p = nullptr;
  if (posix_memalign(&p, kAlign, bytes ? bytes : 1)) throw std::bad_alloc();
  std::memset(p, 0xff, bytes);
  insert(reinterpret_cast<uintptr_t>(p), {bytes, p, 0});
  return p;
}

void gmem_free(void* p) {
  if (p) std::free(erase(p).mapping);
}
#else
// The end is flush, up to the alignment, with a guard page; another lies before the first page.
void* gmem_alloc(size_t bytes) {
  const size_t padded = (bytes + kAlign - 1) / kAlign * kAlign, pages = (padded + kPage - 1) / kPage * kPage;
  void* mapping = mmap(nullptr, pages + 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  char* first = static_cast<char*>(mapping) + kPage;
  if (mprotect(first, pages, PROT_READ | PROT_WRITE)) {
    munmap(mapping, pages + 2 * kPage);
    throw std::bad_alloc();
  }
  char* p = first + pages - padded;
  std::memset(p, 0xff, bytes);
  insert(reinterpret_cast<uintptr_t>(p), {bytes, mapping, pages + 2 * kPage});
  return p;
}

void gmem_free(void* p) {
  if (!p) return;
  const Buffer b = erase(p);
  munmap(b.mapping, b.mapped);
}
#endif

void gmem_register(const void* p, size_t bytes) { insert(reinterpret_cast<uintptr_t>(p), {bytes, nullptr, 0}); }
void gmem_unregister(const void* p) { erase(p); }

bool gmem_contains(const void* p, size_t size) {
  const auto a = reinterpret_cast<uintptr_t>(p);
  const Buffers& all = buffers();
  auto it = all.upper_bound(a);
  if (it == all.begin()) return false;
  --it;
  return a + size <= it->first + it->second.size;
}

bool gmem_near(uintptr_t p) {
  const Buffers& all = buffers();
  auto it = all.upper_bound(p + kPage);
  if (it == all.begin()) return false;
  --it;
  return p + kPage > it->first && p < it->first + it->second.size + kPage;
}

std::string describe_gmem(uintptr_t p) {
  const Buffers& all = buffers();
  const auto after = all.upper_bound(p);
  const auto n = [](uintptr_t v) { return std::to_string(v); };
  if (after != all.begin()) {
    const auto& [begin, b] = *std::prev(after);
    if (p < begin + b.size) return n(p - begin) + " bytes into a device buffer of " + n(b.size);
    if (p < begin + b.size + (1 << 20))
      return n(p - begin - b.size) + " bytes past the end of a device buffer of " + n(b.size);
  }
  if (after != all.end() && p + (1 << 20) > after->first)
    return n(after->first - p) + " bytes before a device buffer of " + n(after->second.size);
  return "far from every device buffer";
}

void check_gmem(const void* p, size_t size, const char* what, Loc loc) {
  if (size && !gmem_contains(p, size))
    fail("gmem out of bounds",
         std::string(what) + " of " + std::to_string(size) + " bytes, " + describe_gmem(reinterpret_cast<uintptr_t>(p)),
         loc);
}

void thread_fence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

void red_release(unsigned* p, unsigned value) {
  if (rt->opt.race) release(rt->running, rt->flags[p]);
  __atomic_fetch_add(p, value, __ATOMIC_RELEASE);
}

unsigned ld_acquire(const unsigned* p, Loc loc) {
  yield_point(loc);
  const unsigned value = __atomic_load_n(p, __ATOMIC_ACQUIRE);
  if (const auto flag = rt->flags.find(p); flag != rt->flags.end()) acquire(rt->running, flag->second);
  return value;
}

#if KW_CATCH_FAULTS
namespace {

struct sigaction previous_segv, previous_bus;

// Runs on the fiber's own stack, from its top: whatever was on it is abandoned.
[[noreturn]] void report_fault() {
  const uintptr_t a = rt->fault_address;
  Fiber* f = rt->running;
  const auto stack = reinterpret_cast<uintptr_t>(f->context.stack_top());
  const bool overflow = a < stack && stack - a <= kStackBytes + kPage && stack - a > kStackBytes - 64;
  try {
    fail_for(f, "fault",
             overflow ? "the thread's local variables exceed the emulator's stack of " + std::to_string(kStackBytes)
                      : "load or store at a bad address, " + describe_gmem(a),
             Loc{nullptr, 0, static_cast<const char*>(rt->fault_pc) + 1});
  } catch (const Failure& e) {
    rt->error = e.what();
  }
  switch_to(nullptr);
  std::abort();
}

void on_fault(int signal, siginfo_t* info, void* machine) {
  auto* context = static_cast<ucontext_t*>(machine);
  if (rt && rt->running) {
    auto& registers = context->uc_mcontext.gregs;
    rt->fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
    rt->fault_pc = reinterpret_cast<const void*>(registers[REG_RIP]);
    registers[REG_RSP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(rt->running->context.stack_top()) - 8);
    registers[REG_RIP] = static_cast<greg_t>(reinterpret_cast<uintptr_t>(&report_fault));
    return;
  }
  // Not ours: as if this handler had not been there.
  const struct sigaction& previous = signal == SIGSEGV ? previous_segv : previous_bus;
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, machine);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  sigaction(signal, &previous, nullptr);  // the instruction runs again and meets the default action
}

}  // namespace

void catch_faults() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
    return true;
  }();
  static_cast<void>(installed);
}

FaultStack::FaultStack() {
  stack_t current{};
  sigaltstack(nullptr, &current);
  if (!(current.ss_flags & SS_DISABLE)) return;
  constexpr size_t kSize = 64 << 10;
  memory_ = mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) throw std::bad_alloc();
  size_ = kSize;
  const stack_t mine{memory_, 0, kSize};
  sigaltstack(&mine, nullptr);
}

FaultStack::~FaultStack() {
  if (!size_) return;
  const stack_t none{nullptr, SS_DISABLE, 0};
  sigaltstack(&none, nullptr);
  munmap(memory_, size_);
}
#else
void catch_faults() {}
FaultStack::FaultStack() = default;
FaultStack::~FaultStack() = default;
#endif

}  // namespace kw::emu
