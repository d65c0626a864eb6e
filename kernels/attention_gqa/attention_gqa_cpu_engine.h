// Attention on the CPU, whatever the keys lie in: how a problem is cut into tasks, and who computes them. attention_gqa has its
// keys in rows, attention_gqa_paged in pages. attention_gqa_cpu.cc says how it works.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "../core/threads.h"
#include "attention_gqa_cpu_rows.h"

namespace kw::cpu {

// Keys and values in pages: key j of a batch is slot j % size of the page that entry j / size of its table names. The views of keys
// and values in AttentionGqaArgs then say how long a table reaches, and how slots and heads follow each other within a page.
struct AttentionPages {
  const int32_t* table = nullptr;  // null: there are none, keys lie in rows
  int64_t table_batch = 0, table_entry = 0;
  int64_t size = 1, count = 0;     // slots of a page, pages; an entry that names none of them stands for zeros
  int64_t step_k = 0, step_v = 0;  // elements between pages
  AttentionStoredScales stored;    // of f8e4m3
};

// A sequence and its tasks.
struct AttentionPiece {
  AttentionSequence sequence;
  int64_t rows = 0;               // of a key head
  int64_t gap = 0, gap_end = 0;   // rows of q that no sequence has, to be cleared with this one
  int64_t block = 0, blocks = 0;  // rows of a block, and how many; one is split over the keys
  int64_t origin = 0, run = 0;    // where the first chunk of keys begins, and how long a chunk is
  int64_t chunks = 0;
  int64_t heads = 1;  // key heads of a task
  int64_t first_task = 0, tasks = 0;
  int64_t partial = 0;  // where partial results begin, in floats

  bool split() const { return blocks == 1; }
  bool few() const { return rows <= AttentionFew::kRows; }
  int64_t padded_rows() const { return few() ? rows : round_up(rows, AttentionRows::kMost); }
};

class AttentionCpuEngine {
 public:
  // Why the tensors of a problem cannot be used; empty: they can. `where` is the operator that asks, and what it calls k and v, which
  // may be f8e4m3 in pages.
  static std::string declines(const std::string& where, const AttentionGqaArgs&, const char* keys = "k",
                              const char* values = "v", bool paged = false);
  // Instruction sets to choose from, its own choice first.
  static std::vector<std::string> configurations(const AttentionGqaArgs&, const kw_device_info&);
  // splits: parts that the keys of a sequence are cut into, at most; 0: one for every kSplitKeys.
  AttentionCpuEngine(const char* where, const AttentionGqaArgs&, const kw_device_info&, bool paged = false,
                     const std::string& configuration = "", int64_t splits = 0);
  uint64_t workspace() const { return static_cast<uint64_t>(capacity_) * sizeof(float); }
  void rebind(const AttentionGqaArgs&, void* workspace, const AttentionPages& pages = {});
  void enqueue(void* stream);
  std::string explain() const;

 private:
  using Piece = AttentionPiece;
  // One thread's part of the workspace.
  struct Scratch {
    AttentionRows* rows;  // of each panel, or of each key head
    float *q, *k, *v, *o, *scores, *gathered;
  };
  // Keys or values at a constant distance, in elements.
  struct Rows {
    const char* first;
    int64_t stride;
  };
  // Keys, or values, of a key head: where they lie.
  struct Lines {
    const TensorView& view;
    int64_t step;  // between pages
    const AttentionSequence& sequence;
    int64_t head;
  };

  int64_t scratch_floats() const;
  int64_t partial_floats(const AttentionShape&) const;
  Scratch scratch(int thread) const;

  void schedule();
  void measure(Piece&) const;
  int64_t block_rows(int64_t rows) const;
  const Piece& piece_of(int64_t task) const;
  void run(int64_t task, int thread) const;
  void go_over(const Piece&, int64_t head, int64_t row, int64_t count, AttentionRange keys, float* o,
               const Scratch&) const;
  void go_over_few(const Piece&, int64_t first_head, int64_t heads, AttentionRange keys, float* o, int64_t step_o,
                   const Scratch&) const;
  void pack(const Piece&, int64_t head, int64_t tile, int64_t low, int64_t high, const Scratch&) const;
  Lines keys_of(const Piece& p, int64_t head) const { return {args_.k, pages_.step_k, p.sequence, head}; }
  Lines values_of(const Piece& p, int64_t head) const { return {args_.v, pages_.step_v, p.sequence, head}; }
  const char* line(const Lines&, int64_t key) const;
  template <class Fn>
  void each_line(const Lines&, int64_t key, int64_t count, Fn fn) const;
  const char* in_place(const Lines&, int64_t key, int64_t count) const;
  Rows rows_of(const Lines&, int64_t key, int64_t count, float* space) const;
  Rows gather(const Lines&, int64_t key, int64_t count, float* space) const;
  bool values_in_keys() const;
  void prefetch(const Lines&, int64_t key, int64_t count) const;
  const void* query(const Piece&, int64_t head, int64_t row) const;
  int64_t partial_size(const Piece& p) const { return p.padded_rows() * (stride_o_ + 2); }
  float* partial(const Piece& p, int64_t head, int64_t chunk) const {
    return space_ + p.partial + (chunk * shape_.heads_kv + head) * partial_size(p);
  }
  void finish(const Piece&, int64_t head, int64_t row, const float* o, float max, float sum) const;
  void store_lse(int64_t batch, int64_t head, int64_t i, float value) const;
  void merge(const Piece&, int64_t head) const;
  void clear(int64_t batch, int64_t begin, int64_t end, int64_t head) const;

  const char* where_;
  bool paged_;
  int64_t splits_;
  int threads_;
  int64_t cache_;  // bytes of a thread's L2 cache for the rows of a block
  const AttentionKernels& kernels_;
  AttentionGqaArgs args_;
  AttentionPages pages_;
  AttentionShape shape_;
  int64_t cells_ = 0;                      // of a key
  int64_t stride_o_ = 0;                   // between rows of values being summed
  std::vector<AttentionScoring> scoring_;  // of each key head
  int64_t capacity_;
  float* space_ = nullptr;
  std::vector<Piece> pieces_;
  int64_t tasks_ = 0;
  double work_ = 0;  // FLOPs, about
};

}  // namespace kw::cpu
