// One case on one device of a library, against the definition: the logic of src/check.ts without Node.
#pragma once
#include <string>
#include <vector>

#include "../../kernels/core/abi.h"
#include "cases.h"

namespace kw::check {

struct Outcome {
  enum State { passed, failed, declined } state = passed;
  std::vector<std::string> reasons;  // sentences: what is wrong, or why it was declined
  std::vector<std::string> kernels;  // that it launched, as the compiler mangled them
  bool lost = false;                 // the device does nothing any more: it ends with this case
};
inline constexpr const char* kStates[] = {"passed", "failed", "declined"};

class Runner {
 public:
  // Throws what the device throws.
  Runner(const kw_table& table, int device);
  ~Runner();
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  // A wrong result is an outcome, not an exception; so is whatever the library throws.
  Outcome run(const Case& c);

  const kw_device_info& info() const { return info_; }

 private:
  friend class Memory;
  friend class Drain;
  void run(const Case& c, Outcome& outcome);
  void launch(const kw_op& op, const std::vector<std::byte>& args, Outcome& outcome);
  void copy(void* to, const void* from, uint64_t bytes, kw_copy_kind kind) const;
  void wait() const;
  // Throws Error with what a failed call of the table means.
  void must(int32_t status) const;
  bool usable() const;

  const kw_table& table_;
  const int device_;
  kw_device_info info_{};
  void* stream_ = nullptr;
  void* event_ = nullptr;
};

}  // namespace kw::check
