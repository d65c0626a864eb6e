// Every operand lies inside a larger poisoned buffer, so that a read or a write outside it shows; the definition reads copies
// made before the call.
#include "runner.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <sstream>

#include "../../kernels/core/host/compare.h"
#include "../../kernels/core/host/convert.h"
#include "../../kernels/core/host/table.h"
#include "json.h"

namespace kw::check {

// Memory of the device, given back whatever happens.
class Memory {
 public:
  Memory(const Runner& runner, uint64_t bytes) : runner_(runner) {
    runner.must(runner.table_.alloc(runner.device_, bytes, &data_));
  }
  ~Memory() { runner_.table_.free(runner_.device_, data_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  const Runner& runner_;
  void* data_ = nullptr;
};

// Waits at its end for what was queued, whatever became of it: memory declared before it outlives that work.
class Drain {
 public:
  explicit Drain(const Runner& runner) : runner_(runner) {}
  ~Drain() {
    if (runner_.table_.event_record(runner_.event_, runner_.stream_) == 0) runner_.table_.event_wait(runner_.event_);
  }
  Drain(const Drain&) = delete;
  Drain& operator=(const Drain&) = delete;

 private:
  const Runner& runner_;
};

namespace {

constexpr uint64_t kWorkspaceGuard = 4096;   // bytes
constexpr std::byte kWorkspacePoison{0xff};  // NaN in every floating-point type

// A NaN of an unlikely pattern in the floating-point types, so that reading it spreads and writing over it shows.
uint32_t poison_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return 0x7fc0beef;
    case DType::i32:
      return 0x55555555;
    case DType::f16:
      return 0x7ead;
    case DType::bf16:
      return 0x7fcd;
    case DType::i8:
    case DType::u8:
      return 0x55;
    default:
      return 0x7f;
  }
}

// Elements in the smallest piece of memory, two of 4 bits, and that piece's bytes.
int64_t each_of(const Operand& operand) { return bits(operand.view.dtype) < 8 ? 2 : 1; }
int64_t size_of(const Operand& operand) { return bits(operand.view.dtype) * each_of(operand) / 8; }

// The view of an operand whose buffer begins at memory.
TensorView view_in(const Operand& operand, std::byte* memory) {
  TensorView view = operand.view;
  if (view.count() > 0) view.data = memory + bytes_of(view.dtype, operand.offset);
  return view;
}

// `count` flags of a seed: mulberry32, as src/operands.ts draws them. Any value but 0 is true.
std::vector<double> draw_flags(uint64_t seed, int64_t count) {
  auto state = static_cast<uint32_t>(seed ^ seed >> 32);
  const auto next = [&state] {
    state += 0x6d2b79f5;
    uint32_t t = (state ^ state >> 15) * (state | 1);
    t ^= t + (t ^ t >> 7) * (t | 61);
    return (t ^ t >> 14) * 0x1p-32;
  };
  const double hidden = 0.2 + 0.6 * next();
  std::vector<double> flags(count);
  for (double& flag : flags) flag = next() < hidden ? 0 : 1 + std::floor(2 * next());
  return flags;
}

// The view with each dimension that repeats one slice cut to that slice.
TensorView once(TensorView view) {
  for (int i = 0; i < view.rank; ++i) {
    if (view.stride[i] == 0) view.shape[i] = std::min<int64_t>(view.shape[i], 1);
  }
  return view;
}

// A buffer of poison around what the operand has to hold.
std::vector<std::byte> contents_of(const Operand& operand) {
  const int64_t size = size_of(operand);
  std::vector<std::byte> bytes(bytes_of(operand.view.dtype, operand.elements));
  const uint32_t poison = poison_of(operand.view.dtype);
  for (size_t at = 0; at < bytes.size(); at += size) std::memcpy(bytes.data() + at, &poison, size);
  const TensorView view = view_in(operand, bytes.data());
  if (view.count() == 0) return bytes;
  if (operand.distribution) operand.distribution->fill(view, 0, view.count());
  if (operand.values) store_rounded(operand.values->data(), once(view));
  if (operand.flags) store_rounded(draw_flags(*operand.flags, once(view).count()).data(), once(view));
  const Distribution nan(Distribution::kConstant, 0, std::numeric_limits<double>::quiet_NaN(), 0);
  for (const Part& part : operand.unread) {
    TensorView unread = part.view;
    unread.data = static_cast<std::byte*>(view.data) + part.offset * size;
    nan.fill(unread, 0, unread.count());
  }
  return bytes;
}

// An operand's buffer on the device, and on the host as it was before the call and is after it.
struct Guarded {
  const Operand& operand;
  std::vector<std::byte> before, after;
  Memory memory;

  Guarded(const Runner& runner, const Operand& operand)
      : operand(operand), before(contents_of(operand)), after(before.size()), memory(runner, before.size()) {}

  // A sentence about the first change that the call may not make, or nothing. `written`: it may write the view.
  std::string changed(bool written) const {
    if (before == after) return "";
    const int64_t size = size_of(operand), each = each_of(operand);
    std::vector<bool> inside(before.size() / size);
    const Walk<1> elements = walk(operand.view);
    elements(0, elements.count(), [&](int64_t, int64_t length, const int64_t* at) {
      for (int64_t i = 0; i < length; ++i) inside[(operand.offset + at[0] + i * elements.step(0)) / each] = true;
    });
    const std::string name = operand.field->name;
    for (size_t i = 0; i < inside.size(); ++i) {
      if (std::memcmp(before.data() + i * size, after.data() + i * size, size) == 0) continue;
      if (!inside[i]) {
        return "memory outside " + name + " was overwritten, " + std::to_string(i * each) +
               " elements into a buffer of " + std::to_string(operand.elements) + " whose first " +
               std::to_string(operand.offset) + " are not its own";
      }
      if (!written) {
        return name + " was modified at element " + std::to_string(static_cast<int64_t>(i) * each - operand.offset) +
               " of its memory, expected it only to be read";
      }
    }
    return "";
  }
};

std::string outside(const Verdict& v) {
  return std::string(v.field) + ": " + std::to_string(v.failed) + " of " + std::to_string(v.elements) +
         " elements are outside the tolerance; worst at row " + std::to_string(v.row) + ", column " +
         std::to_string(v.column) + ": " + shortest(v.actual) + ", expected " + shortest(v.expected) + " within " +
         shortest(v.allowed);
}

std::string inexact(const std::string& field, const Differences& d) {
  return field + ": " + std::to_string(d.count) + " of " + std::to_string(d.elements) +
         " elements differ from the exact result; element " + std::to_string(d.first) + " is " + shortest(d.actual) +
         ", expected " + shortest(d.expected);
}

// The Args struct of a case with each tensor where `place` says.
template <class Place>
std::vector<std::byte> args_of(const Case& c, Place&& place) {
  std::vector<std::byte> args = c.args;
  for (const Field& field : c.definition->schema.fields) {
    const bool in_place = field.kind == FieldKind::out && !c.in_place.empty();
    const Operand* operand = is_tensor(field) ? c.find(in_place ? c.in_place : field.name) : nullptr;
    if (operand != nullptr) store_field(args, field, place(*operand, is_result(field)));
  }
  return args;
}

}  // namespace

Runner::Runner(const kw_table& table, int device) : table_(table), device_(device) {
  info_.size = sizeof(info_);
  must(table_.device_info(device, &info_));
  must(table_.stream_create(device, &stream_));
  must(table_.event_create(device, 0, &event_));
}

Runner::~Runner() {
  if (event_ != nullptr) table_.event_destroy(event_);
  if (stream_ != nullptr) table_.stream_destroy(stream_);
}

void Runner::must(int32_t status) const {
  if (status != 0) throw Error(code_of(status), table_.last_error());
}

void Runner::copy(void* to, const void* from, uint64_t bytes, kw_copy_kind kind) const {
  must(table_.copy(device_, to, from, bytes, kind, stream_));
}

void Runner::wait() const {
  must(table_.event_record(event_, stream_));
  must(table_.event_wait(event_));
}

// Whether the device still does what it is told: some errors end every later call of the process.
bool Runner::usable() const {
  try {
    uint32_t sent = 0x5eed, back = 0;
    const Memory memory(*this, 64);
    const Drain drain(*this);
    copy(memory.data(), &sent, sizeof(sent), KW_TO_DEVICE);
    copy(&back, memory.data(), sizeof(back), KW_TO_HOST);
    wait();
    return back == sent;
  } catch (const Error&) {
    return false;
  }
}

Outcome Runner::run(const Case& c) {
  Outcome outcome;
  try {
    run(c, outcome);
    if (!outcome.reasons.empty()) outcome.state = Outcome::failed;
  } catch (const Error& error) {
    const bool declined = error.code == Code::UNSUPPORTED;
    outcome.state = declined ? Outcome::declined : Outcome::failed;
    const char* code = kCodeNames[static_cast<int>(error.code)];
    outcome.reasons.push_back(declined ? error.what() : std::string(code) + ": " + error.what());
    outcome.lost = !declined && !usable();
  } catch (const std::exception& error) {
    outcome.state = Outcome::failed;
    outcome.reasons.push_back(error.what());
  }
  return outcome;
}

void Runner::run(const Case& c, Outcome& outcome) {
  if (c.definition == nullptr) throw Error(Code::UNSUPPORTED, c.op + ": this program has no definition of it");
  const kw_op* op = find_op(table_, c.op);
  if (op == nullptr) throw Error(Code::UNSUPPORTED, c.op + ": the library has no kernel for it");

  std::vector<std::unique_ptr<Guarded>> all;
  const Drain drain(*this);
  for (const Operand& operand : c.operands) {
    all.push_back(std::make_unique<Guarded>(*this, operand));
    const Guarded& made = *all.back();
    copy(made.memory.data(), made.before.data(), made.before.size(), KW_TO_DEVICE);
  }
  wait();
  const auto of = [&](const Operand& operand) -> Guarded& { return *all[&operand - c.operands.data()]; };
  launch(*op, args_of(c, [&](const Operand& o, bool) { return view_in(o, of(o).memory.data()); }), outcome);
  for (const auto& one : all) copy(one->after.data(), one->memory.data(), one->after.size(), KW_TO_HOST);
  wait();

  for (const auto& one : all) {
    const Operand& operand = one->operand;
    const std::string note = one->changed(is_result(*operand.field) || operand.field->name == c.in_place);
    if (!note.empty()) outcome.reasons.push_back(note);
  }
  const std::vector<std::byte> given =
      args_of(c, [&](const Operand& o, bool) { return view_in(o, of(o).before.data()); });
  const std::vector<std::byte> args = args_of(
      c, [&](const Operand& o, bool output) { return view_in(o, (output ? of(o).after : of(o).before).data()); });
  ReferenceOutputs references;
  c.definition->define(given.data(), RowList{}, references);
  for (const Verdict& verdict : compare_outputs(c.definition->schema, args.data(), RowList{}, references)) {
    if (verdict.failed > 0) outcome.reasons.push_back(outside(verdict));
  }
  const std::vector<Field> outputs = c.definition->outputs();
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (std::find(c.exact.begin(), c.exact.end(), outputs[i].name) == c.exact.end()) continue;
    const Differences found = differences(tensor_at(args.data(), outputs[i]), references.at(i));
    if (found.count > 0) outcome.reasons.push_back(inexact(outputs[i].name, found));
  }
}

// Plans and queues the call and waits for it. The workspace is poisoned, and nothing past it may be written.
void Runner::launch(const kw_op& op, const std::vector<std::byte>& args, Outcome& outcome) {
  must(op.supports(&info_, args.data()));
  // Notes the kernels even when the launch fails.
  struct Trace {
    const kw_table& table;
    std::vector<std::string>& kernels;
    Trace(const kw_table& table, std::vector<std::string>& kernels) : table(table), kernels(kernels) { table.trace(1); }
    ~Trace() {
      std::istringstream names(table.trace(0));
      for (std::string name; std::getline(names, name);) kernels.push_back(name);
    }
  };
  kw_plan* made = nullptr;
  const auto destroy = [&](kw_plan* plan) { op.plan_destroy(plan); };
  std::unique_ptr<Memory> workspace;
  std::vector<std::byte> poison;
  std::unique_ptr<kw_plan, decltype(destroy)> plan(nullptr, destroy);  // goes before the workspace
  const Drain drain(*this);
  {
    const Trace trace(table_, outcome.kernels);
    must(op.plan_create(&info_, args.data(), &made));
    plan.reset(made);
    const uint64_t bytes = op.plan_workspace(made);
    poison.assign(bytes + kWorkspaceGuard, kWorkspacePoison);
    workspace = std::make_unique<Memory>(*this, poison.size());
    copy(workspace->data(), poison.data(), poison.size(), KW_TO_DEVICE);
    must(op.plan_rebind(made, args.data(), bytes > 0 ? workspace->data() : nullptr));
    must(op.plan_enqueue(made, stream_));
  }
  wait();
  const uint64_t bytes = poison.size() - kWorkspaceGuard;
  copy(poison.data() + bytes, workspace->data() + bytes, kWorkspaceGuard, KW_TO_HOST);
  wait();
  if (std::any_of(poison.end() - kWorkspaceGuard, poison.end(), [](std::byte b) { return b != kWorkspacePoison; })) {
    outcome.reasons.push_back("memory past the workspace of " + std::to_string(bytes) + " bytes was overwritten");
  }
}

}  // namespace kw::check
