// One thread for all meters of this process: it sleeps until a source is due, polls it, and ends when there is none left.
#pragma once
#include <pthread.h>

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "source.h"

namespace kw::meter {

class Sampler {
 public:
  // Never destroyed: its thread may outlive the exit of the main one.
  static Sampler& shared();

  // What the sampler costs, over the life of the process.
  struct Cost {
    double cpu_seconds, seconds;  // of the thread: computing, existing
    uint64_t polls;
    size_t sources;
  };

  // The source of this key, shared with whoever else asked for it, or a new one; polled until the last holder lets go.
  std::shared_ptr<Source> add(const std::string& key, const std::function<std::unique_ptr<Source>()>& make);
  Cost cost();

 private:
  Sampler() = default;
  void loop();
  double thread_seconds();

  std::mutex mutex_;  // guards everything; released while a source is polled
  std::condition_variable wake_;
  std::map<std::string, std::weak_ptr<Source>> sources_;
  bool running_ = false;
  pthread_t thread_{};
  double started_ = 0;
  Cost past_{};
};

}  // namespace kw::meter
