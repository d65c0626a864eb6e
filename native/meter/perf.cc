// A counter of a perf PMU, such as the energy events of `power`: opened on one CPU of a package, for all that runs there.
#include <linux/perf_event.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "source.h"

namespace kw::meter {
namespace {

class PerfSource final : public Source {
 public:
  PerfSource(uint32_t type, uint64_t config, int cpu, Counter::Kind kind)
      : Source(kind), name_(std::move(kind.name)), type_(type), config_(config), cpu_(cpu) {}
  ~PerfSource() override {
    if (file_ >= 0) ::close(file_);
  }

 private:
  double read(const Clock& clock) override {
    if (file_ < 0 && !open()) return clock.now() + kAgain;
    const double asked = clock.now();
    uint64_t raw = 0;
    const ssize_t length = ::read(file_, &raw, sizeof(raw));
    const double answered = clock.now();
    if (length == sizeof(raw)) {
      count(asked, answered, raw);
    } else {
      fail({"unavailable", name_ + " cannot be read (" + std::strerror(length < 0 ? errno : EIO) + ")"});
    }
    return next(answered);
  }

  bool open() {
    perf_event_attr attributes{};
    attributes.size = sizeof(attributes);
    attributes.type = type_;
    attributes.config = config_;
    file_ = static_cast<int>(::syscall(SYS_perf_event_open, &attributes, -1, cpu_, -1, PERF_FLAG_FD_CLOEXEC));
    if (file_ >= 0) return true;
    const int error = errno;
    const std::string what = name_ + " on CPU " + std::to_string(cpu_);
    if (error == EACCES || error == EPERM) {
      fail({"denied", what + " may not be opened (" + (error == EPERM ? "EPERM" : "EACCES") + ")"});
    } else if (error == ENOENT || error == ENODEV || error == EINVAL || error == EOPNOTSUPP) {
      fail({"unsupported", what + " cannot be opened (" + std::strerror(error) + ")"});
    } else {
      fail({"unavailable", what + " cannot be opened (" + std::strerror(error) + ")"});
    }
    return false;
  }

  // Between two attempts to open it, seconds: permission may come while this runs.
  static constexpr double kAgain = 1;

  const std::string name_;
  const uint32_t type_;
  const uint64_t config_;
  const int cpu_;
  int file_ = -1;
};

}  // namespace

std::unique_ptr<Source> perf_source(uint32_t type, uint64_t config, int cpu, Counter::Kind kind) {
  return std::make_unique<PerfSource>(type, config, cpu, std::move(kind));
}

}  // namespace kw::meter
