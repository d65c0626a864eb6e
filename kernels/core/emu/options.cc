// Options of the emulator and where they come from.
#include <array>
#include <cstdlib>
#include <string_view>

#include "runtime.h"

namespace kw::emu {
namespace {

[[noreturn]] void bad_option(std::string_view what, std::string_view got, std::string_view expected) {
  throw kw::Error(Code::ARGUMENT, "KERNWATT_EMU: " + std::string(what) + " is " + std::string(got) + ", expected " +
                                      std::string(expected));
}

template <class T, size_t N>
T choice(std::string_view key, std::string_view value, const std::array<std::pair<const char*, T>, N>& choices) {
  std::string expected;
  for (const auto& [name, result] : choices) {
    if (value == name) return result;
    expected += (expected.empty() ? "" : ", ") + std::string(name);
  }
  bad_option(key, value, "one of " + expected);
}

uint64_t number(std::string_view key, std::string_view value) {
  const std::string text(value);
  char* end = nullptr;
  const uint64_t n = std::strtoull(text.c_str(), &end, 10);
  if (text.empty() || *end || text[0] == '-') bad_option(key, value, "a number from 0");
  return n;
}

void set(Options& o, std::string_view key, std::string_view value) {
  const auto flag = [&] {
    const uint64_t n = number(key, value);
    if (n > 1) bad_option(key, value, "0 or 1");
    return n == 1;
  };
  const auto small = [&] {
    const uint64_t n = number(key, value);
    if (n > 1 << 20) bad_option(key, value, "at most 2^20");
    return static_cast<int>(n);
  };
  if (key == "sched")
    o.sched = choice<Sched, 5>(key, value,
                               {{{"rr", Sched::rr},
                                 {"ahead", Sched::ahead},
                                 {"rev", Sched::rev},
                                 {"random", Sched::random},
                                 {"pct", Sched::pct}}});
  else if (key == "async")
    o.async =
        choice<Async, 3>(key, value, {{{"eager", Async::eager}, {"late", Async::late}, {"random", Async::random}}});
  else if (key == "profile")
    o.profile = choice<Profile, 3>(key, value, {{{"sm_80", kSm80}, {"sm_89", kSm89}, {"sm_90", kSm90}}});
  else if (key == "seed")
    o.seed = number(key, value);
  else if (key == "race")
    o.race = flag();
  else if (key == "uninit")
    o.uninit = flag();
  else if (key == "poison")
    o.poison = flag();
  else if (key == "spurious")
    o.spurious = flag();
  else if (key == "bank")
    o.bank = flag();
  else if (key == "workers")
    o.workers = small();
  else if (key == "resident")
    o.resident = small();
  else
    bad_option("a key", key, "sched, async, profile, seed, race, uninit, poison, spurious, bank, workers or resident");
}

}  // namespace

Options parse_options(const std::string& text) {
  Options o;
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::string_view item = rest.substr(0, rest.find(','));
    rest.remove_prefix(std::min(rest.size(), item.size() + 1));
    const size_t equals = item.find('=');
    if (equals == std::string_view::npos) bad_option("an item", item, "key=value");
    set(o, item.substr(0, equals), item.substr(equals + 1));
  }
  return o;
}

Options& options() {
  static thread_local Options mine = [] {
    const char* text = std::getenv("KERNWATT_EMU");
    return parse_options(text ? text : "");
  }();
  return mine;
}

Stats& Stats::operator+=(const Stats& o) {
  blocks += o.blocks, switches += o.switches, collectives += o.collectives;
  mma += o.mma, wgmma += o.wgmma, ldmatrix += o.ldmatrix, cp_async += o.cp_async, tma += o.tma;
  bank_conflicts += o.bank_conflicts;
  return *this;
}

Stats& stats() {
  static thread_local Stats mine;
  return mine;
}

}  // namespace kw::emu
