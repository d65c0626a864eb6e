// Cases as tools/cases.mjs writes them (it describes the format): one line of JSON each, read into an operator's Args struct
// by the names of its fields, whatever the operator.
#pragma once
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "../../kernels/core/host/definitions.h"
#include "../../kernels/core/host/distribution.h"

namespace kw::check {

// Part of a tensor, its first element so many elements from the tensor's.
struct Part {
  TensorView view;
  int64_t offset = 0;
};

// A tensor of a case. data of a view is null: where it lies is not known yet.
struct Operand {
  const Field* field = nullptr;
  TensorView view;
  int64_t offset = 0;    // of the view's first element in its buffer
  int64_t elements = 0;  // of the buffer
  // What an input holds: one of the three.
  std::optional<Distribution> distribution;
  std::optional<std::vector<double>> values;  // in row-major order, repeated dimensions once
  std::optional<uint64_t> flags;              // a seed
  std::vector<Part> unread;                   // nothing may read them

  bool is_output() const { return field->kind == FieldKind::out; }
};

struct Case {
  std::string op, name;
  double flops = 0;
  // Null for an operator that this program does not know; then there is nothing below.
  const Definition* definition = nullptr;
  std::vector<std::byte> args;    // the operator's Args struct, its tensors absent
  std::vector<Operand> operands;  // in the order of the file; no outputs when they are in place
  std::string in_place;           // the input that all outputs are; empty for none
  std::vector<std::string> exact;

  // Of the buffers of all operands.
  int64_t elements() const;
  // By its field; null when the case has none.
  const Operand* find(std::string_view name) const;
};

// Throws Error(ARGUMENT), `<file>:<line>: <what is wrong>`.
std::vector<Case> read_cases(const std::string& file);

}  // namespace kw::check
