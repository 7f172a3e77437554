// The `chip` device's operators: views, copies, autocast and the host fallback. shim.h names the other parts.
//
// An operator without a chip kernel runs on the host over the same bytes; while it runs, the CPU allocator hands out
// arena memory, so its results need no copy. The Python side (device.py, build.py) reads the counters and sets the
// policy through the C functions at the end.

#include "shim.h"
#include "shim_generator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/MemoryOverlap.h>
#include <ATen/SDPBackend.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_copy_from.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/record_function.h>
#include <c10/core/CPUAllocator.h>
#include <torch/library.h>

#include "autocast_lists.h"  // cut out of torch's ATen/autocast_mode.h by build.py

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>

// Of ATen/autocast_mode.h, which would bring the declarations of all of torch's operators along.
namespace at::autocast {
TORCH_API Tensor cached_cast(at::ScalarType to_type, const Tensor& tensor, c10::DeviceType device_type);
TORCH_API at::ScalarType get_autocast_dtype(at::DeviceType device_type);
}  // namespace at::autocast

using namespace tapeout;

namespace {

using at::Tensor;
using c10::IValue;

// Names of the aten operators that are running in this thread, outermost first. Kept only once somebody has asked.
std::vector<std::string>& running_operators() {
  static thread_local std::vector<std::string> names;
  return names;
}

void watch_operators() {
  auto begin = [](const at::RecordFunction& function) -> std::unique_ptr<at::ObserverContext> {
    running_operators().emplace_back(function.name());
    return nullptr;
  };
  auto end = [](const at::RecordFunction&, at::ObserverContext*) {
    if (!running_operators().empty()) {
      running_operators().pop_back();
    }
  };
  at::addGlobalCallback(at::RecordFunctionCallback(begin, end).scopes({at::RecordScope::FUNCTION}));
}

// ------------------------------------------------------------------------------------------------ accounting

enum class FallbackPolicy : int { count = 0, warn = 1, error = 2 };

struct OpCount {
  int64_t calls = 0;
  int64_t bytes = 0;
};

// What ran where, by operator name. Bytes are those of the tensors an operator read and returned.
class Ledger {
 public:
  void fallback(const std::string& name, int64_t bytes) {
    if (time_is_kept()) {
      clock_calls.host_operator(name.c_str());
    }
    std::lock_guard<std::mutex> lock(mutex_);
    auto& count = fallbacks_[name];
    ++count.calls;
    count.bytes += bytes;
    if (count.calls == 1 && policy == FallbackPolicy::warn) {
      TORCH_WARN(name, " has no kernel for the chip and runs on the host");
    }
  }
  void refuse_if_forbidden(const std::string& name) const {
    TORCH_CHECK_NOT_IMPLEMENTED(policy != FallbackPolicy::error, name,
                                " has no kernel for the chip, and TAPEOUT_FALLBACK=error forbids running it on the "
                                "host. Compile the code around it with torch.compile, or unset TAPEOUT_FALLBACK.");
  }
  void on_chip(const std::string& name, int64_t calls) {
    std::lock_guard<std::mutex> lock(mutex_);
    on_chip_[name] += calls;
  }
  std::string text() {
    std::lock_guard<std::mutex> lock(mutex_);
    std::ostringstream out;
    for (auto& [name, count] : fallbacks_) {
      out << "fallback\t" << name << "\t" << count.calls << "\t" << count.bytes << "\n";
    }
    for (auto& [name, calls] : on_chip_) {
      out << "chip\t" << name << "\t" << calls << "\t0\n";
    }
    out << "copy\thost_to_chip\t" << to_chip_calls << "\t" << to_chip_bytes << "\n";
    out << "copy\tchip_to_host\t" << to_host_calls << "\t" << to_host_bytes << "\n";
    return out.str();
  }
  void reset() {
    std::lock_guard<std::mutex> lock(mutex_);
    fallbacks_.clear();
    on_chip_.clear();
    to_chip_calls = to_chip_bytes = to_host_calls = to_host_bytes = 0;
  }

  std::atomic<FallbackPolicy> policy{FallbackPolicy::count};
  std::atomic<int64_t> to_chip_calls{0}, to_chip_bytes{0}, to_host_calls{0}, to_host_bytes{0};

 private:
  std::mutex mutex_;
  std::map<std::string, OpCount> fallbacks_;
  std::map<std::string, int64_t> on_chip_;
};

Ledger& ledger() {
  static auto* the_ledger = new Ledger;
  return *the_ledger;
}

// ------------------------------------------------------------------------------------------------ host aliases

bool on_chip(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == kChip; }

Tensor rewrap(const Tensor& tensor, c10::Storage storage, c10::DispatchKey key) {
  auto result = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(key), tensor.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  return result;
}

void drop_storage(void* storage) { delete static_cast<c10::Storage*>(storage); }

// The chip that an operator is for: of its first tensor on a chip, else the one that it is told; -1: the current one.
DeviceIndex chip_of(c10::ArrayRef<IValue> arguments) {
  if (C10_LIKELY(chip_count == 1)) {
    return -1;
  }
  DeviceIndex told = -1;
  for (auto& value : arguments) {
    if (value.isTensor()) {
      if (on_chip(value.toTensor())) {
        return value.toTensor().device().index();
      }
    } else if (value.isDevice()) {
      told = value.toDevice().type() == kChip ? value.toDevice().index() : told;
    } else if (value.isList()) {
      for (const IValue& item : value.toListRef()) {
        if (item.isTensor() && on_chip(item.toTensor())) {
          return item.toTensor().device().index();
        }
      }
    }
  }
  return told;
}

c10::ArrayRef<IValue> arguments_of(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  auto count = op.schema().arguments().size();
  return c10::ArrayRef<IValue>(stack).slice(stack.size() - count);
}

// A storage over the same bytes that says it is on `device` and keeps the original alive.
c10::Storage alias(const c10::Storage& storage, Device device, c10::Allocator* allocator) {
  auto* keeper = new c10::Storage(storage);
  return c10::Storage(c10::Storage::use_byte_size_t(), storage.nbytes(),
                      at::DataPtr(storage.mutable_data(), keeper, &drop_storage, device), allocator, true);
}

// The same elements as a CPU tensor, without a copy.
Tensor as_host(const Tensor& tensor) {
  if (!on_chip(tensor)) {
    return tensor;
  }
  refuse_in_timing_only("an operation on the host over the chip's memory");
  refuse_in_capture("an operation on the host over the chip's memory");
  auto result = rewrap(tensor, alias(tensor.storage(), c10::kCPU, c10::GetCPUAllocator()), c10::DispatchKey::CPU);
  result._set_conj(tensor.is_conj());
  result._set_neg(tensor.is_neg());
  return result;
}

// A host result as a chip tensor. Results made under AllocateHostResultsInHbm are taken over without a copy, views
// of an argument become views of that argument's storage, and anything else is copied into HBM.
Tensor as_chip(const Tensor& tensor, const std::vector<Tensor>& arguments) {
  if (!tensor.defined() || tensor.device().type() != c10::kCPU) {
    return tensor;
  }
  TORCH_CHECK_NOT_IMPLEMENTED(tensor.layout() == c10::kStrided, "the chip has dense tensors and sparse ones (COO), not ",
                              tensor.layout(), ": move the operands to the CPU first");
  auto storage = tensor.storage();
  const void* data = storage.data();
  Tensor result;
  if (data != nullptr && in_hbm(data)) {
    for (auto& argument : arguments) {
      if (argument.storage().data() == data) {
        result = rewrap(tensor, argument.storage(), c10::DispatchKey::PrivateUse1);
        break;
      }
    }
    if (!result.defined()) {
      result = rewrap(tensor, alias(storage, Device(kChip, chip_that_holds(data)), &hbm_allocator),
                      c10::DispatchKey::PrivateUse1);
    }
  } else {
    auto bytes = storage.nbytes();
    auto memory = hbm_allocator.allocate(bytes);
    if (bytes != 0) {
      std::memcpy(memory.get(), data, bytes);
    }
    result = rewrap(tensor, c10::Storage(c10::Storage::use_byte_size_t(), bytes, std::move(memory), &hbm_allocator, true),
                    c10::DispatchKey::PrivateUse1);
  }
  result._set_conj(tensor.is_conj());
  result._set_neg(tensor.is_neg());
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    result.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  return result;
}

// ------------------------------------------------------------------------------------------------ the fallback

int64_t tensor_bytes(const IValue& value) {
  if (value.isTensor()) {
    auto& tensor = value.toTensor();
    return tensor.defined() && tensor.layout() == c10::kStrided ? static_cast<int64_t>(tensor.nbytes()) : 0;
  }
  int64_t sum = 0;
  if (value.isTensorList()) {
    for (const Tensor& tensor : value.toTensorVector()) {
      sum += static_cast<int64_t>(tensor.nbytes());
    }
  }
  return sum;
}

IValue to_host(const IValue& value, std::vector<Tensor>& chip_arguments) {
  auto convert = [&](const Tensor& tensor) {
    if (on_chip(tensor)) {
      chip_arguments.push_back(tensor);
    }
    return as_host(tensor);
  };
  if (value.isTensor()) {
    return convert(value.toTensor());
  }
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      list.push_back(convert(tensor));
    }
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor ? std::optional<Tensor>(convert(*tensor)) : std::nullopt);
    }
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == kChip) {
    return Device(c10::kCPU);
  }
  if (value.isGenerator()) {
    return host_generator(value.toGenerator());
  }
  return value;
}

// A written argument whose host alias was resized or re-strided (out= variants do) takes over what it became.
void adopt_rewritten(const Tensor& chip, const Tensor& host, const std::vector<Tensor>& arguments) {
  if (!on_chip(chip) || (chip.sizes() == host.sizes() && chip.strides() == host.strides() &&
                         (host.numel() == 0 || chip.const_data_ptr() == host.const_data_ptr()))) {
    return;
  }
  auto rewritten = as_chip(host, arguments);
  auto* impl = chip.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(rewritten.storage());
  impl->set_sizes_and_strides(rewritten.sizes(), rewritten.strides(), rewritten.storage_offset());
}

// Chip tensors as tensors of the meta device, which have shapes and no values: how results look in timing alone.
// Tensors that share memory share it there too, so that a view is known for one.
class Shapes {
 public:
  Tensor of(const Tensor& tensor) {
    if (!on_chip(tensor)) {
      return tensor;
    }
    auto& chip = tensor.storage();
    auto found = storages_.find(chip.unsafeGetStorageImpl());
    if (found == storages_.end()) {
      c10::Storage meta(c10::Storage::use_byte_size_t(), chip.nbytes(), at::DataPtr(nullptr, Device(c10::kMeta)),
                        c10::GetAllocator(c10::kMeta), true);
      found = storages_.emplace(chip.unsafeGetStorageImpl(), std::make_pair(meta, chip)).first;
    }
    return rewrap(tensor, found->second.first, c10::DispatchKey::Meta);
  }
  IValue of(const IValue& value) {
    if (value.isTensor()) {
      return of(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) {
        list.push_back(of(tensor));
      }
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<Tensor>(of(*tensor)) : std::nullopt);
      }
      return list;
    }
    if (value.isDevice() && value.toDevice().type() == kChip) {
      return Device(c10::kMeta);
    }
    return value.isGenerator() ? IValue() : value;
  }
  // A result: a view of what it is a view of, else new memory on the chip.
  Tensor on_chip_again(const Tensor& result) const {
    if (!result.defined() || result.device().type() == kChip) {
      return result;
    }
    for (auto& [impl, pair] : storages_) {
      if (result.storage().unsafeGetStorageImpl() == pair.first.unsafeGetStorageImpl()) {
        return rewrap(result, pair.second, c10::DispatchKey::PrivateUse1);
      }
    }
    return at::detail::empty_strided_generic(result.sizes(), result.strides(), &hbm_allocator,
                                             c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                             result.scalar_type());
  }

 private:
  std::map<const c10::StorageImpl*, std::pair<c10::Storage, c10::Storage>> storages_;  // meta, chip
};

// An operator without a chip kernel in timing alone: results of the right shapes. Its time is unknown, as ever.
void run_on_shapes(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto name = c10::toString(op.operator_name());
  auto& schema = op.schema();
  auto argument_count = schema.arguments().size();
  auto first = stack->size() - argument_count;
  std::vector<IValue> original(stack->begin() + first, stack->end());
  Shapes shapes;
  for (size_t i = 0; i < argument_count; ++i) {
    (*stack)[first + i] = shapes.of((*stack)[first + i]);
  }
  std::vector<IValue> meta(stack->begin() + first, stack->end());
  try {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::Meta), stack);
  } catch (const std::exception&) {  // torch's own text is advice to the authors of operators
    TORCH_CHECK_NOT_IMPLEMENTED(false, name, " has no kernel for the chip, and in timing alone the shape of its result "
                                "is not known: it depends on values, and nothing was computed");
  }
  for (size_t i = 0; i < argument_count; ++i) {
    auto* alias_info = schema.arguments()[i].alias_info();
    if (alias_info != nullptr && alias_info->isWrite() && original[i].isTensor() && on_chip(original[i].toTensor())) {
      auto chip = original[i].toTensor();
      if (chip.sizes() != meta[i].toTensor().sizes()) {
        at::native::resize_(chip, meta[i].toTensor().sizes(), std::nullopt);
      }
    }
  }
  auto return_count = schema.returns().size();
  auto first_return = stack->size() - return_count;
  for (size_t i = 0; i < return_count; ++i) {
    auto& value = (*stack)[first_return + i];
    auto* alias_info = schema.returns()[i].alias_info();
    bool is_argument = false;
    for (size_t k = 0; alias_info != nullptr && alias_info->isWrite() && k < argument_count; ++k) {
      auto* argument_alias = schema.arguments()[k].alias_info();
      if (argument_alias != nullptr && argument_alias->isWrite() && *alias_info == *argument_alias) {
        value = original[k];
        is_argument = true;
        break;
      }
    }
    if (is_argument) {
      continue;
    }
    if (value.isTensor()) {
      value = shapes.on_chip_again(value.toTensor());
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) {
        list.push_back(shapes.on_chip_again(tensor));
      }
      value = list;
    }
  }
  ledger().fallback(name, 0);
}

void run_on_host(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto name = c10::toString(op.operator_name());
  ledger().refuse_if_forbidden(name);
  refuse_in_capture(("running " + name + " on the host").c_str());
  if (timing_only()) {
    run_on_shapes(op, stack);
    return;
  }
  auto& schema = op.schema();
  auto argument_count = schema.arguments().size();
  auto first = stack->size() - argument_count;
  std::vector<IValue> original(stack->begin() + first, stack->end());
  std::vector<Tensor> chip_arguments;
  int64_t bytes = 0;
  for (size_t i = 0; i < argument_count; ++i) {
    auto& value = (*stack)[first + i];
    bytes += tensor_bytes(value);
    if (value.isNone() && schema.arguments()[i].name() == "generator") {
      value = host_generator(default_generator());
    } else {
      value = to_host(value, chip_arguments);
    }
  }
  std::vector<IValue> host(stack->begin() + first, stack->end());
  {
    AllocateHostResultsInHbm in_hbm;
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  for (size_t i = 0; i < argument_count; ++i) {
    auto* alias_info = schema.arguments()[i].alias_info();
    if (alias_info == nullptr || !alias_info->isWrite()) {
      continue;
    }
    if (original[i].isTensor()) {
      adopt_rewritten(original[i].toTensor(), host[i].toTensor(), chip_arguments);
    } else if (original[i].isTensorList()) {
      auto chip_list = original[i].toTensorVector();
      auto host_list = host[i].toTensorVector();
      for (size_t k = 0; k < chip_list.size(); ++k) {
        adopt_rewritten(chip_list[k], host_list[k], chip_arguments);
      }
    }
  }
  auto return_count = schema.returns().size();
  auto first_return = stack->size() - return_count;
  for (size_t i = 0; i < return_count; ++i) {
    auto& value = (*stack)[first_return + i];
    bytes += tensor_bytes(value);
    auto* alias_info = schema.returns()[i].alias_info();
    bool is_argument = false;
    for (size_t k = 0; alias_info != nullptr && alias_info->isWrite() && k < argument_count; ++k) {
      auto* argument_alias = schema.arguments()[k].alias_info();
      if (argument_alias != nullptr && argument_alias->isWrite() && *alias_info == *argument_alias) {
        value = original[k];
        is_argument = true;
        break;
      }
    }
    if (is_argument) {
      continue;
    }
    if (value.isTensor()) {
      value = as_chip(value.toTensor(), chip_arguments);
    } else if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) {
        list.push_back(as_chip(tensor, chip_arguments));
      }
      value = list;
    }
  }
  ledger().fallback(name, bytes);
}

// ------------------------------------------------------------------------------------------------ checks of arguments

// Before an operator runs on the chip, torch's own function of shapes (its implementation for the meta device) is asked
// whether the arguments belong together: their shapes, types and whether they overlap. A call that looks like one found
// in order is not asked about again. What the function of shapes refuses is put to the host, with copies: its error is
// the caller's, and where the host finds no fault there is none.

// What torch's checks of a call may depend on, in words.
class Likeness {
 public:
  // False: an argument of a kind that is not known here, or a tensor without memory of its own.
  bool take(const IValue& value) {
    if (value.isTensor()) {
      return take(value.toTensor());
    }
    if (value.isNone()) {
      words_.push_back(kNone);
    } else if (value.isBool()) {
      words_.insert(words_.end(), {kBool, value.toBool()});
    } else if (value.isInt()) {
      words_.insert(words_.end(), {kInt, value.toInt()});
    } else if (value.isDouble()) {
      double number = value.toDouble();
      int64_t bits = 0;
      std::memcpy(&bits, &number, sizeof bits);
      words_.insert(words_.end(), {kDouble, bits});
    } else if (value.isDevice()) {
      words_.insert(words_.end(), {kDevice, static_cast<int64_t>(value.toDevice().type())});
    } else if (value.isGenerator()) {
      words_.push_back(kGenerator);
    } else if (value.isString()) {
      auto& text = value.toStringRef();
      words_.insert(words_.end(), {kString, static_cast<int64_t>(text.size())});
      words_.insert(words_.end(), text.begin(), text.end());
    } else if (value.isList()) {
      auto items = value.toListRef();
      words_.insert(words_.end(), {kList, static_cast<int64_t>(items.size())});
      return std::all_of(items.begin(), items.end(), [this](const IValue& item) { return take(item); });
    } else {
      return false;
    }
    return true;
  }
  void start(const c10::OperatorHandle& op) {
    words_.assign(1, reinterpret_cast<int64_t>(&op.schema()));
    storages_.clear();
  }
  const std::vector<int64_t>& words() const { return words_; }

 private:
  enum Kind : int64_t { kNone = -1, kBool = -2, kInt = -3, kDouble = -4, kDevice = -5, kGenerator = -6, kString = -7, kList = -8 };

  bool take(const Tensor& tensor) {
    if (!tensor.defined()) {
      words_.push_back(kNone);
      return true;
    }
    auto* impl = tensor.unsafeGetTensorImpl();
    if (tensor.layout() != c10::kStrided || !impl->has_storage()) {
      return false;
    }
    words_.push_back(static_cast<int64_t>(tensor.device().type()) | static_cast<int64_t>(tensor.scalar_type()) << 8 |
                     static_cast<int64_t>(impl->is_wrapped_number()) << 16 | tensor.dim() << 24);
    words_.insert(words_.end(), tensor.sizes().begin(), tensor.sizes().end());
    words_.insert(words_.end(), tensor.strides().begin(), tensor.strides().end());
    auto* storage = impl->unsafe_storage().unsafeGetStorageImpl();
    auto start = tensor.storage_offset() * static_cast<int64_t>(tensor.itemsize());
    for (size_t i = 0; i < storages_.size(); ++i) {
      if (storages_[i].first == storage) {  // how tensors that share memory lie to each other
        words_.insert(words_.end(), {static_cast<int64_t>(i), start - storages_[i].second});
        return true;
      }
    }
    storages_.emplace_back(storage, start);
    words_.push_back(kNone);
    return true;
  }

  std::vector<int64_t> words_;
  std::vector<std::pair<const c10::StorageImpl*, int64_t>> storages_;
};

struct HashOfWords {
  size_t operator()(const std::vector<int64_t>& words) const {
    uint64_t hash = words.size();
    for (auto word : words) {
      hash = (hash ^ static_cast<uint64_t>(word)) * 0x9E3779B97F4A7C15u;
      hash ^= hash >> 29;
    }
    return hash;
  }
};

// What of an operator decides how its arguments are checked.
struct Nature {
  // torch makes and checks what it gives such operators to write, where a caller has not given it out= himself.
  bool makes_results = false;
  // The kernel checks shapes: asking for them would take long or be in vain.
  bool checks_itself = false;
  // Tensors of the host are taken beside those of the chip: lengths of sequences, where tensors lie in memory, and what
  // a gradient scaler or a fused optimizer is told.
  bool takes_host_tensors = false;
  // A tensor of the host with one element stands for a number, as beside a GPU's.
  bool takes_host_numbers = false;
  // Indices may lie on the host.
  bool is_indexed = false;
  // What it writes may be one of its arguments: any, or the first.
  bool is_elementwise = false;
  bool has_form_in_place = false;
  // The host would draw from its own generator.
  bool draws = false;
  size_t type_asked_for = SIZE_MAX;  // place of the argument "dtype"
  std::vector<size_t> written;  // places of the arguments it writes
};

// Names of operators whose result is described once, for the form that returns it, the one in place and the one with
// out=.
const std::unordered_set<std::string>& structured_operators() {
  static const auto* names = [] {
    auto* found = new std::unordered_set<std::string>;
    for (auto& name : c10::Dispatcher::singleton().getAllOpNamesForDispatchKey(
             c10::DispatchKey::CompositeExplicitAutogradNonFunctional)) {
      found->insert(name.name);
    }
    return found;
  }();
  return *names;
}

bool is_operator(const std::string& name) {
  static const auto* names = [] {
    auto* found = new std::unordered_set<std::string>;
    for (auto& known : c10::Dispatcher::singleton().getAllOpNames()) {
      found->insert(known.name);
    }
    return found;
  }();
  return names->count(name) != 0;
}

Nature find_nature(const c10::OperatorHandle& op) {
  static const std::unordered_set<std::string> checks_itself = {
      "aten::native_layer_norm", "aten::convolution_overrideable", "aten::convolution_backward_overrideable",
      "aten::index_put_", "aten::_index_put_impl_", "aten::_scaled_dot_product_fused_attention_overrideable",
      "aten::_scaled_dot_product_fused_attention_overrideable_backward"};
  static const std::unordered_set<std::string> host_tensors = {
      "aten::_ctc_loss", "aten::_ctc_loss_backward", "aten::_pack_padded_sequence", "aten::tensor_split",
      "aten::record_stream", "aten::_copy_from_and_resize", "aten::set_", "aten::_foreach_copy_"};
  static const std::unordered_set<std::string> host_numbers = {
      "aten::fill_", "aten::masked_fill", "aten::masked_fill_", "aten::index_fill", "aten::index_fill_", "aten::isin",
      "aten::linspace", "aten::logspace", "aten::where", "aten::clamp", "aten::lerp"};
  auto& name = op.operator_name().name;
  auto begins = [&](const char* start) { return name.rfind(start, 0) == 0; };
  Nature nature;
  nature.makes_results = structured_operators().count(name) != 0;
  nature.checks_itself = checks_itself.count(name) != 0 || op.hasTag(at::Tag::dynamic_output_shape) ||
                         op.hasTag(at::Tag::data_dependent_output);
  nature.takes_host_tensors = host_tensors.count(name) != 0 || begins("aten::_fused_") || begins("aten::_nested");
  nature.takes_host_numbers =
      host_numbers.count(name) != 0 || begins("aten::_foreach_") || op.hasTag(at::Tag::pointwise);
  nature.is_indexed = name.find("index_put") != std::string::npos || name == "aten::index" || name == "aten::_unsafe_index";
  nature.is_elementwise = op.hasTag(at::Tag::pointwise);
  nature.draws = op.hasTag(at::Tag::nondeterministic_seeded);
  nature.has_form_in_place = name.back() == '_' || is_operator(name + "_");
  auto& arguments = op.schema().arguments();
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i].name() == "dtype") {
      nature.type_asked_for = i;
    }
    if (arguments[i].alias_info() != nullptr && arguments[i].alias_info()->isWrite()) {
      nature.written.push_back(i);
      nature.makes_results = nature.makes_results && arguments[i].is_out();
    }
  }
  nature.makes_results = nature.makes_results && !nature.written.empty();
  return nature;
}

const Nature& nature_of(const c10::OperatorHandle& op) {
  static thread_local std::unordered_map<const c10::FunctionSchema*, Nature> known;
  auto found = known.find(&op.schema());
  return found != known.end() ? found->second : known.emplace(&op.schema(), find_nature(op)).first->second;
}

template <typename Function>
void for_each_tensor(const IValue& value, const Function& function) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) {
      function(value.toTensor());
    }
  } else if (value.isList()) {
    for (const IValue& item : value.toListRef()) {
      for_each_tensor(item, function);
    }
  }
}

void check_devices(const c10::OperatorHandle& op, const Nature& nature, c10::ArrayRef<IValue> arguments) {
  if (nature.takes_host_tensors) {
    return;
  }
  std::optional<Device> chip;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool are_indices = nature.is_indexed && i == 1;
    const bool takes_numbers = nature.takes_host_numbers || (nature.is_indexed && i != 0);
    for_each_tensor(arguments[i], [&](const Tensor& tensor) {
      const bool is_number = tensor.unsafeGetTensorImpl()->is_wrapped_number() || (tensor.dim() == 0 && takes_numbers);
      if (tensor.device().type() == kChip) {
        chip = chip.value_or(tensor.device());
      }
      const auto first = chip.value_or(Device(kChip, current_device()));
      TORCH_CHECK(tensor.device() == first || (tensor.device().type() != kChip && (is_number || are_indices)),
                  "Expected all tensors to be on the same device, but found at least two devices, ", first, " and ",
                  tensor.device(), "! (argument '", op.schema().arguments()[i].name(), "' of ", op.operator_name().name, ")");
    });
  }
}

// Whether a tensor that is written has elements that share memory, or shares some with another argument.
bool written_memory_is_shared(const Nature& nature, c10::ArrayRef<IValue> arguments) {
  bool shared = false;
  for (auto place : nature.written) {
    for_each_tensor(arguments[place], [&](const Tensor& written) {
      shared = shared || at::has_internal_overlap(written) == at::MemOverlap::Yes;
      for (size_t i = 0; i < arguments.size(); ++i) {
        const bool may_be_it = i == place || nature.is_elementwise || (i == 0 && nature.has_form_in_place);
        for_each_tensor(arguments[i], [&](const Tensor& other) {
          const bool is_it = written.is_same(other);
          shared = shared || (is_it ? !may_be_it && written.numel() != 0
                                    : written.is_alias_of(other) &&
                                          at::get_overlap_status(written, other) != at::MemOverlapStatus::No);
        });
      }
    });
  }
  return shared;
}

// Whether a result given as out= has another type than the first argument: then it may be one that torch does not allow.
bool result_has_another_type(const Nature& nature, c10::ArrayRef<IValue> arguments) {
  auto first = std::find_if(arguments.begin(), arguments.end(), [](const IValue& value) { return value.isTensor(); });
  return nature.makes_results && std::any_of(nature.written.begin(), nature.written.end(), [&](size_t place) {
           return arguments[place].isTensor() &&
                  arguments[place].toTensor().scalar_type() != first->toTensor().scalar_type();
         });
}

// Chip tensors as tensors of the host with bytes of their own; tensors that share memory share it there too.
class HostCopies {
 public:
  IValue of(const IValue& value) {
    if (value.isTensor()) {
      return of(value.toTensor());
    }
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) {
        list.push_back(of(tensor));
      }
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector()) {
        list.push_back(tensor ? std::optional<Tensor>(of(*tensor)) : std::nullopt);
      }
      return list;
    }
    if (value.isDevice() && value.toDevice().type() == kChip) {
      return Device(c10::kCPU);
    }
    return value.isGenerator() ? IValue(at::detail::createCPUGenerator()) : value;
  }

 private:
  Tensor of(const Tensor& tensor) {
    if (!tensor.defined()) {
      return tensor;
    }
    auto& own = tensor.storage();
    auto found = storages_.find(own.unsafeGetStorageImpl());
    if (found == storages_.end()) {
      c10::Storage copy(c10::Storage::use_byte_size_t(), own.nbytes(), c10::GetCPUAllocator()->allocate(own.nbytes()),
                        c10::GetCPUAllocator(), true);
      if (own.nbytes() != 0) {
        std::memcpy(copy.mutable_data(), own.data(), own.nbytes());
      }
      found = storages_.emplace(own.unsafeGetStorageImpl(), std::move(copy)).first;
    }
    auto result = rewrap(tensor, found->second, c10::DispatchKey::CPU);
    result._set_conj(tensor.is_conj());
    result._set_neg(tensor.is_neg());
    if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
      result.unsafeGetTensorImpl()->set_wrapped_number(true);
    }
    return result;
  }

  std::map<const c10::StorageImpl*, c10::Storage> storages_;
};

bool values_can_be_read() { return !timing_only() && !capturing; }

// Runs an operator on the host with copies of its arguments, for the error that it raises there.
void refuse_as_the_host_does(const c10::OperatorHandle& op, c10::ArrayRef<IValue> arguments) {
  HostCopies copies;
  torch::jit::Stack host;
  for (auto& value : arguments) {
    host.push_back(copies.of(value));
  }
  try {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &host);
  } catch (const c10::NotImplementedError& error) {
    if (std::strstr(error.what(), "not implemented for '") != nullptr) {  // the host has the operator, not for the type
      throw;
    }
  }
}

constexpr int64_t kMostCopiedForTypes = int64_t{1} << 28;  // bytes

// The host has not every operator for truth values and integers, where the chip's kernels would compute something. It is
// asked once for an operator and the types of its arguments.
void check_types(const c10::OperatorHandle& op, const Nature& nature, c10::ArrayRef<IValue> arguments) {
  static thread_local std::unordered_set<uint64_t> in_order;
  bool has_integers = false;
  uint64_t types = reinterpret_cast<uintptr_t>(&op.schema());
  auto mix = [&types](uint64_t word) { types = ((types ^ word) * 0x9E3779B97F4A7C15u) ^ (types >> 31); };
  for (size_t i = 0; i < arguments.size(); ++i) {
    auto& value = arguments[i];
    mix(value.isInt() && i == nature.type_asked_for ? 64 + value.toInt() : value.isScalar() + 2 * value.isDouble() + 4 * value.isBool());
    for_each_tensor(value, [&](const Tensor& tensor) {
      auto type = tensor.scalar_type();
      has_integers = has_integers || c10::isIntegralType(type, /*includeBool=*/true);
      mix(256 + 2 * static_cast<uint64_t>(type) + (tensor.dim() == 0));
    });
  }
  if (!has_integers || nature.draws || !values_can_be_read() || in_order.count(types) != 0) {
    return;
  }
  int64_t bytes = 0;
  for (auto& value : arguments) {
    for_each_tensor(value, [&](const Tensor& tensor) {
      bytes += tensor.layout() == c10::kStrided ? static_cast<int64_t>(tensor.storage().nbytes()) : kMostCopiedForTypes;
    });
  }
  if (bytes >= kMostCopiedForTypes) {
    return;
  }
  try {
    refuse_as_the_host_does(op, arguments);
  } catch (const c10::Error& error) {
    if (std::strstr(error.what(), "ZeroDivisionError") == nullptr) {  // which is about values, and no device raises it
      throw;
    }
  }
  in_order.insert(types);
}

void check_arguments(const c10::OperatorHandle& op, const torch::jit::Stack& stack) {
  constexpr size_t kMostRemembered = 1 << 16;
  static thread_local std::unordered_set<std::vector<int64_t>, HashOfWords> in_order;
  static thread_local Likeness likeness;
  auto arguments = arguments_of(op, stack);
  auto& nature = nature_of(op);
  auto is_new = [&](size_t place) {  // a tensor that Python has seen has an object there
    return arguments[place].isTensor() &&
           arguments[place].toTensor().unsafeGetTensorImpl()->pyobj_slot()->load_pyobj() == nullptr;
  };
  check_devices(op, nature, arguments);  // which torch leaves to the kernels, for the results it makes too
  check_types(op, nature, arguments);
  likeness.start(op);
  if ((nature.makes_results && std::all_of(nature.written.begin(), nature.written.end(), is_new)) ||
      !std::all_of(arguments.begin(), arguments.end(), [&](const IValue& value) { return likeness.take(value); }) ||
      in_order.count(likeness.words()) != 0) {
    return;
  }
  auto words = likeness.words();  // checking may call operators, which are checked
  bool doubtful = written_memory_is_shared(nature, arguments) || result_has_another_type(nature, arguments);
  if (!nature.checks_itself) {
    Shapes shapes;
    torch::jit::Stack meta;
    for (auto& value : arguments) {
      meta.push_back(shapes.of(value));
    }
    try {
      op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::Meta), &meta);
    } catch (const c10::NotImplementedError&) {
      // torch has no function of shapes for it: what it is given is for its own kernel to check
    } catch (const c10::Error&) {
      if (!values_can_be_read()) {
        throw;
      }
      doubtful = true;
    } catch (const std::exception&) {  // from a function of shapes in Python, some of which refuse too much
      doubtful = true;
    }
  }
  if (doubtful && values_can_be_read()) {
    refuse_as_the_host_does(op, arguments);
  }
  if (in_order.size() >= kMostRemembered) {
    in_order.clear();
  }
  in_order.insert(std::move(words));
}

// What every operator comes to first. Its kernel, if there is one, or ops/fallback.py is registered for PrivateUse3, a
// key that no device has. The chip of its tensors is the current one meanwhile.
void check_and_run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  OnChip of_tensors(chip_of(arguments_of(op, *stack)));
  check_arguments(op, *stack);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::PrivateUse3), stack);
}

// Operators that torch itself takes no number of the host for, beside tensors of a device: such a number goes to the chip.
// One of float64 takes the type of the tensors there, which it does not widen, and which the chip can compute in.
void bring_numbers_and_run(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  OnChip of_tensors(chip_of(arguments_of(op, *stack)));
  auto first = stack->end() - static_cast<int64_t>(op.schema().arguments().size());
  std::optional<at::ScalarType> type;
  for (auto value = first; value != stack->end(); ++value) {
    if (value->isTensor() && on_chip(value->toTensor()) && value->toTensor().dim() != 0 &&
        value->toTensor().is_floating_point()) {
      type = value->toTensor().scalar_type();
    }
  }
  for (auto value = first; value != stack->end(); ++value) {
    if (value->isTensor() && value->toTensor().defined() && value->toTensor().is_cpu() && value->toTensor().dim() == 0) {
      auto& number = value->toTensor();
      *value = number.to(Device(kChip, current_device()), type && number.scalar_type() == at::kDouble ? *type : number.scalar_type());
    }
  }
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::PrivateUse3), stack);
}

// As between two GPUs: what is not of the destination's type, or not in one piece, is made so on its own chip, before and
// after the bytes cross the links.
Tensor copy_between_chips(const Tensor& source, const Tensor& destination) {
  refuse_in_capture("copying a tensor from one chip to another");
  auto sent = source.to(destination.scalar_type()).expand(destination.sizes()).resolve_conj().resolve_neg().contiguous();
  Tensor received = destination;
  if (!destination.is_contiguous() || destination.is_conj() || destination.is_neg()) {
    OnChip of_destination(destination.device());
    received = at::detail::empty_generic(destination.sizes(), &hbm_allocator,
                                         c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), destination.scalar_type(),
                                         std::nullopt);
  }
  note_copy_between(sent.device().index(), received.device().index(), sent.nbytes());
  if (!timing_only() && sent.nbytes() != 0) {
    std::memcpy(received.mutable_data_ptr(), sent.const_data_ptr(), sent.nbytes());
  }
  if (!received.is_same(destination)) {
    destination.copy_(received);
  }
  return destination;
}

// torch asks for a copy without having checked whether the one fits into the other.
Tensor check_and_copy(const Tensor& source, const Tensor& destination, bool non_blocking) {
  const bool strided = source.layout() == c10::kStrided && destination.layout() == c10::kStrided;
  const bool simple = strided && source.sizes() == destination.sizes() && !source.is_alias_of(destination) &&
                      destination.is_contiguous();
  if (strided && !simple) {
    Shapes shapes;
    auto shape_of = [&](const Tensor& tensor) {
      return on_chip(tensor) ? shapes.of(tensor)
                             : at::detail::empty_strided_meta(tensor.sizes(), tensor.strides(), tensor.scalar_type());
    };
    auto to = shape_of(destination), from = shape_of(source);
    at::TensorIteratorConfig().add_output(to).add_const_input(from).resize_outputs(false).check_all_same_dtype(false).build();
  }
  if (on_chip(source) && on_chip(destination) && source.device() != destination.device()) {
    return copy_between_chips(source, destination);
  }
  OnChip of_tensors(on_chip(destination) ? destination.device() : source.device());
  static auto copy = c10::Dispatcher::singleton().findSchemaOrThrow("aten::_copy_from", "").typed<decltype(check_and_copy)>();
  return copy.redispatch(c10::DispatchKeySet(c10::DispatchKey::PrivateUse3), source, destination, non_blocking);
}

// ------------------------------------------------------------------------------------------------ allocation, views

at::Scalar largest(c10::ScalarType integers) {
  switch (integers) {
    case at::kBool:
      return true;
    case at::kByte:
      return std::numeric_limits<uint8_t>::max();
    case at::kChar:
      return std::numeric_limits<int8_t>::max();
    case at::kShort:
      return std::numeric_limits<int16_t>::max();
    case at::kUInt16:
      return static_cast<int64_t>(std::numeric_limits<uint16_t>::max());
    case at::kInt:
      return std::numeric_limits<int32_t>::max();
    case at::kUInt32:
      return static_cast<int64_t>(std::numeric_limits<uint32_t>::max());
    case at::kUInt64:
      return std::numeric_limits<uint64_t>::max();
    default:
      return std::numeric_limits<int64_t>::max();
  }
}

// New memory holds NaN, or the largest integer, under torch.use_deterministic_algorithms, as on every device.
void fill_if_deterministic(Tensor& made) {
  auto& context = at::globalContext();
  if (C10_UNLIKELY(context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())) {
    made.fill_(made.is_floating_point() || made.is_complex() ? at::Scalar(std::numeric_limits<double>::quiet_NaN())
                                                             : largest(made.scalar_type()));
  }
}

Tensor empty(c10::IntArrayRef sizes, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
             std::optional<Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK_NOT_IMPLEMENTED(c10::layout_or_default(layout) == c10::kStrided,
                              "the chip has dense tensors and sparse ones (COO), not ", *layout);
  check_device(c10::device_or_default(device));
  OnChip chip(c10::device_or_default(device));
  Tensor made = at::detail::empty_generic(sizes, &hbm_allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                          c10::dtype_or_default(dtype), format);
  fill_if_deterministic(made);
  return made;
}

Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<Device> device, std::optional<bool>) {
  check_device(c10::device_or_default(device));
  OnChip chip(c10::device_or_default(device));
  Tensor made = at::detail::empty_strided_generic(sizes, strides, &hbm_allocator,
                                                  c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                                  c10::dtype_or_default(dtype));
  fill_if_deterministic(made);
  return made;
}

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                  std::optional<c10::SymInt> offset) {
  auto start = offset.has_value() ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__)) : std::nullopt;
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides), start);
}
Tensor view(const Tensor& self, c10::SymIntArrayRef sizes) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(sizes));
}
Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides));
}

// These look at no memory, and torch has one function for every device.
void run_as_dense(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  OnChip of_tensors(chip_of(arguments_of(op, *stack)));
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
}
void run_as_sparse(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  OnChip of_tensors(chip_of(arguments_of(op, *stack)));
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::SparseCPU), stack);
}

// ------------------------------------------------------------------------------------------------ copies

// The host reads a chip tensor and waits for it: what it will do with the values is not known here.
void read_back(const Tensor& source) {
  refuse_in_capture("reading a tensor of the chip on the host");
  if (!reads_are_zeros) {
    refuse_in_timing_only("reading a tensor of the chip on the host");
  }
  ++ledger().to_host_calls;
  ledger().to_host_bytes += static_cast<int64_t>(source.nbytes());
  note_copy(Copy::to_host, source.nbytes(), true);
}

// Between host and chip, and between chip tensors where the chip has no kernel for it (ops/elementwise.py asks).
Tensor copy_through_host(const Tensor& source, const Tensor& destination, bool non_blocking) {
  auto bytes = static_cast<int64_t>(source.nbytes());
  if (on_chip(source) && on_chip(destination)) {
    ledger().refuse_if_forbidden("aten::copy_");
    ledger().fallback("aten::copy_", bytes + static_cast<int64_t>(destination.nbytes()));
  } else if (on_chip(destination)) {
    refuse_in_capture("copying a tensor of the host to the chip");
    ++ledger().to_chip_calls;
    ledger().to_chip_bytes += bytes;
    note_copy(Copy::to_chip, source.nbytes(), !non_blocking);
  } else {
    read_back(source);
    if (timing_only()) {
      destination.zero_();
    }
  }
  if (!timing_only()) {
    as_host(destination).copy_(as_host(source));
  }
  return destination;
}

Tensor copy_from_and_resize(const Tensor& source, const Tensor& destination) {
  if (on_chip(destination)) {
    at::native::resize_(destination, source.sizes(), std::nullopt);
  } else {
    destination.resize_(source.sizes());
  }
  return at::_copy_from(source, destination);
}

at::Scalar local_scalar_dense(const Tensor& self) {
  OnChip of_tensor(self.device());
  read_back(self);
  if (!timing_only()) {
    return as_host(self).item();
  }
  return self.is_complex()          ? at::Scalar(c10::complex<double>(0.0))
         : self.is_floating_point() ? at::Scalar(0.0)
         : self.scalar_type() == at::kBool ? at::Scalar(false)
                                           : at::Scalar(0);
}

// What scaled_dot_product_attention is made of: our kernels where they serve (no dropout, no gradient of the mask, nothing
// broadcast but the mask, and heads of keys for several heads of queries only if asked), else torch's own composition of
// matrix products and a softmax, which also says what does not fit. torch.nn.attention.sdpa_kernel forbids the one or the
// other: ours is meant by every name of a fused kernel.
int64_t choose_attention(const Tensor& query, const Tensor& key, const Tensor& value, const std::optional<Tensor>& mask,
                         double dropout, bool /*causal*/, std::optional<double> /*scale*/, bool grouped) {
  const auto type = query.scalar_type();
  const bool known_type = type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
  const bool one_type = key.scalar_type() == type && value.scalar_type() == type;
  const bool ranks = query.dim() == 4 && key.dim() == 4 && value.dim() == 4;
  const bool masked = mask.has_value() && mask->defined();
  const bool mask_differentiated = masked && at::GradMode::is_enabled() && mask->requires_grad();
  auto is_batched = [](const Tensor& tensor) { return tensor.key_set().has(c10::DispatchKey::FuncTorchBatched); };
  const bool batched = is_batched(query) || is_batched(key) || is_batched(value) || (masked && is_batched(*mask));
  auto fits = [&] {
    auto heads = query.sym_size(1), key_heads = key.sym_size(1);
    return query.sym_size(0) == key.sym_size(0) && key.sym_size(0) == value.sym_size(0) &&
           key_heads == value.sym_size(1) && query.sym_size(3) == key.sym_size(3) && query.sym_size(3) != 0 &&
           key.sym_size(2) == value.sym_size(2) &&
           (heads == key_heads || (grouped && key_heads != 0 && heads % key_heads == 0));
  };
  auto mask_fits = [&] {
    const c10::SymInt wanted[4] = {query.sym_size(0), query.sym_size(1), query.sym_size(2), key.sym_size(2)};
    for (int64_t i = 0; i < mask->dim() && mask->dim() <= 4; ++i) {
      auto own = mask->sym_size(mask->dim() - 1 - i);
      if (own != 1 && own != wanted[3 - i]) {
        return false;
      }
    }
    return mask->dim() <= 4;
  };
  const bool ours = known_type && one_type && ranks && !batched && dropout == 0.0 && !mask_differentiated && fits() &&
                    (!masked || mask_fits());
  auto& context = at::globalContext();
  const bool may_be_fused = context.userEnabledOverrideableSDP() || context.userEnabledFlashSDP() ||
                            context.userEnabledMemEfficientSDP() || context.userEnabledCuDNNSDP();
  if (ours && may_be_fused) {
    return static_cast<int64_t>(at::SDPBackend::overrideable);
  }
  TORCH_CHECK(context.userEnabledMathSDP(), "No available kernel. Aborting execution: sdpa_kernel forbids the composition ",
              "of matrix products (SDPBackend.MATH), and ",
              ours ? "every fused kernel" : "the chip's fused kernel is not made for these arguments");
  return static_cast<int64_t>(at::SDPBackend::math);
}

// ------------------------------------------------------------------------------------------------ autocast

// One kernel for each of torch's lists of operators, whatever their arguments: it casts and calls on.

bool is_cast(const Tensor& tensor) {
  return on_chip(tensor) && tensor.is_floating_point() && tensor.scalar_type() != at::kDouble;
}

at::ScalarType autocast_type() { return at::autocast::get_autocast_dtype(kChip); }

IValue cast(const IValue& value, at::ScalarType type) {
  if (value.isTensor()) {
    return at::autocast::cached_cast(type, value.toTensor(), kChip);
  }
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) {
      list.push_back(at::autocast::cached_cast(type, tensor, kChip));
    }
    return list;
  }
  return value;
}

void cast_and_run(const c10::OperatorHandle& op, torch::jit::Stack* stack, at::ScalarType type) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastPrivateUse1);
  for (auto value = stack->end() - op.schema().arguments().size(); value != stack->end(); ++value) {
    *value = cast(*value, type);
  }
  op.callBoxed(stack);
}

void run_in_lower_precision(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  cast_and_run(op, stack, autocast_type());
}

void run_in_float32(const c10::OperatorHandle& op, torch::jit::Stack* stack) { cast_and_run(op, stack, at::kFloat); }

// The operator's own float32, asked for with its argument `dtype` unless the caller asks for another.
void run_in_float32_unless_asked(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastPrivateUse1);
  auto& arguments = op.schema().arguments();
  auto first = stack->end() - arguments.size();
  if (is_cast(first->toTensor())) {
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (arguments[i].name() == "dtype" && first[i].isNone()) {
        first[i] = at::kFloat;
      }
    }
  }
  op.callBoxed(stack);
}

// The same for a norm, whose overloads without a `dtype` have neighbours with one.
void append_float32(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::DispatchKey::AutocastPrivateUse1);
  auto& own = op.operator_name();
  auto with_dtype = (own.overload_name == "Scalar" ? "ScalarOpt" : own.overload_name) + "_dtype";
  auto neighbour = c10::Dispatcher::singleton().findSchemaOrThrow(own.name.c_str(), with_dtype.c_str());
  auto tensor = (stack->end() - op.schema().arguments().size())->toTensor();
  stack->emplace_back(is_cast(tensor) ? at::kFloat : tensor.scalar_type());
  neighbour.callBoxed(stack);
}

// In float32 if an argument is, else in autocast's type; float64 does not count.
void run_in_widest(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  auto type = autocast_type();
  auto widen = [&](const Tensor& tensor) {
    if (is_cast(tensor) && tensor.scalar_type() != type && type != at::kFloat) {
      TORCH_CHECK(tensor.scalar_type() == at::kFloat, op.operator_name(), " under autocast to ", type, " got an operand of ",
                  tensor.scalar_type(), ": autocast promotes between ", type, " and Float only");
      type = at::kFloat;
    }
  };
  for (auto value = stack->end() - op.schema().arguments().size(); value != stack->end(); ++value) {
    if (value->isTensor()) {
      widen(value->toTensor());
    } else if (value->isTensorList()) {
      for (const Tensor& tensor : value->toTensorVector()) {
        widen(tensor);
      }
    }
  }
  cast_and_run(op, stack, type);
}

void refuse_binary_cross_entropy(const c10::OperatorHandle&, torch::jit::Stack*) {
  TORCH_CHECK(false,
              "binary_cross_entropy of a sigmoid in a half type is not safe under autocast: use "
              "binary_cross_entropy_with_logits (torch.nn.BCEWithLogitsLoss) instead, or leave autocast for this call");
}

// One boxed function for many operators. An overload is "pow.Scalar" or, as torch's lists have it, "pow, Scalar".
template <c10::BoxedKernel::BoxedKernelFunction* function>
void register_for_each(torch::Library& library, std::initializer_list<const char*> overloads) {
  for (std::string name : overloads) {
    if (auto comma = name.find(", "); comma != std::string::npos) {
      name.replace(comma, 2, ".");
    }
    library.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<function>());
  }
}

}  // namespace

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
}  // namespace at::native

// An operator without a kernel comes to ops/fallback.py, which comes here, by way of a key that no device has, when
// the operator is the host's.
// Whether `tensor.data = other` may be: between host and chip it may, as between the devices that torch knows.
bool may_take_data_of(const Tensor& tensor, const Tensor& other) {
  auto is_dense = [](const Tensor& one) {
    constexpr c10::DispatchKeySet places({c10::BackendComponent::CPUBit, c10::BackendComponent::PrivateUse1Bit});
    return one.key_set().has_any(c10::DispatchKeySet(c10::DispatchKey::Dense)) && one.key_set().has_any(places);
  };
  return (is_dense(tensor) && is_dense(other)) ||
         tensor.unsafeGetTensorImpl()->has_compatible_shallow_copy_type(other.key_set());
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&check_and_run>()); }
TORCH_LIBRARY_IMPL(_, PrivateUse2, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("_copy_from", check_and_copy);
  register_for_each<&bring_numbers_and_run>(m, {"addcdiv", "addcdiv_", "addcmul", "addcmul_", "lerp.Tensor", "lerp_.Tensor"});
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
  register_for_each<&run_as_dense>(m, {"unfold", "view_as_real", "view_as_complex", "resize_", "set_.source_Tensor",
                                       "set_.source_Storage", "set_.source_Storage_storage_offset"});
}

// Sparse tensors (COO), as gradients of embeddings are: indices and values on the chip. What computes is ops/sparse.py.
#define TAKES_DATA(key) \
  TORCH_LIBRARY_IMPL(aten, key, m) { m.impl("_has_compatible_shallow_copy_type", may_take_data_of); }
TAKES_DATA(CPU)
TAKES_DATA(PrivateUse1)
// A kernel of a device would have autograd ask tensor subclasses first, which do not know the operator.
TAKES_DATA(AutogradCPU)
TAKES_DATA(AutogradPrivateUse1)
#undef TAKES_DATA

TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  register_for_each<&run_as_sparse>(
      m, {"empty.memory_format", "_sparse_coo_tensor_with_dims", "_sparse_coo_tensor_with_dims_and_tensors",
          "sparse_resize_", "sparse_resize_and_clear_", "copy_sparse_to_sparse_", "clone", "zero_", "sparse_dim",
          "dense_dim", "_nnz", "_indices", "_values", "indices", "values", "is_coalesced", "_coalesced_"});
}

// The copies resolve lazy conjugation and negation themselves. torch's own way, a clone first, would copy for ever.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(tapeout, Conjugate, m) { m.impl("copy_through_host", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(tapeout, Negative, m) { m.impl("copy_through_host", torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define LISTED(...) #__VA_ARGS__,
#define LISTED_NAME(function, name, ...) name,
  register_for_each<&run_in_lower_precision>(m, {AT_FORALL_LOWER_PRECISION_FP(LISTED)});
  register_for_each<&run_in_float32>(m, {AT_FORALL_FP32(LISTED)});
  register_for_each<&run_in_float32_unless_asked>(m, {AT_FORALL_FP32_SET_OPT_DTYPE(LISTED)});
  register_for_each<&append_float32>(m, {AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(LISTED_NAME)});
  register_for_each<&run_in_widest>(m, {AT_FORALL_PROMOTE(LISTED)});
  register_for_each<&refuse_binary_cross_entropy>(m, {"binary_cross_entropy"});
}

// as_host: the bytes of a chip tensor as a CPU tensor, for our own code that looks at them without a copy.
TORCH_LIBRARY(tapeout, m) {
  m.def("as_host(Tensor(a) tensor) -> Tensor(a)", as_host);
  m.def("copy_through_host(Tensor source, Tensor(a!) destination, bool non_blocking=False) -> Tensor(a!)",
        copy_through_host);
  m.def("default_generator(int index=-1) -> Generator?", [](int64_t index) {
    return index < 0 ? default_generator() : default_generator(static_cast<DeviceIndex>(index));
  });
  m.def("draw(Generator? generator, int numbers) -> (int, int)", torch::CppFunction::makeFromUnboxedFunction(&draw));
}

// ------------------------------------------------------------------------------------------------ for device.py

#pragma GCC visibility push(default)
extern "C" {

// Keep the names of running operators from now on, and the innermost of them in this thread ("" if there is none).
void tapeout_watch_operators() {
  static std::once_flag once;
  std::call_once(once, watch_operators);
}
const char* tapeout_current_operator() {
  auto& names = running_operators();
  return names.empty() ? "" : names.back().c_str();
}

// Lets the arguments of an overload of aten ("add.out") be checked before its kernel, registered for PrivateUse3, runs.
void tapeout_check_first(const char* overload) {
  static auto* library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  library->impl(overload, torch::CppFunction::makeFromBoxedFunction<&check_and_run>());
}

void tapeout_set_fallback_policy(int policy) { ledger().policy = static_cast<FallbackPolicy>(policy); }
int tapeout_host_is_forbidden() { return ledger().policy == FallbackPolicy::error; }
void tapeout_count_on_chip(const char* name, int64_t calls) { ledger().on_chip(name, calls); }
void tapeout_reset_ledger() { ledger().reset(); }

// Writes the ledger as lines of tab-separated text; returns the bytes it needs, which may exceed the room.
uint64_t tapeout_ledger(char* room, uint64_t room_bytes) {
  auto text = ledger().text();
  std::memcpy(room, text.data(), std::min<size_t>(room_bytes, text.size()));
  return text.size();
}
}
#pragma GCC visibility pop
