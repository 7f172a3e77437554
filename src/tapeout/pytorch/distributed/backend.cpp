// The c10d back end of the chip, "tccl": collectives whose numbers have one documented order and whose time is the chip's.
//
// Bytes travel by two process groups that Python makes (gloo, over TCP): `meta_` carries a message of fixed size for every
// operation, `data_` what does not fit into it. Each message has a header that says what the rank believes it takes part
// in, so that ranks that disagree are told instead of hanging, and when that rank is ready in virtual time.
//
// Posting an operation never waits. Threads that hold no lock of Python's do the work: one for the collectives of a group,
// one for each (peer, tag, direction) of point-to-point messages. Reductions add in ascending rank, in float32 or wider,
// and round once.
//
// Time. An operation starts when its last rank is ready and the operation before it in its group has ended; it ends after
// what the cluster says it costs. Python says both when it is posted (`post`), and is told the end by whoever waits
// (`waited`). Without `meta_` this process stands for every rank: no peer is asked, and results are those of ranks that all
// hold what this one holds.

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <torch/csrc/distributed/c10d/reducer_timer.hpp>
#include <torch/csrc/utils/pybind.h>

#include <atomic>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <thread>

namespace {

namespace py = pybind11;
using at::Tensor;
using c10d::OpType;
using c10d::ReduceOp;
using c10d::Work;
using Tensors = std::vector<Tensor>;
using Milliseconds = std::chrono::milliseconds;

constexpr auto kChip = c10::DeviceType::PrivateUse1;
constexpr int64_t kMessageBytes = 4096;
constexpr int64_t kNoClock = -1;

// DistributedDataParallel warns of a device without a timer. This one knows no durations: the host's would say how long
// the simulation took, and the chip's are in the summary of a run.
class NoTimer : public c10d::Timer {
 public:
  explicit NoTimer(c10::Device) {}
  std::optional<int64_t> measureDifference(Event, Event) override { return std::nullopt; }
};

bool on_chip(const Tensor& tensor) { return tensor.device().type() == kChip; }

// The tensor's memory as a CPU tensor; copied from other devices than the chip and the CPU.
Tensor on_host(const Tensor& tensor) {
  if (tensor.device().type() == c10::kCPU) {
    return tensor.detach();
  }
  if (!on_chip(tensor)) {
    return tensor.detach().cpu();
  }
  static auto as_host =
      c10::Dispatcher::singleton().findSchemaOrThrow("tapeout::as_host", "").typed<Tensor(const Tensor&)>();
  return as_host.call(tensor.detach());
}

Tensor bytes_of(const Tensor& contiguous) { return contiguous.view({-1}).view(at::kByte); }

// Bytes ([rank, byte]) as elements ([rank, element]).
Tensor elements_of(const Tensor& bytes, c10::ScalarType dtype) {
  if (bytes.numel() == 0) {
    return at::empty({bytes.size(0), 0}, at::device(at::kCPU).dtype(dtype));
  }
  return bytes.contiguous().view(dtype);
}

Tensor byte_buffer(int64_t size) { return at::empty({size}, at::device(at::kCPU).dtype(at::kByte)); }

// What a rank says of the operation it takes part in.
struct Header {
  int64_t bytes, sequence, ready_ps, unknown_count;
  int32_t operation, dtype, reduction, root;
  int64_t inlined;
  char site[152];
};
static_assert(sizeof(Header) == 208);  // a multiple of the largest element
constexpr int64_t kInlineBytes = kMessageBytes - sizeof(Header);

// What Python says when an operation is posted.
struct Posted {
  int64_t ready_ps = kNoClock, cost_ps = 0, unknown_count = 0;
  std::string site;
};

struct Operation {
  OpType type = OpType::UNKNOWN;
  std::string name;
  int64_t bytes = 0;
  c10::ScalarType dtype = at::kByte;
  bool has_dtype = false;
  ReduceOp reduction = ReduceOp::UNUSED;
  int32_t root = -1;
  bool same_bytes = true;  // on every rank
  bool moves_data = true;
};

std::string named(const Header& header) {
  std::string text = std::to_string(header.bytes) + " bytes";
  if (header.dtype >= 0) {
    text += std::string(" of ") + c10::toString(static_cast<c10::ScalarType>(header.dtype));
  }
  static const char* reductions[] = {"sum", "avg", "product", "min", "max", "band", "bor", "bxor", "premul_sum"};
  if (header.reduction < 9) {
    text += std::string(", ") + reductions[header.reduction];
  }
  if (header.root >= 0) {
    text += ", root " + std::to_string(header.root);
  }
  return c10d::opTypeToString(static_cast<OpType>(header.operation)) + " (" + text + ") at " + header.site;
}

// ------------------------------------------------------------------------------------------ reductions

c10::ScalarType accumulator_of(c10::ScalarType dtype) {
  if (dtype == at::kDouble || c10::isIntegralType(dtype, true)) {
    return dtype;
  }
  return at::kFloat;
}

// The reduction of `parts` ([rank, element], CPU) in ascending rank; accumulated in float32 or wider, rounded once.
Tensor reduced(const Tensor& parts, const ReduceOp& reduction) {
  auto dtype = parts.scalar_type();
  if (c10::isComplexType(dtype)) {
    TORCH_CHECK(reduction.op_ == ReduceOp::SUM || reduction.op_ == ReduceOp::AVG, "complex numbers can be summed only");
    return at::view_as_complex(reduced(at::view_as_real(parts).flatten(1), reduction).view({-1, 2}));
  }
  double factor = 1;
  if (reduction.op_ == ReduceOp::PREMUL_SUM) {
    auto supplement = c10::dynamic_intrusive_pointer_cast<c10d::PreMulSumSupplement>(reduction.supplement_);
    TORCH_CHECK(supplement, "premul_sum without a factor");
    factor = supplement->tensor_factor.defined() ? supplement->tensor_factor.item<double>() : supplement->double_factor;
  }
  auto wide = accumulator_of(dtype);
  auto term = [&](int64_t rank) {
    auto part = parts[rank].to(wide);
    return reduction.op_ == ReduceOp::PREMUL_SUM ? part.mul(factor) : part;
  };
  auto sum = term(0).clone();
  for (int64_t rank = 1; rank < parts.size(0); rank++) {
    auto part = term(rank);
    switch (reduction.op_) {
      case ReduceOp::SUM:
      case ReduceOp::AVG:
      case ReduceOp::PREMUL_SUM:
        dtype == at::kBool ? sum.logical_or_(part) : sum.add_(part);
        break;
      case ReduceOp::PRODUCT: dtype == at::kBool ? sum.logical_and_(part) : sum.mul_(part); break;
      case ReduceOp::MIN: sum = at::minimum(sum, part); break;
      case ReduceOp::MAX: sum = at::maximum(sum, part); break;
      case ReduceOp::BAND: sum = at::bitwise_and(sum, part); break;
      case ReduceOp::BOR: sum = at::bitwise_or(sum, part); break;
      case ReduceOp::BXOR: sum = at::bitwise_xor(sum, part); break;
      default: TORCH_CHECK(false, "unknown reduction ", int(reduction.op_));
    }
  }
  if (reduction.op_ == ReduceOp::AVG) {
    c10::isFloatingType(dtype) ? sum.div_(parts.size(0)) : sum.div_(parts.size(0), "trunc");
  }
  return sum.to(dtype);
}

// The same as a ring does it: the sum of chunk `chunk` begins at the rank after it, goes from neighbour to neighbour, and is
// rounded to the tensors' type at every hop. An average is divided at the end.
Tensor reduced_by_ring(const Tensor& parts, const ReduceOp& reduction, int64_t chunk) {
  auto count = parts.size(0);
  auto first = parts.narrow(0, (chunk + 1) % count, 1);
  const bool is_scaled = reduction.op_ == ReduceOp::PREMUL_SUM;
  const bool is_averaged = reduction.op_ == ReduceOp::AVG;
  const ReduceOp pairwise = is_scaled || is_averaged ? ReduceOp(ReduceOp::SUM) : reduction;
  auto sum = is_scaled ? reduced(first, reduction) : first[0];
  for (int64_t hop = 1; hop < count; hop++) {
    auto part = parts.narrow(0, (chunk + 1 + hop) % count, 1);
    sum = reduced(at::stack({sum, is_scaled ? reduced(part, reduction) : part[0]}), pairwise);
  }
  if (is_averaged) {
    auto dtype = parts.scalar_type();
    auto wide = sum.to(c10::isComplexType(dtype) ? dtype : accumulator_of(dtype));
    sum = (c10::isIntegralType(dtype, true) ? wide.div(count, "trunc") : wide.div(count)).to(dtype);
  }
  return sum;
}

// What ranks that all hold `tensor` would get.
Tensor reduced_alike(const Tensor& tensor, const ReduceOp& reduction, int64_t count) {
  auto parts = tensor.contiguous().view({1, tensor.numel()});
  if (reduction.op_ == ReduceOp::MIN || reduction.op_ == ReduceOp::MAX || reduction.op_ == ReduceOp::AVG ||
      reduction.op_ == ReduceOp::BAND || reduction.op_ == ReduceOp::BOR) {
    return reduced(parts, ReduceOp(ReduceOp::SUM)).view(tensor.sizes());
  }
  return reduced(parts.expand({count, tensor.numel()}), reduction).view(tensor.sizes());
}

// ------------------------------------------------------------------------------------------ threads and works

// Does its tasks in order in a thread of its own. What waits in a task when the process ends is left there.
class Queue {
 public:
  void add(std::function<void()> task) {
    std::lock_guard lock(state_->mutex);
    if (!state_->started) {
      state_->started = true;
      std::thread(&Queue::run, state_).detach();
    }
    state_->tasks.push_back(std::move(task));
    state_->changed.notify_one();
  }
  ~Queue() {
    std::lock_guard lock(state_->mutex);
    state_->stops = true;
    state_->changed.notify_one();
  }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<std::function<void()>> tasks;
    bool started = false, stops = false;
  };
  static void run(std::shared_ptr<State> state) {
    for (;;) {
      std::function<void()> task;
      {
        std::unique_lock lock(state->mutex);
        state->changed.wait(lock, [&] { return !state->tasks.empty() || state->stops; });
        if (state->tasks.empty()) {
          return;
        }
        task = std::move(state->tasks.front());
        state->tasks.pop_front();
      }
      task();
    }
  }
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

class ChipWork final : public Work {
 public:
  ChipWork(int rank, Operation operation, Posted posted, std::shared_ptr<py::object> group, Tensors outputs, int peer)
      : Work(rank, operation.type),
        operation_(std::move(operation)),
        posted_(std::move(posted)),
        group_(std::move(group)),
        outputs_(std::move(outputs)),
        peer_(peer) {}

  Tensors result() override { return outputs_; }
  int sourceRank() const override { return peer_; }
  bool isSuccess() const override {
    std::lock_guard lock(mutex_);
    return completed_ && !exception_;
  }

  bool isCompleted() override {
    {
      std::lock_guard lock(mutex_);
      if (!completed_) {
        return false;
      }
      if (exception_ || !is_timed()) {
        return true;
      }
    }
    py::gil_scoped_acquire python;
    return group_->attr("poll")(end_ps_).cast<bool>();
  }

  bool wait(Milliseconds timeout) override {
    std::optional<py::gil_scoped_release> released;
    if (PyGILState_Check()) {
      released.emplace();
    }
    return Work::wait(timeout);
  }

  // The current stream goes on when the operation has ended; after a barrier the host does too.
  void synchronize() override {
    if (!is_timed()) {
      return;
    }
    py::gil_scoped_acquire python;
    group_->attr("waited")(id_, operation_.name, operation_.bytes, posted_.ready_ps, start_ps_, end_ps_, unknown_count_, peer_);
  }
  void blockCurrentStream() override { wait(kNoTimeout); }

  // Complete under a stream of the group's own, so that what follows the future waits for it and nothing else does.
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    if (future_) {
      return future_;
    }
    bool is_device = !outputs_.empty() && on_chip(outputs_[0]);
    std::vector<c10::Device> devices;
    if (is_device) {
      devices.push_back(outputs_[0].device());
    }
    future_ = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()), devices);
    try {
      if (is_device && is_timed()) {
        auto* guard = c10::impl::getDeviceGuardImpl(kChip);
        auto before = guard->exchangeStream(guard->getNewStream(devices[0], 0));
        try {
          wait(kNoTimeout);
          future_->markCompleted(c10::IValue(outputs_));
        } catch (...) {
          guard->exchangeStream(before);
          throw;
        }
        guard->exchangeStream(before);
      } else {
        wait(kNoTimeout);
        future_->markCompleted(c10::IValue(outputs_));
      }
    } catch (...) {
      future_->setError(std::current_exception());
    }
    return future_;
  }

  void done(int64_t start_ps, int64_t end_ps, int64_t unknown_count, std::exception_ptr error = nullptr) {
    {
      std::lock_guard lock(mutex_);
      start_ps_ = start_ps;
      end_ps_ = end_ps;
      unknown_count_ = unknown_count;
    }
    finish(error);
  }

  bool is_timed() const { return posted_.ready_ps != kNoClock; }
  void from(int peer) { peer_ = peer; }
  const Operation& operation() const { return operation_; }
  const Posted& posted() const { return posted_; }

 private:
  Operation operation_;
  Posted posted_;
  std::shared_ptr<py::object> group_;
  Tensors outputs_;
  int peer_;
  int64_t start_ps_ = 0, end_ps_ = 0, unknown_count_ = 0;
  static inline std::atomic<int64_t> next_id_{0};
  int64_t id_ = next_id_++;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
};

class WorkGroup final : public Work {
 public:
  explicit WorkGroup(std::vector<c10::intrusive_ptr<Work>> works, int rank) : Work(rank, OpType::COALESCED), works_(std::move(works)) {}
  bool wait(Milliseconds timeout) override {
    for (auto& work : works_) {
      work->wait(timeout);
    }
    return true;
  }
  void synchronize() override {
    for (auto& work : works_) {
      work->synchronize();
    }
  }
  bool isCompleted() override {
    return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->isCompleted(); });
  }
  bool isSuccess() const override {
    return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->isSuccess(); });
  }
  Tensors result() override {
    Tensors all;
    for (auto& work : works_) {
      auto some = work->result();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    auto all = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    for (auto& work : works_) {
      work->wait();
    }
    all->markCompleted(c10::IValue(result()));
    return all;
  }

 private:
  std::vector<c10::intrusive_ptr<Work>> works_;
};

// ------------------------------------------------------------------------------------------ the back end

// All ranks' messages of one collective: header and the first bytes of each.
struct Round {
  Tensor messages;  // [rank, kMessageBytes]
  Header header(int64_t rank) const {
    Header header;
    memcpy(&header, messages.data_ptr<uint8_t>() + rank * kMessageBytes, sizeof header);
    return header;
  }
  Tensor payload(int64_t rank, int64_t size) const {
    return messages[rank].narrow(0, sizeof(Header), size);
  }
  Tensor payloads(int64_t size) const { return messages.narrow(1, sizeof(Header), size); }
};

class ChipBackend final : public c10d::Backend {
 public:
  struct ChipOptions final : Options {
    ChipOptions() : Options("tccl") {}
  };

  ChipBackend(py::object meta, py::object data, int rank, int size, py::object group, bool by_ring)
      : Backend(rank, size), by_ring_(by_ring), group_(held(std::move(group))), options_(c10::make_intrusive<ChipOptions>()) {
    if (!meta.is_none()) {
      meta_ = meta.cast<c10::intrusive_ptr<c10d::Backend>>();
      data_ = data.cast<c10::intrusive_ptr<c10d::Backend>>();
    }
    lane_ = std::make_shared<Lane>();
  }

  const std::string getBackendName() const override { return "tccl"; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }
  bool supportsCoalescing() const override { return true; }
  void setTimeout(Milliseconds timeout) override {
    timeout_ = timeout;
    if (meta_) {
      meta_->setTimeout(timeout);
      data_->setTimeout(timeout);
    }
  }
  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return uint64_t(sequence_); }

  // -------------------------------------------------------------------------------------- collectives

  c10::intrusive_ptr<Work> allreduce(Tensors& tensors, const c10d::AllreduceOptions& options) override {
    return all_reduce(single(tensors, "all_reduce"), options.reduceOp);
  }
  c10::intrusive_ptr<Work> allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& options) override {
    return together(tensors.size(), [&](size_t n) { return all_reduce(tensors[n], options.reduceOp); });
  }

  c10::intrusive_ptr<Work> broadcast(Tensors& tensors, const c10d::BroadcastOptions& options) override {
    auto tensor = single(tensors, "broadcast");
    auto operation = operation_of(OpType::BROADCAST, "broadcast", tensor, tensor.nbytes());
    operation.root = int32_t(options.rootRank);
    Target target(tensor);
    return collective(operation, tensor, {tensor}, [this, target, root = options.rootRank](const Round& round, bool inlined) {
      auto bytes = target.bytes();
      if (inlined) {
        bytes.copy_(round.payload(root, bytes.numel()));
      } else {
        Tensors one{bytes};
        c10d::BroadcastOptions inner;
        inner.rootRank = root;
        finish(data_->broadcast(one, inner));
      }
      target.store();
    }, [] {});
  }

  c10::intrusive_ptr<Work> reduce(Tensors& tensors, const c10d::ReduceOptions& options) override {
    auto tensor = single(tensors, "reduce");
    auto operation = operation_of(OpType::REDUCE, "reduce", tensor, tensor.nbytes());
    operation.root = int32_t(options.rootRank);
    operation.reduction = options.reduceOp;
    Target target(tensor);
    bool is_root = rank_ == options.rootRank;
    return collective(operation, tensor, {tensor}, [this, target, options, is_root](const Round& round, bool inlined) {
      auto sum = inlined ? reduced_inline(round, target, options.reduceOp) : reduced_whole(target, options.reduceOp);
      if (is_root) {
        target.fill(sum);
      }
    }, [this, target, options, is_root] { if (is_root) target.fill(reduced_alike(target.host(), options.reduceOp, size_)); });
  }

  c10::intrusive_ptr<Work> allgather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::AllgatherOptions&) override {
    auto input = single(inputs, "all_gather");
    TORCH_CHECK(outputs.size() == 1 && int(outputs[0].size()) == size_, "all_gather wants one list of ", size_, " outputs");
    return all_gather(OpType::ALLGATHER, outputs[0], input);
  }
  c10::intrusive_ptr<Work> _allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions&) override {
    TORCH_CHECK(output.scalar_type() == input.scalar_type() && output.numel() == input.numel() * size_,
                "all_gather_into_tensor of ", input.numel(), " elements on ", size_, " ranks does not fill an output of ",
                output.numel(), " elements of ", output.scalar_type());
    check_contiguous(output);
    return all_gather(OpType::_ALLGATHER_BASE, chunks(output), input, output);
  }
  c10::intrusive_ptr<Work> allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                           const c10d::AllgatherOptions& options) override {
    return together(inputs.size(), [&](size_t n) { return _allgather_base(outputs[n], inputs[n], options); });
  }
  c10::intrusive_ptr<Work> allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                                               const c10d::AllgatherOptions&) override {
    return together(inputs.size(), [&](size_t n) {
      Tensors of_each;
      for (auto& of_rank : outputs) {
        of_each.push_back(of_rank[n]);
      }
      return all_gather(OpType::ALLGATHER_COALESCED, of_each, inputs[n]);
    });
  }

  c10::intrusive_ptr<Work> gather(std::vector<Tensors>& outputs, Tensors& inputs, const c10d::GatherOptions& options) override {
    auto input = single(inputs, "gather");
    auto operation = operation_of(OpType::GATHER, "gather", input, input.nbytes());
    operation.root = int32_t(options.rootRank);
    bool is_root = rank_ == options.rootRank;
    TORCH_CHECK(!is_root || (outputs.size() == 1 && int(outputs[0].size()) == size_), "gather wants ", size_, " outputs on its root");
    auto into = is_root ? outputs[0] : Tensors{};
    std::vector<Target> targets(into.begin(), into.end());
    Target source(input);
    auto store = [targets](const std::function<Tensor(int64_t)>& part) {
      for (size_t rank = 0; rank < targets.size(); rank++) {
        targets[rank].fill_bytes(part(int64_t(rank)));
      }
    };
    return collective(operation, input, into, [this, source, store, root = options.rootRank, is_root](const Round& round, bool inlined) {
      auto size = source.bytes().numel();
      if (inlined) {
        store([&](int64_t rank) { return round.payload(rank, size); });
        return;
      }
      Tensors mine{source.bytes()};
      std::vector<Tensors> all;
      if (is_root) {
        all.emplace_back();
        for (int rank = 0; rank < size_; rank++) {
          all[0].push_back(byte_buffer(size));
        }
      }
      c10d::GatherOptions inner;
      inner.rootRank = root;
      finish(data_->gather(all, mine, inner));
      if (is_root) {
        store([&](int64_t rank) { return all[0][size_t(rank)]; });
      }
    }, [source, store] { store([&](int64_t) { return source.bytes(); }); });
  }

  c10::intrusive_ptr<Work> scatter(Tensors& outputs, std::vector<Tensors>& inputs, const c10d::ScatterOptions& options) override {
    auto output = single(outputs, "scatter");
    auto operation = operation_of(OpType::SCATTER, "scatter", output, output.nbytes());
    operation.root = int32_t(options.rootRank);
    bool is_root = rank_ == options.rootRank;
    TORCH_CHECK(!is_root || (inputs.size() == 1 && int(inputs[0].size()) == size_), "scatter wants ", size_, " inputs on its root");
    std::vector<Target> sources;
    if (is_root) {
      for (auto& input : inputs[0]) {
        TORCH_CHECK(input.nbytes() == output.nbytes() && input.scalar_type() == output.scalar_type(),
                    "scatter's inputs must be of its output's size and type");
        sources.emplace_back(input);
      }
    }
    operation.moves_data = moves(output);
    Target target(output);
    return collective(operation, Tensor(), {output}, [this, target, sources, root = options.rootRank](const Round&, bool) {
      auto mine = byte_buffer(target.bytes().numel());
      Tensors into{mine};
      std::vector<Tensors> from;
      if (!sources.empty()) {
        from.emplace_back();
        for (auto& source : sources) {
          from[0].push_back(source.bytes());
        }
      }
      c10d::ScatterOptions inner;
      inner.rootRank = root;
      finish(data_->scatter(into, from, inner));
      target.fill_bytes(mine);
    }, [this, target, sources] { target.fill_bytes(sources.empty() ? at::zeros_like(target.bytes()) : sources[size_t(rank_)].bytes()); });
  }

  c10::intrusive_ptr<Work> reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                          const c10d::ReduceScatterOptions& options) override {
    auto output = single(outputs, "reduce_scatter");
    TORCH_CHECK(inputs.size() == 1 && int(inputs[0].size()) == size_, "reduce_scatter wants one list of ", size_, " inputs");
    for (auto& input : inputs[0]) {
      TORCH_CHECK(input.scalar_type() == output.scalar_type(), "reduce_scatter's inputs must be of its output's type");
    }
    return reduce_scatter_parts(OpType::REDUCE_SCATTER, output, inputs[0], options.reduceOp);
  }
  c10::intrusive_ptr<Work> _reduce_scatter_base(Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& options) override {
    TORCH_CHECK(output.scalar_type() == input.scalar_type() && input.numel() == output.numel() * size_,
                "reduce_scatter_tensor of ", input.numel(), " elements on ", size_, " ranks does not give ", output.numel(),
                " elements of ", output.scalar_type());
    check_contiguous(input);
    return reduce_scatter_parts(OpType::_REDUCE_SCATTER_BASE, output, chunks(input), options.reduceOp);
  }
  c10::intrusive_ptr<Work> reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                           const c10d::ReduceScatterOptions& options) override {
    return together(inputs.size(), [&](size_t n) { return _reduce_scatter_base(outputs[n], inputs[n], options); });
  }

  c10::intrusive_ptr<Work> alltoall_base(Tensor& output, Tensor& input, std::vector<int64_t>& output_splits,
                                         std::vector<int64_t>& input_splits, const c10d::AllToAllOptions&) override {
    check_contiguous(output);
    check_contiguous(input);
    return all_to_all(OpType::ALLTOALL_BASE, split(output, output_splits), split(input, input_splits), output);
  }
  c10::intrusive_ptr<Work> alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions&) override {
    TORCH_CHECK(int(outputs.size()) == size_ && int(inputs.size()) == size_, "all_to_all wants ", size_, " inputs and outputs");
    return all_to_all(OpType::ALLTOALL, outputs, inputs, Tensor());
  }

  c10::intrusive_ptr<Work> barrier(const c10d::BarrierOptions&) override {
    Operation operation;
    operation.type = OpType::BARRIER;
    operation.name = "barrier";
    return collective(operation, Tensor(), {}, [](const Round&, bool) {}, [] {});
  }

  // -------------------------------------------------------------------------------------- point to point

  c10::intrusive_ptr<Work> send(Tensors& tensors, int peer, int tag) override {
    auto tensor = single(tensors, "send");
    auto operation = operation_of(OpType::SEND, "send", tensor, tensor.nbytes());
    return posted(operation, {}, peer, [this, source = Target(tensor), peer, tag](c10::intrusive_ptr<ChipWork> work) {
      if (!meta_) {
        return;
      }
      auto message = message_of(*work, 0);
      auto bytes = source.bytes();
      bool inlined = bytes.numel() <= kInlineBytes && work->operation().moves_data;
      bool separate = !inlined && work->operation().moves_data;
      if (inlined) {
        message.narrow(0, sizeof(Header), bytes.numel()).copy_(bytes);
      }
      auto answer = byte_buffer(sizeof(Header));
      Tensors m{message}, d{bytes}, a{answer};
      auto sent = meta_->send(m, peer, 2 * tag);
      auto sent_data = separate ? data_->send(d, peer, tag) : c10::intrusive_ptr<Work>();
      auto answered = meta_->recv(a, peer, 2 * tag + 1);
      queue(0, peer, tag).run([=, this](Lane& lane) {
        finish(sent);
        finish(answered);
        Header theirs = header_in(answer);
        check_pair(*work, theirs, peer);
        if (separate) {
          finish(sent_data);
        }
        end_of_pair(*work, theirs, lane);
      }, work, *this);
    });
  }

  c10::intrusive_ptr<Work> recv(Tensors& tensors, int peer, int tag) override {
    return receive(tensors, peer, tag, OpType::RECV);
  }
  c10::intrusive_ptr<Work> recvAnysource(Tensors& tensors, int tag) override {
    return receive(tensors, -1, tag, OpType::RECVANYSOURCE);
  }

  // -------------------------------------------------------------------------------------- coalescing

  void startCoalescing() override {
    coalesces_ = true;
    delayed_.clear();
  }
  c10::intrusive_ptr<Work> endCoalescing() override {
    coalesces_ = false;
    std::map<std::string, int64_t> totals;
    for (auto& delayed : delayed_) {
      totals[delayed.operation.name] += delayed.operation.bytes;
    }
    std::vector<c10::intrusive_ptr<Work>> works;
    for (auto& delayed : delayed_) {
      works.push_back(start(delayed.operation, delayed.outputs, delayed.peer, delayed.begin, totals[delayed.operation.name]));
    }
    delayed_.clear();
    return c10::make_intrusive<WorkGroup>(std::move(works), rank_);
  }

 private:
  // The memory of a tensor as bytes on the host. `store` brings back what `bytes` was changed to where they are not the
  // tensor's own.
  class Target {
   public:
    Target(const Tensor& tensor) : tensor_(tensor) {}
    Tensor host() const {
      if (!host_->defined()) {
        *host_ = on_host(tensor_);
      }
      return *host_;
    }
    Tensor bytes() const {
      if (!contiguous_->defined()) {
        *contiguous_ = host().contiguous();
      }
      return bytes_of(*contiguous_);
    }
    void store() const {
      if (!contiguous_->is_same(*host_) && contiguous_->data_ptr() != host_->data_ptr()) {
        host_->copy_(*contiguous_);
      }
      if (!on_chip(tensor_) && tensor_.device().type() != c10::kCPU) {
        Tensor(tensor_.detach()).copy_(*host_);
      }
    }
    void fill(const Tensor& values) const { fill_bytes(bytes_of(values.contiguous())); }
    void fill_bytes(const Tensor& values) const {
      bytes().copy_(values);
      store();
    }
    c10::ScalarType dtype() const { return tensor_.scalar_type(); }
    const Tensor& tensor() const { return tensor_; }

   private:
    Tensor tensor_;
    std::shared_ptr<Tensor> host_ = std::make_shared<Tensor>(), contiguous_ = std::make_shared<Tensor>();
  };

  // Operations in order, one after the other, also in virtual time.
  struct Lane {
    int64_t end_ps = 0;
  };
  struct OrderedQueue {
    Queue queue;
    std::shared_ptr<Lane> lane = std::make_shared<Lane>();
    template <class Task>
    void run(Task task, c10::intrusive_ptr<ChipWork> work, ChipBackend& owner) {
      auto self = c10::intrusive_ptr<ChipBackend>::reclaim_copy(&owner);
      queue.add([task = std::move(task), work, lane = lane, self] {
        try {
          task(*lane);
        } catch (...) {
          work->done(0, 0, 0, self->explained(*work));
        }
      });
    }
  };

  using Finish = std::function<void(const Round&, bool inlined)>;
  using Alike = std::function<void()>;
  using Begin = std::function<void(c10::intrusive_ptr<ChipWork>)>;
  struct Delayed {
    Operation operation;
    Tensors outputs;
    int peer;
    Begin begin;
  };

  static std::shared_ptr<py::object> held(py::object object) {
    return {new py::object(std::move(object)), [](py::object* held) {
              if (Py_IsInitialized()) {
                py::gil_scoped_acquire python;
                delete held;
              }
            }};
  }

  static Tensor single(Tensors& tensors, const char* name) {
    TORCH_CHECK(tensors.size() == 1, name, " takes one tensor, not ", tensors.size());
    return tensors[0];
  }
  static void check_contiguous(const Tensor& tensor) {
    TORCH_CHECK(tensor.is_contiguous(), "Tensors must be contiguous");
  }
  Tensors chunks(const Tensor& tensor) const {
    Tensors parts;
    auto flat = tensor.view({-1});
    auto count = flat.numel() / size_;
    for (int rank = 0; rank < size_; rank++) {
      parts.push_back(flat.narrow(0, rank * count, count));
    }
    return parts;
  }
  // Along the first dimension; equal parts if no sizes are given.
  Tensors split(const Tensor& tensor, const std::vector<int64_t>& sizes) const {
    Tensors parts;
    auto rows = tensor.dim() ? tensor.size(0) : 0;
    TORCH_CHECK(!sizes.empty() || rows % size_ == 0, "a first dimension of ", rows, " does not split over ", size_, " ranks");
    TORCH_CHECK(sizes.empty() || int(sizes.size()) == size_, sizes.size(), " split sizes for ", size_, " ranks");
    int64_t at = 0;
    for (int rank = 0; rank < size_; rank++) {
      auto count = sizes.empty() ? rows / size_ : sizes[size_t(rank)];
      TORCH_CHECK(count >= 0 && at + count <= rows, "split sizes do not add up to the first dimension, ", rows);
      parts.push_back(tensor.narrow(0, at, count));
      at += count;
    }
    TORCH_CHECK(at == rows, "split sizes add up to ", at, ", the first dimension is ", rows);
    return parts;
  }

  bool moves(const Tensor& tensor) const { return !on_chip(tensor) || !timing_only(); }
  bool timing_only() const {
    py::gil_scoped_acquire python;
    return group_->attr("timing_only").cast<bool>();
  }

  Operation operation_of(OpType type, const char* name, const Tensor& tensor, int64_t bytes) const {
    Operation operation;
    operation.type = type;
    operation.name = name;
    operation.bytes = bytes;
    operation.dtype = tensor.scalar_type();
    operation.has_dtype = true;
    operation.moves_data = moves(tensor);
    return operation;
  }

  template <class F>
  c10::intrusive_ptr<Work> together(size_t count, F post_one) {
    bool outer = coalesces_;
    if (!outer) {
      startCoalescing();
    }
    for (size_t n = 0; n < count; n++) {
      post_one(n);
    }
    if (!outer) {
      return endCoalescing();
    }
    return c10::make_intrusive<WorkGroup>(std::vector<c10::intrusive_ptr<Work>>(), rank_);
  }

  // Post an operation: now, or when coalescing ends.
  c10::intrusive_ptr<Work> posted(Operation operation, Tensors outputs, int peer, Begin begin) {
    if (coalesces_) {
      delayed_.push_back({std::move(operation), std::move(outputs), peer, std::move(begin)});
      return c10::make_intrusive<WorkGroup>(std::vector<c10::intrusive_ptr<Work>>(), rank_);
    }
    auto bytes = operation.bytes;
    return start(operation, outputs, peer, begin, bytes);
  }

  // `total_bytes`: of all operations of this kind that are posted as one; each takes its share of the time.
  c10::intrusive_ptr<Work> start(const Operation& operation, const Tensors& outputs, int peer, const Begin& begin, int64_t total_bytes) {
    Posted told;
    {
      py::gil_scoped_acquire python;
      auto said = group_->attr("post")(operation.name, operation.bytes, total_bytes, peer).cast<py::tuple>();
      told = {said[0].cast<int64_t>(), said[1].cast<int64_t>(), said[2].cast<int64_t>(), said[3].cast<std::string>()};
    }
    auto work = c10::make_intrusive<ChipWork>(rank_, operation, told, group_, outputs, peer);
    if (meta_) {
      begin(work);
    } else {
      auto start_ps = std::max(told.ready_ps, lane_->end_ps);
      lane_->end_ps = start_ps + told.cost_ps;
      if (operation.moves_data) {
        begin(work);
      }
      work->done(start_ps, lane_->end_ps, told.unknown_count);
    }
    return work;
  }

  Header header_of(const ChipWork& work, int64_t sequence, bool inlined) const {
    Header header{};
    auto& operation = work.operation();
    header.bytes = operation.bytes;
    header.sequence = sequence;
    header.ready_ps = work.posted().ready_ps;
    header.unknown_count = work.posted().unknown_count;
    header.operation = int32_t(operation.type);
    header.dtype = operation.has_dtype ? int32_t(operation.dtype) : -1;
    header.reduction = int32_t(operation.reduction.op_);
    header.root = operation.root;
    header.inlined = inlined;
    auto& site = work.posted().site;
    auto kept = std::min(site.size(), sizeof header.site - 1);
    memcpy(header.site, site.data() + site.size() - kept, kept);
    return header;
  }
  Tensor message_of(const ChipWork& work, int64_t sequence, bool inlined = false) const {
    auto message = at::zeros({kMessageBytes}, at::device(at::kCPU).dtype(at::kByte));
    Header header = header_of(work, sequence, inlined);
    memcpy(message.data_ptr<uint8_t>(), &header, sizeof header);
    return message;
  }
  static Header header_in(const Tensor& message) {
    Header header;
    memcpy(&header, message.data_ptr<uint8_t>(), sizeof header);
    return header;
  }

  void finish(const c10::intrusive_ptr<Work>& work) const {
    TORCH_CHECK(work->wait(timeout_), "an operation of the transport was aborted");
  }

  // A collective: `finish` brings the data where they belong once all ranks are known to agree, `alike` does if this rank
  // stands for all. `contribution`: what this rank gives (undefined: nothing that others need to see in a message).
  c10::intrusive_ptr<Work> collective(Operation operation, const Tensor& contribution, const Tensors& outputs, Finish finish_data,
                                      Alike alike, Tensor payload_bytes = Tensor()) {
    Target source(contribution);
    bool contributes = contribution.defined();
    return posted(operation, outputs, -1, [=, this](c10::intrusive_ptr<ChipWork> work) {
      if (!meta_) {
        alike();
        return;
      }
      auto sequence = sequence_++;
      queue_.run([=, this](Lane& lane) {
        TORCH_CHECK(failure_.empty(), "an earlier operation of this group failed: ", failure_);
        auto& operation = work->operation();
        bool inlined = operation.moves_data && contributes && operation.bytes <= kInlineBytes && !payload_bytes.defined();
        auto message = message_of(*work, sequence, inlined);
        if (inlined) {
          message.narrow(0, sizeof(Header), operation.bytes).copy_(source.bytes());
        } else if (payload_bytes.defined()) {
          message.narrow(0, sizeof(Header), payload_bytes.numel()).copy_(payload_bytes);
        }
        Round round{byte_buffer(size_ * kMessageBytes)};
        auto all = round.messages;
        this->finish(meta_->_allgather_base(all, message));
        round.messages = all.view({size_, kMessageBytes});
        bool all_inlined = true;
        for (int rank = 0; rank < size_; rank++) {
          auto header = round.header(rank);
          check_agreement(*work, header, sequence, rank);
          all_inlined = all_inlined && header.inlined;
        }
        if (operation.moves_data) {
          finish_data(round, all_inlined);
        }
        end_of_collective(*work, round, lane);
      }, work, *this);
    });
  }

  void check_agreement(const ChipWork& work, const Header& theirs, int64_t sequence, int rank) const {
    Header mine = header_of(work, sequence, false);
    bool same = mine.operation == theirs.operation && mine.sequence == theirs.sequence && mine.dtype == theirs.dtype &&
                mine.reduction == theirs.reduction && mine.root == theirs.root &&
                (!work.operation().same_bytes || mine.bytes == theirs.bytes);
    TORCH_CHECK(same, "ranks disagree on operation ", sequence, " of the group: rank ", rank_, " called ", named(mine),
                "; rank ", rank, " called ", named(theirs));
  }
  void check_pair(const ChipWork& work, const Header& theirs, int peer) const {
    Header mine = header_of(work, 0, false);
    TORCH_CHECK(mine.bytes == theirs.bytes && mine.dtype == theirs.dtype, "sender and receiver disagree: rank ", rank_,
                " called ", named(mine), "; rank ", peer, " called ", named(theirs));
  }

  void end_of_collective(ChipWork& work, const Round& round, Lane& lane) const {
    int64_t start_ps = lane.end_ps, unknown_count = 0;
    for (int rank = 0; rank < size_; rank++) {
      auto header = round.header(rank);
      start_ps = std::max(start_ps, header.ready_ps);
      unknown_count = std::max(unknown_count, header.unknown_count + (header.ready_ps == kNoClock));
    }
    ended(work, start_ps, unknown_count, lane);
  }
  void end_of_pair(ChipWork& work, const Header& theirs, Lane& lane) const {
    auto unknown = std::max(work.posted().unknown_count, theirs.unknown_count + (theirs.ready_ps == kNoClock));
    ended(work, std::max({lane.end_ps, work.posted().ready_ps, theirs.ready_ps}), unknown, lane);
  }
  static void ended(ChipWork& work, int64_t start_ps, int64_t unknown_count, Lane& lane) {
    if (work.is_timed()) {
      lane.end_ps = start_ps + work.posted().cost_ps;
    }
    work.done(start_ps, lane.end_ps, unknown_count);
  }

  // The exception that is being handled, with what was going on and who is gone.
  std::exception_ptr explained(const ChipWork& work) {
    std::string reason;
    try {
      throw;
    } catch (const c10::Error& error) {
      reason = error.what_without_backtrace();
    } catch (const std::exception& error) {
      reason = error.what();
    }
    std::string text;
    {
      py::gil_scoped_acquire python;
      text = group_->attr("explain")(work.operation().name, work.posted().site, reason).cast<std::string>();
    }
    if (failure_.empty()) {
      failure_ = text;
    }
    return std::make_exception_ptr(c10::DistBackendError({__func__, __FILE__, uint32_t(__LINE__)}, text));
  }

  // -------------------------------------------------------------------------------------- what collectives share

  Tensor reduced_inline(const Round& round, const Target& target, const ReduceOp& reduction) const {
    auto parts = elements_of(round.payloads(target.bytes().numel()), target.dtype());
    if (!by_ring_ || parts.numel() == 0) {
      return reduced(parts, reduction);
    }
    Tensors sums;
    int64_t chunk = 0;
    for (auto& columns : parts.split((parts.size(1) + size_ - 1) / size_, 1)) {
      sums.push_back(reduced_by_ring(columns, reduction, chunk++));
    }
    return at::cat(sums);
  }

  // This rank's chunk, given what every rank has of it.
  Tensor reduced_own(const Tensor& parts, const ReduceOp& reduction) const {
    return by_ring_ ? reduced_by_ring(parts, reduction, rank_) : reduced(parts, reduction);
  }

  // Each rank reduces a part of the elements, then all get all parts.
  Tensor reduced_whole(const Target& target, const ReduceOp& reduction) const {
    auto flat = target.bytes();
    auto item = int64_t(c10::elementSize(target.dtype()));
    auto count = flat.numel() / item;
    auto per_rank = (count + size_ - 1) / size_ * item;
    Tensor padded = flat;
    if (per_rank * size_ != flat.numel()) {
      padded = at::zeros({per_rank * size_}, flat.options());
      padded.narrow(0, 0, flat.numel()).copy_(flat);
    }
    auto parts = byte_buffer(per_rank * size_);
    std::vector<int64_t> equal;
    finish(data_->alltoall_base(parts, padded, equal, equal, {}));
    auto mine = bytes_of(reduced_own(elements_of(parts.view({size_, per_rank}), target.dtype()), reduction));
    auto all = byte_buffer(per_rank * size_);
    finish(data_->_allgather_base(all, mine, {}));
    return all.narrow(0, 0, flat.numel()).contiguous().view(target.dtype());
  }

  c10::intrusive_ptr<Work> all_reduce(const Tensor& tensor, const ReduceOp& reduction) {
    auto operation = operation_of(OpType::ALLREDUCE, "all_reduce", tensor, tensor.nbytes());
    operation.reduction = reduction;
    Target target(tensor);
    return collective(operation, tensor, {tensor}, [this, target, reduction](const Round& round, bool inlined) {
      target.fill(inlined ? reduced_inline(round, target, reduction) : reduced_whole(target, reduction));
    }, [this, target, reduction] { target.fill(reduced_alike(target.host(), reduction, size_)); });
  }

  // Inputs may have unequal sizes; each output says how large it expects its rank's.
  c10::intrusive_ptr<Work> all_gather(OpType type, const Tensors& outputs, const Tensor& input, const Tensor& whole = Tensor()) {
    auto operation = operation_of(type, "all_gather", input, input.nbytes());
    operation.same_bytes = false;
    std::vector<Target> targets(outputs.begin(), outputs.end());
    Target source(input);
    auto results = whole.defined() ? Tensors{whole} : outputs;
    return collective(operation, input, results, [this, source, targets](const Round& round, bool inlined) {
      int64_t largest = 0;
      for (int rank = 0; rank < size_; rank++) {
        auto theirs = round.header(rank).bytes, room = targets[size_t(rank)].bytes().numel();
        TORCH_CHECK(theirs == room, "all_gather: rank ", rank, " gives ", theirs, " bytes where rank ", rank_, " has an output of ", room);
        largest = std::max(largest, theirs);
      }
      if (inlined) {
        for (int rank = 0; rank < size_; rank++) {
          targets[size_t(rank)].fill_bytes(round.payload(rank, round.header(rank).bytes));
        }
        return;
      }
      auto mine = source.bytes();
      if (mine.numel() != largest) {
        auto padded = at::zeros({largest}, mine.options());
        padded.narrow(0, 0, mine.numel()).copy_(mine);
        mine = padded;
      }
      auto all = byte_buffer(largest * size_);
      finish(data_->_allgather_base(all, mine, {}));
      for (int rank = 0; rank < size_; rank++) {
        targets[size_t(rank)].fill_bytes(all.narrow(0, rank * largest, round.header(rank).bytes));
      }
    }, [source, targets] {
      for (auto& target : targets) {
        if (target.bytes().numel() == source.bytes().numel()) {
          target.fill_bytes(source.bytes());
        }
      }
    });
  }

  c10::intrusive_ptr<Work> reduce_scatter_parts(OpType type, const Tensor& output, const Tensors& inputs, const ReduceOp& reduction) {
    int64_t bytes = 0;
    for (auto& input : inputs) {
      bytes += int64_t(input.nbytes());
    }
    auto operation = operation_of(type, "reduce_scatter", output, bytes);
    operation.reduction = reduction;
    TORCH_CHECK(inputs[size_t(rank_)].numel() == output.numel(), "reduce_scatter: input ", rank_, " has ",
                inputs[size_t(rank_)].numel(), " elements, the output ", output.numel());
    Target target(output);
    std::vector<Target> sources(inputs.begin(), inputs.end());
    return collective(operation, Tensor(), {output}, [this, target, sources, reduction](const Round&, bool) {
      auto parts = exchanged(sources, std::vector<int64_t>(size_t(size_), target.bytes().numel()));
      target.fill(reduced_own(elements_of(at::stack(parts), target.dtype()), reduction));
    }, [this, target, sources, reduction] { target.fill(reduced_alike(sources[size_t(rank_)].host(), reduction, size_)); });
  }

  // Every rank's part for this one, given parts for every rank.
  Tensors exchanged(const std::vector<Target>& sources, std::vector<int64_t> incoming) const {
    std::vector<int64_t> outgoing;
    Tensors parts;
    for (auto& source : sources) {
      parts.push_back(source.bytes());
      outgoing.push_back(parts.back().numel());
    }
    int64_t total = 0;
    for (auto size : incoming) {
      total += size;
    }
    auto sent = at::cat(parts), received = byte_buffer(total);
    auto sizes = incoming;  // gloo takes the vectors it is given
    finish(data_->alltoall_base(received, sent, sizes, outgoing, {}));
    return received.split_with_sizes(incoming);
  }

  c10::intrusive_ptr<Work> all_to_all(OpType type, const Tensors& outputs, const Tensors& inputs, const Tensor& whole) {
    int64_t bytes = 0;
    auto outgoing = at::empty({size_}, at::device(at::kCPU).dtype(at::kLong));
    for (int rank = 0; rank < size_; rank++) {
      TORCH_CHECK(inputs[size_t(rank)].scalar_type() == outputs[size_t(rank)].scalar_type(),
                  "all_to_all's inputs and outputs must be of one type");
      auto size = int64_t(inputs[size_t(rank)].nbytes());
      bytes += size;
      outgoing.data_ptr<int64_t>()[rank] = size;
    }
    auto operation = operation_of(type, "all_to_all", inputs[0], bytes);
    operation.same_bytes = false;
    std::vector<Target> targets(outputs.begin(), outputs.end()), sources(inputs.begin(), inputs.end());
    // Ranks see how much the others send them, as far as a message has room for it.
    auto sizes = size_ * int64_t(sizeof(int64_t)) <= kInlineBytes ? bytes_of(outgoing) : Tensor();
    auto results = whole.defined() ? Tensors{whole} : outputs;
    return collective(operation, Tensor(), results, [this, targets, sources, sizes](const Round& round, bool) {
      std::vector<int64_t> incoming;
      for (int rank = 0; rank < size_; rank++) {
        auto room = targets[size_t(rank)].bytes().numel();
        if (sizes.defined()) {
          auto theirs = round.payload(rank, sizes.numel()).contiguous().view(at::kLong).data_ptr<int64_t>()[rank_];
          TORCH_CHECK(theirs == room, "all_to_all: rank ", rank, " sends ", theirs, " bytes to rank ", rank_, ", which expects ", room);
        }
        incoming.push_back(room);
      }
      auto parts = exchanged(sources, incoming);
      for (int rank = 0; rank < size_; rank++) {
        targets[size_t(rank)].fill_bytes(parts[size_t(rank)]);
      }
    }, [this, targets, sources] {
      auto mine = sources[size_t(rank_)].bytes();
      for (auto& target : targets) {
        if (target.bytes().numel() == mine.numel()) {
          target.fill_bytes(mine);
        }
      }
    }, sizes);
  }

  c10::intrusive_ptr<Work> receive(Tensors& tensors, int peer, int tag, OpType type) {
    auto tensor = single(tensors, "recv");
    auto operation = operation_of(OpType::RECV, "recv", tensor, tensor.nbytes());
    operation.type = type;
    return posted(operation, {tensor}, peer, [this, target = Target(tensor), peer, tag](c10::intrusive_ptr<ChipWork> work) {
      TORCH_CHECK(meta_, "a process that stands for all ranks receives nothing of its own: recv of data on the host");
      auto message = byte_buffer(kMessageBytes);
      Tensors m{message};
      auto come = peer < 0 ? meta_->recvAnysource(m, 2 * tag) : meta_->recv(m, peer, 2 * tag);
      queue(1, peer, tag).run([=, this](Lane& lane) {
        finish(come);
        int source = peer < 0 ? come->sourceRank() : peer;
        work->from(source);
        Header theirs = header_in(message);
        Header mine = header_of(*work, 0, false);
        auto answer = byte_buffer(sizeof mine);
        memcpy(answer.data_ptr<uint8_t>(), &mine, sizeof mine);
        Tensors a{answer};
        auto answered = meta_->send(a, source, 2 * tag + 1);
        check_pair(*work, theirs, source);
        if (work->operation().moves_data) {
          auto size = target.bytes().numel();
          if (size <= kInlineBytes) {
            target.fill_bytes(message.narrow(0, sizeof(Header), size));
          } else {
            auto bytes = byte_buffer(size);
            Tensors d{bytes};
            finish(data_->recv(d, source, tag));
            target.fill_bytes(bytes);
          }
        }
        finish(answered);
        end_of_pair(*work, theirs, lane);
      }, work, *this);
    });
  }

  OrderedQueue& queue(int direction, int peer, int tag) { return pairs_[{direction, peer, tag}]; }

  const bool by_ring_;  // sums as a ring adds them, not in the documented order
  c10::intrusive_ptr<c10d::Backend> meta_, data_;
  std::shared_ptr<py::object> group_;
  c10::intrusive_ptr<ChipOptions> options_;
  std::shared_ptr<Lane> lane_;
  OrderedQueue queue_;
  std::map<std::tuple<int, int, int>, OrderedQueue> pairs_;
  Milliseconds timeout_ = kBackendDefaultTimeout;
  std::string failure_;
  int64_t sequence_ = 0;
  bool coalesces_ = false;
  std::vector<Delayed> delayed_;
};

}  // namespace

namespace c10d {
C10_REGISTER_TYPED_CLASS(TimerRegistry, kChip, NoTimer)
}  // namespace c10d

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  py::module_::import("torch.distributed");
  py::class_<ChipBackend, c10d::Backend, c10::intrusive_ptr<ChipBackend>>(module, "ChipBackend")
      .def(py::init([](py::object meta, py::object data, int rank, int size, py::object group, bool by_ring) {
             return c10::make_intrusive<ChipBackend>(std::move(meta), std::move(data), rank, size, std::move(group), by_ring);
           }),
           py::arg("meta"), py::arg("data"), py::arg("rank"), py::arg("size"), py::arg("group"), py::arg("by_ring"));
}
