// Plans: an operator bound to its arguments on one stream.
#pragma once
#include <napi.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "args.h"
#include "counters.h"
#include "ops.h"
#include "queue.h"
#include "stream.h"

namespace kw {

// A backend's plan with its workspace: what a stream launches. Once queued it is not changed: rebinding a busy plan makes
// another.
class Kernel final : public Work {
 public:
  // configuration: empty, or one of those that the backend names. Throws UNSUPPORTED with the backend's reason where it declines.
  Kernel(const kw_op& entry, std::shared_ptr<Stream> stream, const Arguments& arguments,
         const std::string& configuration);
  ~Kernel() override;

  // Throws where the backend refuses; the plan then stays bound as it was.
  void bind(const Arguments& arguments);
  void run() noexcept override;
  // As run, but throws what fails.
  void launch() { check_backend(*stream_->device, entry_.plan_enqueue(plan_, argument_)); }
  std::string explain() const;
  uint64_t workspace_bytes() const { return entry_.plan_workspace(plan_); }
  bool external() const { return external_; }

 private:
  const kw_op& entry_;
  const std::shared_ptr<Stream> stream_;
  void* const argument_;
  kw_plan* plan_ = nullptr;
  std::shared_ptr<Memory> workspace_;
  bool external_ = false;
};

// JavaScript thread only.
class Plan final : public Resource {
 public:
  Plan(const Operator& op, const kw_op& entry, std::shared_ptr<Stream> stream, Arguments arguments,
       std::string configuration);
  ~Plan() override;

  // Queues it once. Throws DISPOSED, BUSY, DEVICE_LOST.
  void enqueue() {
    if (!kernel_) refuse_disposed("enqueue");
    stream_->check_usable("enqueue");
    for (const std::shared_ptr<Buffer>& buffer : buffers_) {
      if (buffer->freed() || buffer->detached()) refuse_freed();
    }
    number_ = stream_->enqueue(*kernel_);
    for (const std::shared_ptr<Buffer>& buffer : buffers_) buffer->used(stream_, number_);
  }
  void rebind(Arguments arguments);
  // Idempotent; what is queued still runs.
  void dispose() override;

  // Throws DISPOSED once disposed of.
  const std::shared_ptr<Kernel>& kernel(const char* where) const {
    if (!kernel_) refuse_disposed(where);
    return kernel_;
  }
  const Operator& op() const { return op_; }
  const std::shared_ptr<Stream>& stream() const { return stream_; }
  const std::vector<std::shared_ptr<Buffer>>& buffers() const { return buffers_; }
  // Throws DISPOSED where a buffer was freed.
  void check_buffers() const;
  // What the backend names for the arguments that the plan was created with; its own choice first.
  std::vector<std::string> configurations() const;
  // Work `number` of the stream uses this plan.
  void used(uint64_t number);

 private:
  [[noreturn]] void refuse_disposed(const char* where) const;
  [[noreturn]] void refuse_freed() const;
  void retire(std::shared_ptr<Kernel> kernel);

  const Operator& op_;
  const kw_op& entry_;
  const std::shared_ptr<Stream> stream_;
  std::shared_ptr<Kernel> kernel_;
  std::vector<std::shared_ptr<Buffer>> buffers_;
  const Arguments created_with_;  // its bytes alone
  const std::string configuration_;
  uint64_t number_ = 0;                                              // of the last work that uses kernel_
  std::optional<Counted<&Counters::plans>> counted_{std::in_place};  // until disposed of
};

}  // namespace kw
