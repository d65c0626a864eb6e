// A launch: checks what the driver would check, then runs the grid cluster by cluster.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <thread>

#include "runtime.h"

namespace kw::emu {

constinit thread_local Ctx* cur = nullptr;
constinit thread_local Runtime* rt = nullptr;

Runtime::~Runtime() {
  for (char* window : windows) unmap_window(window);
}

namespace {

// Runtimes wait here between launches, with their stacks and windows: as many as ever ran at once.
class RuntimePool {
 public:
  std::unique_ptr<Runtime> take() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<Runtime>();
    auto r = std::move(idle_.back());
    idle_.pop_back();
    return r;
  }
  void give(std::unique_ptr<Runtime> r) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(r));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Runtime>> idle_;
};
RuntimePool& pool() {
  static RuntimePool* p = new RuntimePool;  // never destroyed: a stream's thread may outlive static destructors
  return *p;
}

std::mutex prepared_mutex;
std::map<const void*, size_t>& prepared() {
  static auto* p = new std::map<const void*, size_t>;
  return *p;
}

size_t prepared_smem(const void* kernel) {
  const std::lock_guard lock(prepared_mutex);
  const auto found = prepared().find(kernel);
  return found == prepared().end() ? 0 : found->second;
}

uint64_t volume(Dim3 d) { return uint64_t{d.x} * d.y * d.z; }

std::string text(Dim3 d) { return std::to_string(d.x) + " x " + std::to_string(d.y) + " x " + std::to_string(d.z); }

void retire(Fiber* f) {
  check_exit(f);
  f->state = State::done;
  const uint32_t bit = 1u << f->lane;
  f->warp->ready &= ~bit;
  f->warp->live &= ~bit;
  --f->block->live;
  --f->block->cluster->live;
  --rt->live;
  recheck_barriers(f->block);
}

void fiber_main() {
  Context::entered();
  Fiber* next = nullptr;
  try {
    (*rt->body)();
    retire(rt->running);
    next = pick_next();
  } catch (const std::exception& e) {
    rt->error = e.what();
  }
  switch_to(next);
  std::abort();  // nothing resumes a thread that has exited
}

void add_threads(Block* b) {
  const Dim3 dim = rt->launch.block;
  const auto count = static_cast<uint32_t>(volume(dim));
  for (uint32_t first = 0; first < count; first += 32) {
    Warp* w = rt->warps.emplace_back(std::make_unique<Warp>()).get();
    w->block = b;
    w->id = static_cast<uint32_t>(rt->warps.size() - 1);
    w->index = first / 32;
    w->priority = 16 + rt->random() % 1'000'000;
    b->warps.push_back(w);
  }
  for (uint32_t t = 0; t < count; ++t) {
    if (rt->threads == rt->fibers.size()) rt->fibers.push_back(std::make_unique<Fiber>());
    Fiber* f = rt->fibers[rt->threads].get();
    f->context.prepare(fiber_main);
    f->index = static_cast<int>(t), f->lane = static_cast<int>(t % 32), f->id = static_cast<uint32_t>(rt->threads++);
    f->block = b, f->warp = b->warps[t / 32];
    f->state = State::ready, f->wait = Wait::none, f->loc = Loc{};
    f->polls = 0, f->copies_handed_over = 0, f->time = 1, f->cluster_phase = 0;
    f->copies.reset();
    f->stores.reset();
    f->clock = Clock();
    f->ctx = {{t % dim.x, t / dim.x % dim.y, t / (dim.x * dim.y)}, b->index, dim, rt->launch.grid};
    f->warp->lane[f->lane] = f;
    f->warp->ready |= 1u << f->lane;
    f->warp->live |= 1u << f->lane;
    b->fibers.push_back(f);
  }
}

void add_cluster(Dim3 first) {
  const Dim3 size = rt->launch.cluster;
  Cluster* cluster = rt->clusters.emplace_back(std::make_unique<Cluster>()).get();
  for (uint32_t rank = 0; rank < volume(size); ++rank) {
    if (rt->windows.size() == rt->blocks.size()) rt->windows.push_back(map_window());
    Block* b = rt->blocks.emplace_back(std::make_unique<Block>()).get();
    b->cluster = cluster;
    b->rank = rank;
    b->index = {first.x + rank % size.x, first.y + rank / size.x % size.y, first.z + rank / (size.x * size.y)};
    b->window = rt->windows[rt->blocks.size() - 1];
    b->live = static_cast<int>(volume(rt->launch.block));
    cluster->live += b->live;
    cluster->blocks.push_back(b);
    open_block_memory(b, rt->launch.smem);
    add_threads(b);
  }
}

void start_race_clocks() {
  rt->agents = static_cast<uint32_t>(3 * rt->threads + rt->warps.size());
  if (rt->agents > kMaxAgents)
    throw Failure("launch: too many resident threads for the race detector, which knows " + std::to_string(kMaxAgents) +
                  " agents");
  for (size_t i = 0; i < rt->threads; ++i) {
    Clock& clock = rt->fibers[i]->clock;
    clock.seen.reset(rt->agents);
    clock.fenced.reset(2 * rt->threads);
    clock.seen.raise(agent_thread(rt->fibers[i].get()), 1);
  }
}

// Runs clusters that are resident together, from start to end. Throws Failure.
void run_resident(const std::vector<Dim3>& first_blocks) {
  rt->warps.clear(), rt->blocks.clear(), rt->clusters.clear(), rt->deferred.clear(), rt->flags.clear();
  rt->places.assign(1, Loc{}), rt->place_ids.clear();
  std::fill(std::begin(rt->recent_places), std::end(rt->recent_places), std::pair<uint64_t, uint16_t>{});
  rt->threads = 0, rt->warp_cursor = 0, rt->steps = 0, rt->yielding = false;
  rt->error.clear();
  for (uint64_t& point : rt->change_points) point = 1 + rt->random() % 2000;
  for (const Dim3 first : first_blocks) add_cluster(first);
  rt->live = static_cast<int>(rt->threads);
  rt->stats.blocks += rt->blocks.size();
  if (rt->opt.race) start_race_clocks();

  switch_to(pick_next());  // returns when all threads have exited, or one has failed
  rt->running = nullptr;
  cur = nullptr;
  for (size_t i = 0; i < rt->threads; ++i) rt->fibers[i]->context.forget_poison();
  if (!rt->error.empty()) throw Failure(rt->error);
  for (const auto& b : rt->blocks) check_block_end(b.get());
}

// The clusters of a launch, handed out to its workers.
class Grid {
 public:
  Grid(const Launch& l, const Options& o)
      : launch_(l),
        clusters_{l.grid.x / l.cluster.x, l.grid.y / l.cluster.y, l.grid.z / l.cluster.z},
        count_(volume(clusters_)),
        batch_(o.resident < 1 ? count_ : static_cast<uint64_t>(o.resident)) {
    // Random schedules visit the clusters in a random order: a stride that is prime to their number.
    if (o.sched != Sched::random && o.sched != Sched::pct) return;
    uint64_t s = o.seed * 0x9E3779B97F4A7C15ULL + 1;
    stride_ = (s >> 20) % count_ + 1;
    while (std::gcd(stride_, count_) != 1) ++stride_;
  }

  // The next clusters to be resident together, as their first blocks; empty at the end.
  std::vector<Dim3> next(uint64_t& number) {
    std::vector<Dim3> first_blocks;
    number = next_.fetch_add(batch_);
    for (uint64_t i = number; i < count_ && i < number + batch_; ++i) {
      const auto k = static_cast<uint64_t>(static_cast<unsigned __int128>(i) * stride_ % count_);
      first_blocks.push_back({static_cast<unsigned>(k % clusters_.x) * launch_.cluster.x,
                              static_cast<unsigned>(k / clusters_.x % clusters_.y) * launch_.cluster.y,
                              static_cast<unsigned>(k / clusters_.x / clusters_.y) * launch_.cluster.z});
    }
    return first_blocks;
  }

 private:
  const Launch& launch_;
  Dim3 clusters_;
  uint64_t count_, batch_, stride_ = 1;
  std::atomic<uint64_t> next_{0};
};

// Works on the grid until it is done or someone has failed. Returns the diagnosis, empty if all is well.
std::string work(Grid& grid, const Launch& l, const std::function<void()>& body, const Options& o,
                 const std::atomic<bool>& stop, Stats& stats) {
  const FaultStack fault_stack;
  std::unique_ptr<Runtime> mine = pool().take();
  rt = mine.get();
  rt->launch = l, rt->body = &body, rt->opt = o, rt->stats = Stats();
  rt->main.adopt_thread_stack();
  std::string error;
  uint64_t number = 0;
  while (!stop) {
    const std::vector<Dim3> blocks = grid.next(number);
    if (blocks.empty()) break;
    rt->rng = ((o.seed + 1) * 0x9E3779B97F4A7C15ULL ^ (number + 1) * 0xD1B54A32D192ED03ULL) | 1;
    try {
      run_resident(blocks);
    } catch (const std::exception& e) {
      error = e.what();
      break;
    }
  }
  stats += rt->stats;
  rt = nullptr;
  pool().give(std::move(mine));
  return error;
}

}  // namespace

void prepare(const void* kernel, size_t smem) {
  const size_t limit = options().profile.smem_max;
  if (smem > limit)
    throw kw::Error(Code::CUDA, "prepare: dynamic shared memory is " + std::to_string(smem) +
                                    " bytes, expected at most " + std::to_string(limit) + " on " +
                                    options().profile.name);
  const std::lock_guard lock(prepared_mutex);
  size_t& allowed = prepared()[kernel];
  allowed = std::max(allowed, smem);
}

void check_launch(const Launch& l) {
  const Options& o = options();
  const auto refuse = [](const std::string& what, const std::string& expected) {
    throw kw::Error(Code::CUDA, "launch: " + what + ", expected " + expected);
  };
  if (l.block.x > 1024 || l.block.y > 1024 || l.block.z > 64 || volume(l.block) < 1 || volume(l.block) > 1024)
    refuse("the block is " + text(l.block) + " threads", "1 to 1024, at most 64 in z");
  if (volume(l.grid) < 1 || l.grid.x > 0x7fffffff || l.grid.y > 65535 || l.grid.z > 65535)
    refuse("the grid is " + text(l.grid) + " blocks", "at least 1, at most 2^31 - 1 x 65535 x 65535");
  const uint64_t cluster = volume(l.cluster);
  if (cluster != 1 && o.profile.cc < 90)
    refuse("the cluster is " + text(l.cluster) + " blocks on " + o.profile.name, "1 below sm_90");
  if (cluster < 1 || cluster > 8) refuse("the cluster is " + text(l.cluster) + " blocks", "1 to 8");
  if (l.grid.x % l.cluster.x || l.grid.y % l.cluster.y || l.grid.z % l.cluster.z)
    refuse("the grid is " + text(l.grid) + " blocks", "a multiple of the cluster, " + text(l.cluster));
  const std::string smem = "dynamic shared memory is " + std::to_string(l.smem) + " bytes";
  if (l.smem > o.profile.smem_max)
    refuse(smem, "at most " + std::to_string(o.profile.smem_max) + " on " + o.profile.name);
  if (l.smem > kStaticMax && l.smem > prepared_smem(l.kernel))
    refuse(smem, "at most " + std::to_string(kStaticMax) + " unless kw::prepare allows the kernel more");
}

void launch(const Launch& l, const std::function<void()>& body) {
  if (rt) throw kw::Error(Code::CUDA, "launch: called inside a kernel");
  const Options o = options();
  check_launch(l);
  catch_faults();
  Grid grid(l, o);
  std::atomic<bool> stop{false};
  std::string error;
  if (o.workers <= 1) {
    error = work(grid, l, body, o, stop, stats());
  } else {
    std::mutex mutex;
    std::vector<std::thread> threads;
    Stats& total = stats();
    for (int i = 0; i < o.workers; ++i)
      threads.emplace_back([&] {
        Stats mine;
        const std::string failure = work(grid, l, body, o, stop, mine);
        const std::lock_guard lock(mutex);
        total += mine;
        if (failure.empty()) return;
        stop = true;
        if (error.empty()) error = failure;
      });
    for (std::thread& t : threads) t.join();
  }
  if (!error.empty()) throw kw::Error(Code::CUDA, error);
}

}  // namespace kw::emu
