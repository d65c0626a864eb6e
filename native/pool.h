// Blocks of one device's memory, kept for reuse once let go. Asking the system for memory costs a page fault per 4 KiB when
// it is used, asking a GPU for it may wait for the GPU, and giving it back always does.
//
// A block that nothing uses any more comes back here, whichever stream used it last, and serves any later request of about
// its size. A block whose last work is still queued does not come through here: its stream passes it on (Stream::reuse).
#pragma once
#include <cstdint>
#include <map>
#include <mutex>

namespace kw {

class Device;

struct Block {
  void* data = nullptr;
  uint64_t bytes = 0;  // the block's own size, at least what was asked for
};

// Any thread.
class Pool {
 public:
  struct Reading {
    uint64_t reserved = 0, peak = 0;  // bytes held from the system or the GPU, in use or kept
    uint64_t limit = UINT64_MAX;
  };

  // keep: bytes of unused blocks that it keeps at most. limit: bytes that it holds at most, used or not. exact: blocks are
  // of the size asked for, and none is kept, so that an emulator sees every access beyond an allocation or after its end.
  Pool(Device& device, uint64_t keep, uint64_t limit, bool exact);
  ~Pool() { close(); }
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Throws OUT_OF_MEMORY with the bytes asked for and the bytes to be had, after unused blocks were given back in vain.
  Block take(uint64_t bytes);
  void give(Block block) noexcept;
  // Whether a block of that size may serve a request: not much larger than needed.
  bool fits(uint64_t block, uint64_t request) const;
  // Gives every unused block back and returns their bytes. May wait for the device.
  uint64_t trim() noexcept;
  // As trim; what comes back later is not kept.
  void close() noexcept;
  Reading read() const;

 private:
  // Bytes of a new block for a request.
  uint64_t rounded(uint64_t bytes) const;
  bool reserve(uint64_t bytes);
  void unreserve(uint64_t bytes) noexcept;

  Device& device_;
  const bool exact_;
  mutable std::mutex mutex_;  // guards the rest
  uint64_t keep_;
  uint64_t kept_ = 0;
  Reading reading_;
  std::multimap<uint64_t, void*> free_;  // by size
};

}  // namespace kw
