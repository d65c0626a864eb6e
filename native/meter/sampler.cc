// Sampler: the thread and its list of sources.
#include "sampler.h"

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <system_error>
#include <thread>
#include <vector>

#include "../../kernels/core/error.h"

namespace kw::meter {

Sampler& Sampler::shared() {
  static auto* sampler = new Sampler;
  return *sampler;
}

std::shared_ptr<Source> Sampler::add(const std::string& key, const std::function<std::unique_ptr<Source>()>& make) {
  const std::lock_guard lock(mutex_);
  if (std::shared_ptr<Source> source = sources_[key].lock()) return source;
  // The thread looks for sources that nobody holds any more when one is let go.
  std::shared_ptr<Source> source(make().release(), [this](Source* unused) {
    delete unused;
    wake_.notify_one();
  });
  sources_[key] = source;
  if (!running_) {
    try {
      std::thread(&Sampler::loop, this).detach();
    } catch (const std::system_error& error) {
      sources_.erase(key);
      throw Error(Code::OUT_OF_MEMORY, std::string("the system refuses a thread for the meter: ") + error.what());
    }
    running_ = true;
    started_ = NAN;
  }
  wake_.notify_one();
  return source;
}

double Sampler::thread_seconds() {
  clockid_t clock;
  timespec t{};
  if (pthread_getcpuclockid(thread_, &clock) != 0 || clock_gettime(clock, &t) != 0) return 0;
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

Sampler::Cost Sampler::cost() {
  const std::lock_guard lock(mutex_);
  Cost cost = past_;
  cost.sources = static_cast<size_t>(
      std::count_if(sources_.begin(), sources_.end(), [](const auto& entry) { return !entry.second.expired(); }));
  if (running_ && !std::isnan(started_)) {
    cost.cpu_seconds += thread_seconds();
    cost.seconds += Clock().now() - started_;
  }
  return cost;
}

void Sampler::loop() {
  pthread_setname_np(pthread_self(), "kw-meter");
  const Clock clock;
  std::unique_lock lock(mutex_);
  thread_ = pthread_self();
  started_ = clock.now();
  for (;;) {
    std::shared_ptr<Source> first;
    for (auto entry = sources_.begin(); entry != sources_.end();) {
      std::shared_ptr<Source> source = entry->second.lock();
      entry = source ? std::next(entry) : sources_.erase(entry);
      if (source && (!first || source->due() < first->due())) first.swap(source);
    }
    if (!first) break;
    const double due = first->due();
    if (const double wait = due - clock.now(); wait > 0) {
      // Held by others alone while this sleeps, so that the last of them ends it.
      first.reset();
      wake_.wait_for(lock, std::chrono::duration<double>(std::min(wait, 60.0)));
      continue;
    }
    ++past_.polls;
    lock.unlock();
    first->poll(clock);
    first.reset();
    lock.lock();
  }
  past_.cpu_seconds += thread_seconds();
  past_.seconds += clock.now() - started_;
  running_ = false;
}

}  // namespace kw::meter
