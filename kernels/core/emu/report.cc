// Diagnoses in words: source lines, shared objects, and what every thread of a deadlock waits for.
#include <dlfcn.h>

#include <bit>
#include <cstdio>
#include <cstring>
#include <string_view>

#include "runtime.h"

namespace kw::emu {
namespace {

// The folder of this project's sources, which diagnoses leave out.
#ifndef KW_SOURCE_ROOT
#define KW_SOURCE_ROOT ""
#endif
constexpr std::string_view kRoot = KW_SOURCE_ROOT;

// Source line of an instruction, by addr2line; module and offset where that is not installed. Of the functions inlined
// into each other there, the innermost of this project: not a header of the toolkit.
std::string where_pc(const void* pc) {
  Dl_info info{};
  if (!dladdr(pc, &info) || !info.dli_fname) return "an unknown place";
  const auto offset = reinterpret_cast<uintptr_t>(pc) - reinterpret_cast<uintptr_t>(info.dli_fbase) - 1;
  char text[700];
  std::snprintf(text, sizeof text, "addr2line -i -e '%s' 0x%zx 2>/dev/null", info.dli_fname, offset);
  std::string found;
  if (FILE* pipe = popen(text, "r")) {
    while (std::fgets(text, sizeof text, pipe)) {
      text[std::strcspn(text, " \n")] = 0;  // "file:line (discriminator 2)"
      if (text[0] == '?' ||
          (!found.empty() && (found.starts_with(kRoot) || !std::string_view(text).starts_with(kRoot))))
        continue;
      found = text;
    }
    pclose(pipe);
  }
  if (!found.empty()) return found;
  std::snprintf(text, sizeof text, "%s+0x%zx", info.dli_fname, offset);
  return text;
}

std::string waits_for(const Fiber& f) {
  const auto n = [](auto v) { return std::to_string(v); };
  switch (f.wait) {
    case Wait::collective: {
      std::string arrived;
      for (const auto& m : f.warp->meetings)
        if (m->arrived >> f.lane & 1) {
          char text[96];
          std::snprintf(text, sizeof text, "%s with mask %08x, lanes %08x missing", m->op, m->mask,
                        m->mask & ~m->arrived);
          arrived = text;
        }
      return arrived;
    }
    case Wait::barrier: {
      const NamedBarrier& b = f.block->barriers[f.wait_a];
      return "barrier " + n(f.wait_a) + " (" + n(b.arrived) + " of " + n(b.expected ? b.expected : f.block->live) +
             " arrived)";
    }
    case Wait::mbarrier: {
      uint64_t word;
      std::memcpy(&word, f.block->window + f.wait_a, sizeof word);
      const int64_t tx = static_cast<int64_t>(word << 3) >> 43;  // bits 40..60, signed
      return "mbarrier " + describe(f.block, static_cast<uint32_t>(f.wait_a)) + " parity " + n(f.wait_b) +
             " (phase bit " + n(word >> 61 & 1) + ", " + n(word & 0xfffff) + " arrivals and " + n(tx) +
             " bytes missing)";
    }
    case Wait::cluster:
      return "the cluster barrier (" + n(f.block->cluster->arrived) + " of " + n(f.block->cluster->live) + " arrived)";
    case Wait::none:
      break;
  }
  return "nothing";
}

}  // namespace

std::string where(Loc loc) {
  const std::string place = loc.file ? std::string(loc.file) + ":" + std::to_string(loc.line)
                            : loc.pc ? where_pc(loc.pc)
                                     : "an unknown place";
  return place.starts_with(kRoot) ? place.substr(kRoot.size()) : place;
}

std::string describe(const Block* b, uint32_t offset) {
  for (const auto& [tag, object] : b->statics)
    if (offset - object.offset < object.size)
      return std::string(object.name) + "+" + std::to_string(offset - object.offset);
  return "smem+" + std::to_string(static_cast<int64_t>(offset) - kDynamicBase);
}

std::string deadlock_report() {
  std::string text;
  int lines = 0;
  for (const auto& w : rt->warps) {
    for (uint32_t left = w->live; left;) {
      const Fiber& f = *w->lane[std::countr_zero(left)];
      uint32_t same = 0;  // lanes that wait for the same thing in the same place
      for (uint32_t m = left; m; m &= m - 1) {
        const Fiber& g = *w->lane[std::countr_zero(m)];
        if (g.wait == f.wait && g.wait_a == f.wait_a && g.wait_b == f.wait_b && g.loc.line == f.loc.line)
          same |= 1u << g.lane;
      }
      left &= ~same;
      if (++lines > 40) return text + "\n  ...";
      char head[96];
      std::snprintf(head, sizeof head, "\n  block %u,%u,%u warp %u lanes %08x: ", f.ctx.block.x, f.ctx.block.y,
                    f.ctx.block.z, w->index, same);
      text += head + waits_for(f) + " at " + where(f.loc);
    }
  }
  return text;
}

}  // namespace kw::emu
