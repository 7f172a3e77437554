// The `chip` device's operators: views, copies, autocast and the host fallback. shim.h names the other parts.
//
// An operator without a chip kernel runs on the host over the same bytes; while it runs, the CPU allocator hands out
// arena memory, so its results need no copy. The Python side (device.py, build.py) reads the counters and sets the
// policy through the C functions at the end.

#include "shim.h"
#include "shim_generator.h"

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
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
      result = rewrap(tensor, alias(storage, Device(kChip, 0), &hbm_allocator), c10::DispatchKey::PrivateUse1);
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

// ------------------------------------------------------------------------------------------------ allocation, views

// New memory holds NaN, or the largest integer, under torch.use_deterministic_algorithms, as on every device.
void fill_if_deterministic(Tensor& made) {
  auto& context = at::globalContext();
  if (C10_UNLIKELY(context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())) {
    at::native::fill_empty_deterministic_(made);
  }
}

Tensor empty(c10::IntArrayRef sizes, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
             std::optional<Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK_NOT_IMPLEMENTED(c10::layout_or_default(layout) == c10::kStrided,
                              "the chip has dense tensors and sparse ones (COO), not ", *layout);
  check_device(c10::device_or_default(device));
  Tensor made = at::detail::empty_generic(sizes, &hbm_allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                          c10::dtype_or_default(dtype), format);
  fill_if_deterministic(made);
  return made;
}

Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<Device> device, std::optional<bool>) {
  check_device(c10::device_or_default(device));
  Tensor made = at::detail::empty_strided_generic(sizes, strides, &hbm_allocator,
                                                  c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                                  c10::dtype_or_default(dtype));
  fill_if_deterministic(made);
  return made;
}

Tensor as_strided(const Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides,
                  std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl_meta_symint(self, sizes, strides, std::move(offset));
}
Tensor view(const Tensor& self, c10::SymIntArrayRef sizes) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(sizes));
}
Tensor reshape_alias(const Tensor& self, c10::SymIntArrayRef sizes, c10::SymIntArrayRef strides) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides));
}

// These look at no memory, and torch has one function for every device.
void run_as_dense(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
}
void run_as_sparse(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
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
  read_back(self);
  return timing_only() ? at::zeros({}, at::device(c10::kCPU).dtype(self.scalar_type())).item() : as_host(self).item();
}

// What scaled_dot_product_attention is made of: our kernels where they serve (no dropout, no gradient of the mask), else
// torch's own composition of matrix products and a softmax.
int64_t choose_attention(const Tensor& query, const Tensor& key, const Tensor& value, const std::optional<Tensor>& mask,
                         double dropout, bool /*causal*/, std::optional<double> /*scale*/, bool /*grouped*/) {
  const auto type = query.scalar_type();
  const bool known_type = type == at::kFloat || type == at::kHalf || type == at::kBFloat16;
  const bool one_type = key.scalar_type() == type && value.scalar_type() == type;
  const bool ranks = query.dim() == 4 && key.dim() == 4 && value.dim() == 4;
  const bool mask_differentiated =
      at::GradMode::is_enabled() && mask.has_value() && mask->defined() && mask->requires_grad();
  const bool ours = known_type && one_type && ranks && dropout == 0.0 && !mask_differentiated;
  return static_cast<int64_t>(ours ? sdp::SDPBackend::overrideable : sdp::SDPBackend::math);
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

// "pow, Scalar", as torch's lists have it, is the overload pow.Scalar.
std::string overload(std::string listed) {
  if (auto comma = listed.find(", "); comma != std::string::npos) {
    listed.replace(comma, 2, ".");
  }
  return listed;
}

}  // namespace

namespace at::native {
REGISTER_PRIVATEUSE1_DISPATCH(_fused_sdp_choice_stub, &choose_attention)
}  // namespace at::native

// An operator without a kernel comes to ops/fallback.py, which comes here, by way of a key that no device has, when
// the operator is the host's.
TORCH_LIBRARY_IMPL(_, PrivateUse2, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_host>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided);
  m.impl("as_strided", as_strided);
  m.impl("view", view);
  m.impl("_reshape_alias", reshape_alias);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
  for (auto* name : {"unfold", "view_as_real", "view_as_complex", "resize_", "set_.source_Tensor", "set_.source_Storage",
                     "set_.source_Storage_storage_offset"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_as_dense>());
  }
}

// Sparse tensors (COO), as gradients of embeddings are: indices and values on the chip. What computes is ops/sparse.py.
TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  for (auto* name : {"empty.memory_format", "_sparse_coo_tensor_with_dims",
                     "_sparse_coo_tensor_with_dims_and_tensors", "sparse_resize_", "sparse_resize_and_clear_",
                     "copy_sparse_to_sparse_", "clone", "zero_", "sparse_dim", "dense_dim", "_nnz", "_indices",
                     "_values", "indices", "values", "is_coalesced", "_coalesced_"}) {
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_as_sparse>());
  }
}

// The copies resolve lazy conjugation and negation themselves. torch's own way, a clone first, would copy for ever.
TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(tapeout, Conjugate, m) { m.impl("copy_through_host", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(tapeout, Negative, m) { m.impl("copy_through_host", torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define LOWER_PRECISION(...) \
  m.impl(overload(#__VA_ARGS__).c_str(), torch::CppFunction::makeFromBoxedFunction<&run_in_lower_precision>());
  AT_FORALL_LOWER_PRECISION_FP(LOWER_PRECISION)
#define IN_FLOAT32(...) \
  m.impl(overload(#__VA_ARGS__).c_str(), torch::CppFunction::makeFromBoxedFunction<&run_in_float32>());
  AT_FORALL_FP32(IN_FLOAT32)
#define FLOAT32_UNLESS_ASKED(...) \
  m.impl(overload(#__VA_ARGS__).c_str(), torch::CppFunction::makeFromBoxedFunction<&run_in_float32_unless_asked>());
  AT_FORALL_FP32_SET_OPT_DTYPE(FLOAT32_UNLESS_ASKED)
#define APPENDED(function, name, ...) m.impl(name, torch::CppFunction::makeFromBoxedFunction<&append_float32>());
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(APPENDED)
#define WIDEST(...) m.impl(overload(#__VA_ARGS__).c_str(), torch::CppFunction::makeFromBoxedFunction<&run_in_widest>());
  AT_FORALL_PROMOTE(WIDEST)
  m.impl("binary_cross_entropy", torch::CppFunction::makeFromBoxedFunction<&refuse_binary_cross_entropy>());
}

// as_host: the bytes of a chip tensor as a CPU tensor, for our own code that looks at them without a copy.
TORCH_LIBRARY(tapeout, m) {
  m.def("as_host(Tensor(a) tensor) -> Tensor(a)", as_host);
  m.def("copy_through_host(Tensor source, Tensor(a!) destination, bool non_blocking=False) -> Tensor(a!)",
        copy_through_host);
  m.def("default_generator() -> Generator?", [] { return default_generator(); });
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
