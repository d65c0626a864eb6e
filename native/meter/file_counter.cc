// A counter in a file of a sysfs: powercap and hwmon.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

#include "source.h"

namespace kw::meter {
namespace {

class FileSource final : public Source {
 public:
  FileSource(std::string path, Counter::Kind kind) : Source(std::move(kind)), path_(std::move(path)) {}

 private:
  double read(const Clock& clock) override {
    const double asked = clock.now();
    char text[64];
    // Opened each time, 2 us more than reading an open one: permissions, and drivers, change under a running program.
    const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t length = file < 0 ? -1 : ::read(file, text, sizeof(text) - 1);
    const int error = errno;
    if (file >= 0) ::close(file);
    const double answered = clock.now();
    if (length < 0) {
      const bool denied = error == EACCES || error == EPERM;
      if (denied) {
        fail({"denied", path_ + " may not be read (" + (error == EPERM ? "EPERM" : "EACCES") + ")"});
      } else {
        fail({"unavailable", path_ + " cannot be read (" + std::strerror(error) + ")"});
      }
    } else {
      const char* end = text + length;
      while (end > text && (end[-1] == '\n' || end[-1] == ' ')) --end;
      uint64_t raw = 0;
      if (const auto [last, status] = std::from_chars(text, end, raw); status == std::errc() && last == end) {
        count(asked, answered, raw);
      } else {
        fail({"unavailable",
              path_ + " holds \"" + std::string(static_cast<const char*>(text), end) + "\", expected a whole number"});
      }
    }
    return next(answered);
  }

  const std::string path_;
};

}  // namespace

std::unique_ptr<Source> file_source(std::string path, Counter::Kind kind) {
  return std::make_unique<FileSource>(std::move(path), std::move(kind));
}

}  // namespace kw::meter
