// Where a launch on a stream goes. The emulator's library sets this to queue the work on the stream's thread; without it,
// and on the null stream, work runs at once on the calling thread. The work owns what it uses.
#pragma once
#include <functional>

namespace kw::emu {

using Submit = void (*)(void* stream, std::function<void()> work);
inline Submit submit = [](void*, std::function<void()> work) { work(); };

}  // namespace kw::emu
