// The `chip` device as PyTorch sees it: HBM arena, guard, hooks, views, copies and the host fallback.
//
// HBM is host memory reserved once (`tapeout_initialize`) and handed out by an allocator, so every chip tensor's
// data_ptr() is its HBM address and lies inside the arena. An operator without a chip kernel runs on the host over
// the same bytes; while it runs, the CPU allocator hands out arena memory, so its results need no copy.
// The Python side (device.py, build.py) reads the counters and sets the policy through the C functions at the end.
// Time is kept in Python too (tapeout.runtime.clock): `Clock` is how this file tells it what happens.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Operators.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/transformers/attention.h>
#include <ATen/native/transformers/sdp_utils_cpp.h>
#include <ATen/ops/_coalesced_native.h>
#include <ATen/ops/_copy_from.h>
#include <ATen/ops/_indices_native.h>
#include <ATen/ops/_nnz_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_sparse_coo_tensor_with_dims_and_tensors_native.h>
#include <ATen/ops/_sparse_coo_tensor_with_dims_native.h>
#include <ATen/ops/_values_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/clone_native.h>
#include <ATen/ops/copy_sparse_to_sparse_native.h>
#include <ATen/ops/dense_dim_native.h>
#include <ATen/ops/empty_native.h>
#include <ATen/ops/indices_native.h>
#include <ATen/ops/is_coalesced_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/sparse_dim_native.h>
#include <ATen/ops/sparse_resize_and_clear_native.h>
#include <ATen/ops/sparse_resize_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/values_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/zero_native.h>
#include <ATen/record_function.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <libkineto.h>
#include <output_base.h>
#include <torch/csrc/profiler/standalone/privateuse1_profiler.h>
#include <torch/library.h>

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <unordered_map>
#include <unordered_set>

namespace {

using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::IValue;

constexpr auto kChip = c10::DeviceType::PrivateUse1;

// ------------------------------------------------------------------------------------------------ HBM

constexpr size_t kAlignmentBytes = 512;
constexpr uintptr_t kArenaHint = uintptr_t{0x100000000000};  // far from the heap, the libraries and the stack
constexpr size_t kPageBytes = 4096;
constexpr uintptr_t kFirstCanonicalAddress = uintptr_t{1} << 20;  // 0 stays the null pointer

std::string readable(size_t bytes) {
  std::ostringstream out;
  out.setf(std::ios::fixed);
  out.precision(2);
  if (bytes >= (size_t{1} << 30)) {
    out << static_cast<double>(bytes) / (size_t{1} << 30) << " GiB";
  } else if (bytes >= (size_t{1} << 20)) {
    out << static_cast<double>(bytes) / (size_t{1} << 20) << " MiB";
  } else {
    out << bytes << " bytes";
  }
  return out.str();
}

// One address range and a best-fit free list over it. Ties go to the lowest address, so a program that allocates
// the same sizes in the same order gets the same addresses in every run.
class Arena {
 public:
  // Reserves (does not commit) size_bytes. Returns false and leaves errno set when the host refuses.
  // Without `backed` nothing can be read or written there, and the host's memory sets no limit.
  bool reserve(size_t size_bytes, const char* chip_name, bool backed) {
    std::lock_guard<std::mutex> lock(mutex_);
    void* address = mmap(reinterpret_cast<void*>(kArenaHint), size_bytes, backed ? PROT_READ | PROT_WRITE : PROT_NONE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (address == MAP_FAILED) {
      return false;
    }
    if (backed) {
      madvise(address, size_bytes, MADV_HUGEPAGE);
    }
    base_ = reinterpret_cast<uintptr_t>(address);
    size_bytes_ = size_bytes;
    chip_name_ = chip_name;
    insert_free(base_, size_bytes);
    return true;
  }

  uintptr_t base() const { return base_; }
  size_t size_bytes() const { return size_bytes_; }
  bool contains(const void* pointer) const {
    auto address = reinterpret_cast<uintptr_t>(pointer);
    return address - base_ < size_bytes_;
  }

  void* allocate(size_t requested_bytes) {
    if (requested_bytes == 0) {
      return nullptr;
    }
    size_t bytes = (requested_bytes + red_zone_bytes_ + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    std::lock_guard<std::mutex> lock(mutex_);
    if (auto spare = spare_.find(bytes); spare != spare_.end()) {
      auto address = spare->second;
      spare_.erase(spare);
      ownerless_.erase(address);
      live_[address].requested_bytes = requested_bytes;
      if (on_allocation_ != nullptr) {
        on_allocation_(address, bytes);
      }
      return reinterpret_cast<void*>(address);
    }
    auto best = free_by_size_.lower_bound({bytes, 0});
    if (bytes < requested_bytes || best == free_by_size_.end()) {
      ++out_of_memory_count_;
      size_t largest = free_by_size_.empty() ? 0 : free_by_size_.rbegin()->first;
      TORCH_CHECK_WITH(OutOfMemoryError, false, "chip out of memory: tried to allocate ", readable(requested_bytes),
                       ", but of the ", readable(size_bytes_), " of HBM on chip '", chip_name_, "' ",
                       readable(allocated_bytes_), " are allocated in ", live_.size(),
                       " blocks and the largest free block has ", readable(largest),
                       ". Free tensors, make the batch or the model smaller, or describe a chip with a larger "
                       "hbm.size_bytes.");
    }
    auto [block_bytes, address] = *best;
    erase_free(address, block_bytes);
    if (block_bytes > bytes) {
      insert_free(address + bytes, block_bytes - bytes);
    }
    live_.emplace(address, Block{bytes, requested_bytes});
    allocated_bytes_ += bytes;
    peak_bytes_ = std::max(peak_bytes_, allocated_bytes_);
    touched_end_ = std::max(touched_end_, address + bytes);
    ++allocation_count_;
    if (capturing_) {
      held_.insert(address);
      captured_.insert(address);
    }
    if (on_allocation_ != nullptr) {
      on_allocation_(address, bytes);
    }
    return reinterpret_cast<void*>(address);
  }

  // Blocks allocated from now on stay when their tensors are gone, for a graph that writes to them when it is replayed.
  // Until the capture's end such a block may serve a later tensor of the same size.
  void begin_capture() {
    std::lock_guard<std::mutex> lock(mutex_);
    capturing_ = true;
    captured_.clear();
  }

  // Addresses of the blocks that were allocated since begin_capture, to be given to let_go once.
  std::vector<uintptr_t> end_capture() {
    std::lock_guard<std::mutex> lock(mutex_);
    capturing_ = false;
    spare_.clear();
    return {captured_.begin(), captured_.end()};
  }

  // No graph writes to the block any more.
  void let_go(uintptr_t address) {
    std::lock_guard<std::mutex> lock(mutex_);
    held_.erase(address);
    if (ownerless_.erase(address) != 0) {
      free_block(live_.find(address));
    }
  }

  // From now on every new block is followed by so many bytes that belong to none, and announced before it is used.
  void watch(void (*on_allocation)(uint64_t address, uint64_t bytes), size_t red_zone_bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    on_allocation_ = on_allocation;
    red_zone_bytes_ = red_zone_bytes;
  }

  void release(void* pointer) {
    if (pointer == nullptr) {
      return;
    }
    std::lock_guard<std::mutex> lock(mutex_);
    auto found = live_.find(reinterpret_cast<uintptr_t>(pointer));
    if (found == live_.end()) {
      return;
    }
    if (held_.count(found->first) != 0) {
      ownerless_.insert(found->first);
      if (capturing_ && captured_.count(found->first) != 0) {
        spare_.emplace(found->second.bytes, found->first);
      }
      return;
    }
    free_block(found);
  }

  // The live allocation that holds the address: start and requested size. False for a foreign address.
  bool block_of(uintptr_t address, uintptr_t* start, size_t* requested_bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    auto after = live_.upper_bound(address);
    if (after == live_.begin()) {
      return false;
    }
    auto block = std::prev(after);
    if (address >= block->first + block->second.requested_bytes) {
      return false;
    }
    *start = block->first;
    *requested_bytes = block->second.requested_bytes;
    return true;
  }

  // Copies words, each address among them moved to where it would be if the allocations they point into were the only
  // ones, made one after another in the order of the words; other addresses stay. After the words comes the first free
  // address, then three words for each allocation: where it is, how many bytes were asked for, and where it would be.
  // Returns the number of allocations.
  int64_t make_canonical(const int64_t* words, const char* is_address, int64_t count, int64_t* placed) {
    std::lock_guard<std::mutex> lock(mutex_);
    int64_t* const blocks = placed + count + 1;
    int64_t block_count = 0;
    uintptr_t next = kFirstCanonicalAddress;
    for (int64_t i = 0; i < count; ++i) {
      placed[i] = words[i];
      if (!is_address[i]) {
        continue;
      }
      auto address = static_cast<uintptr_t>(words[i]);
      auto after = live_.upper_bound(address);
      if (after == live_.begin()) {
        continue;
      }
      auto [start, block] = *std::prev(after);
      if (address >= start + block.bytes) {
        continue;
      }
      int64_t n = 0;
      while (n < block_count && blocks[3 * n] != static_cast<int64_t>(start)) {
        ++n;
      }
      if (n == block_count) {
        ++block_count;
        blocks[3 * n] = static_cast<int64_t>(start);
        blocks[3 * n + 1] = static_cast<int64_t>(block.requested_bytes);
        blocks[3 * n + 2] = static_cast<int64_t>(next);
        next += block.bytes;
      }
      placed[i] = blocks[3 * n + 2] + static_cast<int64_t>(address - start);
    }
    placed[count] = static_cast<int64_t>(next);
    return block_count;
  }

  // Gives the host back the pages of all free blocks.
  void return_free_pages() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto [address, bytes] : free_) {
      auto begin = (address + kPageBytes - 1) / kPageBytes * kPageBytes;
      auto end = std::min(address + bytes, touched_end_) / kPageBytes * kPageBytes;
      if (begin < end) {
        madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
      }
    }
    touched_end_ = live_.empty() ? base_ : live_.rbegin()->first + live_.rbegin()->second.bytes;
  }

  void statistics(int64_t* out) {
    std::lock_guard<std::mutex> lock(mutex_);
    out[0] = static_cast<int64_t>(allocated_bytes_);
    out[1] = static_cast<int64_t>(peak_bytes_);
    out[2] = static_cast<int64_t>(touched_end_ > base_ ? touched_end_ - base_ : 0);
    out[3] = static_cast<int64_t>(live_.size());
    out[4] = static_cast<int64_t>(allocation_count_);
    out[5] = static_cast<int64_t>(out_of_memory_count_);
  }

  void reset_peak() {
    std::lock_guard<std::mutex> lock(mutex_);
    peak_bytes_ = allocated_bytes_;
  }

 private:
  struct Block {
    size_t bytes;
    size_t requested_bytes;
  };
  using FreeBlocks = std::map<uintptr_t, size_t>;

  void free_block(std::map<uintptr_t, Block>::iterator block) {
    auto address = block->first;
    auto bytes = block->second.bytes;
    live_.erase(block);
    allocated_bytes_ -= bytes;
    auto next = free_.lower_bound(address);
    if (next != free_.end() && next->first == address + bytes) {
      bytes += next->second;
      next = erase_free(next->first, next->second);
    }
    if (next != free_.begin()) {
      auto previous = std::prev(next);
      if (previous->first + previous->second == address) {
        address = previous->first;
        bytes += previous->second;
        erase_free(previous->first, previous->second);
      }
    }
    insert_free(address, bytes);
  }

  void insert_free(uintptr_t address, size_t bytes) {
    free_.emplace(address, bytes);
    free_by_size_.emplace(bytes, address);
  }
  FreeBlocks::iterator erase_free(uintptr_t address, size_t bytes) {
    free_by_size_.erase({bytes, address});
    return free_.erase(free_.find(address));
  }

  std::mutex mutex_;
  uintptr_t base_ = 0;
  size_t size_bytes_ = 0;
  std::string chip_name_;
  FreeBlocks free_;
  std::set<std::pair<size_t, uintptr_t>> free_by_size_;
  std::map<uintptr_t, Block> live_;
  bool capturing_ = false;
  std::set<uintptr_t> captured_;              // blocks allocated in this capture
  std::set<uintptr_t> held_;                  // blocks that graphs write to,
  std::set<uintptr_t> ownerless_;             // those of them that no tensor has any more,
  std::multimap<size_t, uintptr_t> spare_;    // and those of these that this capture may use again, by size
  void (*on_allocation_)(uint64_t, uint64_t) = nullptr;
  size_t red_zone_bytes_ = 0;
  size_t allocated_bytes_ = 0;
  size_t peak_bytes_ = 0;
  uintptr_t touched_end_ = 0;
  size_t allocation_count_ = 0;
  size_t out_of_memory_count_ = 0;
};

Arena& arena() {
  static auto* the_arena = new Arena;  // never destroyed: tensors may outlive every static destructor
  return *the_arena;
}

void release_hbm(void* pointer) { arena().release(pointer); }

struct HbmAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* pointer = arena().allocate(bytes);
    return {pointer, pointer, &release_hbm, Device(kChip, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_hbm; }
  void copy_data(void* to, const void* from, size_t bytes) const override;
};

HbmAllocator hbm_allocator;
REGISTER_ALLOCATOR(kChip, &hbm_allocator);

// The process's CPU allocator while this library is loaded: host memory as before, except that a thread that is
// running a fallback gets HBM, so what the host computes for the chip is born on the chip.
class HostAllocator final : public c10::Allocator {
 public:
  HostAllocator() : host_(c10::GetCPUAllocator()) { host_release_ = host_->raw_deleter(); }
  c10::DataPtr allocate(size_t bytes) override {
    if (!in_fallback) {
      return host_->allocate(bytes);
    }
    void* pointer = arena().allocate(bytes);
    return {pointer, pointer, &release_hbm, Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_either; }
  bool is_simple_data_ptr(const c10::DataPtr& pointer) const override {
    return pointer.get() == pointer.get_context();
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }

  static thread_local bool in_fallback;

 private:
  static void release_either(void* pointer) {
    if (arena().contains(pointer)) {
      arena().release(pointer);
    } else {
      host_release_(pointer);
    }
  }
  c10::Allocator* host_;
  static c10::DeleterFnPtr host_release_;
};

thread_local bool HostAllocator::in_fallback = false;
c10::DeleterFnPtr HostAllocator::host_release_ = nullptr;

struct AllocateHostResultsInHbm {
  bool before = std::exchange(HostAllocator::in_fallback, true);
  ~AllocateHostResultsInHbm() { HostAllocator::in_fallback = before; }
};

// Pinned host memory is ordinary host memory whose addresses are remembered, so that is_pinned() tells the truth.
class PinnedAllocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    void* pointer = c10::alloc_cpu(bytes);
    std::lock_guard<std::mutex> lock(mutex());
    pinned()[reinterpret_cast<uintptr_t>(pointer)] = bytes;
    return {pointer, pointer, &release, Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
  static bool holds(const void* pointer) {
    std::lock_guard<std::mutex> lock(mutex());
    auto after = pinned().upper_bound(reinterpret_cast<uintptr_t>(pointer));
    if (after == pinned().begin()) {
      return false;
    }
    auto block = std::prev(after);
    return reinterpret_cast<uintptr_t>(pointer) < block->first + std::max<size_t>(block->second, 1);
  }

 private:
  static void release(void* pointer) {
    {
      std::lock_guard<std::mutex> lock(mutex());
      pinned().erase(reinterpret_cast<uintptr_t>(pointer));
    }
    c10::free_cpu(pointer);
  }
  static std::mutex& mutex() {
    static auto* the_mutex = new std::mutex;
    return *the_mutex;
  }
  static std::map<uintptr_t, size_t>& pinned() {
    static auto* blocks = new std::map<uintptr_t, size_t>;
    return *blocks;
  }
};

PinnedAllocator pinned_allocator;

// ------------------------------------------------------------------------------------------------ guard and hooks

std::atomic<int64_t> next_stream_id{1};
thread_local c10::StreamId current_stream_id = 0;

void check_device(Device device) {
  TORCH_CHECK(!device.has_index() || device.index() == 0, "device '", device.str(),
              "' does not exist: this process simulates one chip, 'chip' or 'chip:0'");
}

// ------------------------------------------------------------------------------------------------ time

enum class Timing : int { off = 0, on = 1, only = 2 };
enum class Copy : int64_t { to_chip = 0, to_host = 1, on_chip = 2 };

// Calls into tapeout.runtime.clock, set before the first use of the device. Times are picoseconds.
struct ClockCalls {
  void (*turn_on)();
  void (*moment)(int64_t stream, int64_t* time_and_unknown_count);
  void (*wait)(int64_t stream, int64_t time);
  void (*reach)(int64_t time);
  int64_t (*poll)(int64_t time);
  void (*synchronize)();
  void (*copy)(int64_t kind, int64_t bytes, int64_t stream, int64_t host_waits);
  void (*host_operator)(const char* name);
  void (*watch)(int64_t on);  // call tapeout_trace for every piece of work from now on, or no more
};

ClockCalls clock_calls{};
std::atomic<Timing> timing{Timing::off};
std::atomic<bool> reads_are_zeros{false};

bool time_is_kept() { return timing.load(std::memory_order_relaxed) != Timing::off; }
bool timing_only() { return timing.load(std::memory_order_relaxed) == Timing::only; }

void note_copy(Copy kind, size_t bytes, bool host_waits) {
  if (time_is_kept()) {
    clock_calls.copy(static_cast<int64_t>(kind), static_cast<int64_t>(bytes), current_stream_id, host_waits);
  }
}

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

// Refuses to look at values that do not exist.
void refuse_in_timing_only(const char* what) {
  TORCH_CHECK(!timing_only(), what, " needs values, and in timing alone there are none: nothing was computed. Take the ",
              "read out of what is timed, run without --timing-only, or let every value read be zero with ",
              "--read-zeros (TAPEOUT_READ=zeros)");
}

std::atomic<bool> capturing{false};

// Refuses what a graph cannot do again when it is replayed.
void refuse_in_capture(const char* what) {
  TORCH_CHECK(!capturing, what, " while a graph is captured: a graph holds the chip's own work only. Do it before the "
              "capture, or after it");
}

void HbmAllocator::copy_data(void* to, const void* from, size_t bytes) const {
  refuse_in_capture("copying a storage");
  note_copy(Copy::on_chip, bytes, false);
  if (!timing_only()) {
    std::memcpy(to, from, bytes);
  }
}

struct Event {
  int64_t time_ps = 0;
  int64_t unknown_count = 0;
};

// While no time is kept, work is done when a launch returns, and streams and events only have an identity. The first
// record of an event that is to measure time starts the clock.
struct ChipGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kChip; }
  Device exchangeDevice(Device device) const override {
    check_device(device);
    return Device(kChip, 0);
  }
  Device getDevice() const override { return Device(kChip, 0); }
  void setDevice(Device device) const override { check_device(device); }
  void uncheckedSetDevice(Device) const noexcept override {}
  c10::Stream getStream(Device) const override { return stream(current_stream_id); }
  c10::Stream getNewStream(Device, int) const override { return stream(next_stream_id++); }
  c10::Stream exchangeStream(c10::Stream to) const override {
    return stream(std::exchange(current_stream_id, to.id()));
  }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void** event, const c10::Stream& stream, DeviceIndex, c10::EventFlag flag) const override {
    if (*event == nullptr) {
      *event = new Event;
    }
    if (flag == c10::EventFlag::BACKEND_DEFAULT && !time_is_kept()) {
      clock_calls.turn_on();
    }
    if (time_is_kept()) {
      int64_t moment[2];
      clock_calls.moment(stream.id(), moment);
      *static_cast<Event*>(*event) = {moment[0], moment[1]};
    }
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (time_is_kept() && event != nullptr) {
      clock_calls.wait(stream.id(), static_cast<Event*>(event)->time_ps);
    }
  }
  bool queryEvent(void* event) const override {
    return !time_is_kept() || event == nullptr || clock_calls.poll(static_cast<Event*>(event)->time_ps);
  }
  bool queryStream(const c10::Stream& stream) const override {
    return !time_is_kept() || clock_calls.poll(end_of(stream));
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    if (time_is_kept()) {
      clock_calls.reach(end_of(stream));
    }
  }
  void synchronizeEvent(void* event) const override {
    if (time_is_kept() && event != nullptr) {
      clock_calls.reach(static_cast<Event*>(event)->time_ps);
    }
  }
  void synchronizeDevice(DeviceIndex) const override {
    if (time_is_kept()) {
      clock_calls.synchronize();
    }
  }
  void destroyEvent(void* event, DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  double elapsedTime(void* from, void* to, DeviceIndex) const override {
    TORCH_CHECK(from != nullptr && to != nullptr, "both events must be recorded before their elapsed time is known");
    auto &start = *static_cast<Event*>(from), &end = *static_cast<Event*>(to);
    if (auto unknown = end.unknown_count - start.unknown_count; unknown > 0) {
      TORCH_WARN("between these events the host ran ", unknown, " operators for the chip. Their time is unknown and not "
                 "in the elapsed time, which is therefore a lower bound; TAPEOUT_FALLBACK=warn names them");
    }
    return static_cast<double>(end.time_ps - start.time_ps) / 1e9;
  }

 private:
  static c10::Stream stream(c10::StreamId id) { return c10::Stream(c10::Stream::UNSAFE, Device(kChip, 0), id); }
  static int64_t end_of(const c10::Stream& stream) {
    int64_t moment[2];
    clock_calls.moment(stream.id(), moment);
    return moment[0];
  }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, ChipGuard);

// The state of the chip's random numbers: a seed and how many numbers were drawn from it. The kernels (ops/random.py)
// compute the n-th number of a seed. An operator that runs on the host draws from a host generator seeded from both.
struct ChipGenerator final : c10::GeneratorImpl {
  ChipGenerator() : c10::GeneratorImpl(Device(kChip, 0), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}
  void set_current_seed(uint64_t seed) override {
    seed_ = seed;
    offset_ = 0;
  }
  void set_offset(uint64_t offset) override { offset_ = offset; }
  uint64_t get_offset() const override { return offset_; }
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override {
    set_current_seed(c10::detail::getNonDeterministicRandom(true));
    return seed_;
  }
  void set_state(const c10::TensorImpl& state) override {
    TORCH_CHECK(state.numel() == kStateBytes && state.dtype() == at::kByte && state.device().is_cpu(),
                "the state of the chip's random numbers is a CPU tensor of ", kStateBytes, " bytes (seed and offset), ",
                "as get_rng_state() gives it, not ", state.numel(), " elements of ", state.dtype().name(), " on ",
                state.device());
    auto* words = static_cast<const uint64_t*>(state.data());
    seed_ = words[0];
    offset_ = words[1];
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    auto state = at::detail::empty_cpu({kStateBytes}, at::kByte, std::nullopt, std::nullopt, std::nullopt, std::nullopt);
    auto* words = static_cast<uint64_t*>(state.data_ptr());
    words[0] = seed_;
    words[1] = offset_;
    return state.getIntrusivePtr();
  }
  ChipGenerator* clone_impl() const override {
    auto* copy = new ChipGenerator;
    copy->seed_ = seed_;
    copy->offset_ = offset_;
    return copy;
  }

 private:
  static constexpr int64_t kStateBytes = 16;
  uint64_t seed_ = c10::default_rng_seed_val;
  uint64_t offset_ = 0;
};

const at::Generator& default_generator() {
  static auto* generator = new at::Generator(at::make_generator<ChipGenerator>());
  return *generator;
}

at::Generator default_generator_handle() { return default_generator(); }

// Takes `numbers` numbers from the generator (the default one, if none is given); returns its seed and the first's place.
std::tuple<int64_t, int64_t> draw(std::optional<at::Generator> generator, int64_t numbers) {
  at::Generator chosen = generator.has_value() && generator->defined() ? *generator : default_generator();
  TORCH_CHECK(chosen.device().type() == kChip, "expected a generator on the chip, torch.Generator('chip'), but it is on ",
              chosen.device());
  std::lock_guard<std::mutex> lock(chosen.mutex());
  auto first = chosen.get_offset();
  chosen.set_offset(first + static_cast<uint64_t>(numbers));
  return {static_cast<int64_t>(chosen.current_seed()), static_cast<int64_t>(first)};
}

at::Generator host_generator(const at::Generator& generator) {
  if (generator.device().type() != kChip) {
    return generator;
  }
  auto [seed, place] = draw(generator, 1);
  return at::detail::createCPUGenerator(static_cast<uint64_t>(seed) + 0x9E3779B97F4A7C15u * static_cast<uint64_t>(place));
}

struct ChipHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  void setCurrentDevice(DeviceIndex index) const override { check_device(Device(kChip, index)); }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    check_device(Device(kChip, index));
    return 0;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  Device getDeviceFromPtr(void* pointer) const override {
    TORCH_CHECK(arena().contains(pointer), "address ", pointer, " is not in the chip's HBM");
    return Device(kChip, 0);
  }
  bool isPinnedPtr(const void* pointer) const override { return PinnedAllocator::holds(pointer); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<ChipGenerator>(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto* impl = storage.unsafeGetStorageImpl();
    auto resized = hbm_allocator.allocate(bytes);
    if (auto kept = std::min(bytes, storage.nbytes()); kept != 0) {
      refuse_in_capture("resizing a tensor that has content");
      note_copy(Copy::on_chip, kept, false);
      if (!timing_only()) {
        std::memcpy(resized.get(), storage.data(), kept);
      }
    }
    impl->set_data_ptr_noswap(std::move(resized));
    impl->set_nbytes(bytes);
  }
};

// ------------------------------------------------------------------------------------------------ torch.profiler

// What torch.profiler collects of the chip: its kernels and copies, in the chip's time, linked to the operators that
// asked for them. The host's events are in the host's time. Both begin together when a trace starts, and from there
// each has its own scale: durations of the chip are the chip's, and do not lie under the host's.
class ChipTrace final : public libkineto::IActivityProfilerSession {
 public:
  ChipTrace() : buffer_(std::make_unique<libkineto::CpuTraceBuffer>()) {}
  void start() override {
    if (!time_is_kept()) {
      clock_calls.turn_on();
    }
    int64_t moment[2];
    clock_calls.moment(0, moment);
    started_ps_ = moment[0];
    started_ns_ = now_ns();
    buffer_->span = libkineto::TraceSpan(started_ns_, 0, "chip");
    buffer_->gpuOpCount = 0;
    status_ = libkineto::TraceStatus::RECORDING;
    current_ = this;
    clock_calls.watch(1);
  }
  void stop() override {
    clock_calls.watch(0);
    current_ = nullptr;
    buffer_->span.endTime = now_ns();
    status_ = libkineto::TraceStatus::PROCESSING;
  }
  std::vector<std::string> errors() override { return {}; }
  void processTrace(libkineto::ActivityLogger& logger) override {
    for (auto& activity : buffer_->activities) {
      activity->log(logger);
    }
  }
  void processTrace(libkineto::ActivityLogger& logger, libkineto::getLinkedActivityCallback linked, int64_t,
                    int64_t) override {
    for (auto& activity : buffer_->activities) {
      activity->linked = linked(activity->id);
    }
    processTrace(logger);
  }
  std::unique_ptr<libkineto::DeviceInfo> getDeviceInfo() override {
    return std::make_unique<libkineto::DeviceInfo>(libkineto::DeviceInfo{0, 1, "chip", "simulated time"});
  }
  std::vector<libkineto::ResourceInfo> getResourceInfos() override { return {}; }
  std::unique_ptr<libkineto::CpuTraceBuffer> getTraceBuffer() override { return std::move(buffer_); }
  void pushCorrelationId(uint64_t id) override { correlations_.push_back(id); }
  void popCorrelationId() override {
    if (!correlations_.empty()) {
      correlations_.pop_back();
    }
  }

  static void add(const char* name, bool is_copy, int64_t stream, int64_t start_ps, int64_t end_ps) {
    if (auto* trace = current_) {
      auto type = is_copy ? libkineto::ActivityType::GPU_MEMCPY : libkineto::ActivityType::CONCURRENT_KERNEL;
      trace->buffer_->emplace_activity(trace->buffer_->span, type, name);
      auto& activity = *trace->buffer_->activities.back();
      activity.startTime = trace->started_ns_ + (start_ps - trace->started_ps_) / 1000;
      activity.endTime = trace->started_ns_ + (end_ps - trace->started_ps_) / 1000;
      activity.id = static_cast<int32_t>(trace->correlations_.empty() ? 0 : trace->correlations_.back());
      activity.resource = static_cast<int32_t>(stream);
      ++trace->buffer_->gpuOpCount;
    }
  }

 private:
  static int64_t now_ns() {
    using namespace std::chrono;
    return duration_cast<nanoseconds>(system_clock::now().time_since_epoch()).count();
  }
  static inline ChipTrace* current_ = nullptr;
  std::unique_ptr<libkineto::CpuTraceBuffer> buffer_;
  std::vector<uint64_t> correlations_;
  int64_t started_ps_ = 0, started_ns_ = 0;
};

class ChipProfiler final : public libkineto::IActivityProfiler {
 public:
  const std::string& name() const override { return name_; }
  const std::set<libkineto::ActivityType>& availableActivities() const override { return activities_; }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(const std::set<libkineto::ActivityType>& wanted,
                                                                 const libkineto::Config&) override {
    bool chip = wanted.count(libkineto::ActivityType::CONCURRENT_KERNEL) != 0;
    return chip ? std::make_unique<ChipTrace>() : nullptr;
  }
  std::unique_ptr<libkineto::IActivityProfilerSession> configure(int64_t, int64_t,
                                                                 const std::set<libkineto::ActivityType>& wanted,
                                                                 const libkineto::Config& config) override {
    return configure(wanted, config);
  }

 private:
  std::string name_ = "chip";
  std::set<libkineto::ActivityType> activities_ = {libkineto::ActivityType::CONCURRENT_KERNEL,
                                                   libkineto::ActivityType::GPU_MEMCPY};
};

REGISTER_PRIVATEUSE1_PROFILER(ChipProfiler);

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
  if (data != nullptr && arena().contains(data)) {
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

Tensor empty(c10::IntArrayRef sizes, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
             std::optional<Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  TORCH_CHECK_NOT_IMPLEMENTED(c10::layout_or_default(layout) == c10::kStrided,
                              "the chip has dense tensors and sparse ones (COO), not ", *layout);
  check_device(c10::device_or_default(device));
  return at::detail::empty_generic(sizes, &hbm_allocator, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(c10::IntArrayRef sizes, c10::IntArrayRef strides, std::optional<c10::ScalarType> dtype,
                     std::optional<c10::Layout>, std::optional<Device> device, std::optional<bool>) {
  check_device(c10::device_or_default(device));
  return at::detail::empty_strided_generic(sizes, strides, &hbm_allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           c10::dtype_or_default(dtype));
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
Tensor unfold(const Tensor& self, int64_t dimension, int64_t size, int64_t step) {
  return at::native::unfold(self, dimension, size, step);
}
Tensor view_as_real(const Tensor& self) { return at::native::view_as_real(self); }
Tensor view_as_complex(const Tensor& self) { return at::native::view_as_complex(self); }
const Tensor& resize_(const Tensor& self, c10::SymIntArrayRef sizes, std::optional<at::MemoryFormat> format) {
  return at::native::resize_(self, C10_AS_INTARRAYREF_SLOW(sizes), format);
}
Tensor& set_source_tensor(Tensor& self, const Tensor& source) { return at::native::set_tensor_(self, source); }
Tensor& set_source_storage(Tensor& self, at::Storage source) { return at::native::set_(self, std::move(source)); }
Tensor& set_source_storage_offset(Tensor& self, at::Storage source, c10::SymInt offset, c10::SymIntArrayRef sizes,
                                  c10::SymIntArrayRef strides) {
  return at::native::set_storage_cpu_(self, std::move(source), offset.guard_int(__FILE__, __LINE__),
                                      C10_AS_INTARRAYREF_SLOW(sizes), C10_AS_INTARRAYREF_SLOW(strides));
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

Tensor refuse_binary_cross_entropy(const Tensor&, const Tensor&, const std::optional<Tensor>&, int64_t) {
  TORCH_CHECK(false,
              "binary_cross_entropy of a sigmoid in a half type is not safe under autocast: use "
              "binary_cross_entropy_with_logits (torch.nn.BCEWithLogitsLoss) instead, or leave autocast for this call");
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
  m.impl("unfold", unfold);
  m.impl("view_as_real", view_as_real);
  m.impl("view_as_complex", view_as_complex);
  m.impl("resize_", resize_);
  m.impl("set_.source_Tensor", set_source_tensor);
  m.impl("set_.source_Storage", set_source_storage);
  m.impl("set_.source_Storage_storage_offset", set_source_storage_offset);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
}

// The copies resolve lazy conjugation and negation themselves. torch's own way, a clone first, would copy for ever.
// Sparse tensors (COO), as gradients of embeddings are: indices and values on the chip. What computes is ops/sparse.py.
TORCH_LIBRARY_IMPL(aten, SparsePrivateUse1, m) {
  using namespace at::native;
  m.impl("empty.memory_format", [](c10::SymIntArrayRef sizes, std::optional<at::ScalarType> dtype,
                                   std::optional<at::Layout> layout, std::optional<Device> device,
                                   std::optional<bool> pinned, std::optional<at::MemoryFormat> format) {
    return empty_sparse(C10_AS_INTARRAYREF_SLOW(sizes), dtype, layout, device, pinned, format);
  });
  m.impl("_sparse_coo_tensor_with_dims", new_with_dims_sparse);
  m.impl("_sparse_coo_tensor_with_dims_and_tensors", new_with_dims_and_tensor_sparse_symint);
  m.impl("sparse_resize_", sparse_resize_);
  m.impl("sparse_resize_and_clear_", sparse_resize_and_clear_);
  m.impl("copy_sparse_to_sparse_", copy_sparse_);
  m.impl("clone", clone_sparse);
  m.impl("zero_", zero_sparse_);
  m.impl("sparse_dim", sparse_dim_sparse);
  m.impl("dense_dim", dense_dim_sparse);
  m.impl("_nnz", _nnz_sparse);
  m.impl("_indices", _indices_sparse);
  m.impl("_values", _values_sparse);
  m.impl("indices", indices_sparse);
  m.impl("values", values_sparse);
  m.impl("is_coalesced", is_coalesced_sparse);
  m.impl("_coalesced_", _coalesced_sparse_);
}

TORCH_LIBRARY_IMPL(aten, Conjugate, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, Negative, m) { m.impl("_copy_from", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(tapeout, Conjugate, m) { m.impl("copy_through_host", torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(tapeout, Negative, m) { m.impl("copy_through_host", torch::CppFunction::makeFallthrough()); }

namespace at::autocast {
// Autocast: the lists every device shares, from torch.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, m) { m.fallback(torch::CppFunction::makeFallthrough()); }
TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {
#define LOWER_PRECISION(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, lower_precision_fp)
  AT_FORALL_LOWER_PRECISION_FP(LOWER_PRECISION)
#define IN_FLOAT32(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32)
  AT_FORALL_FP32(IN_FLOAT32)
#define FLOAT32_UNLESS_ASKED(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, fp32_set_opt_dtype)
  AT_FORALL_FP32_SET_OPT_DTYPE(FLOAT32_UNLESS_ASKED)
  AT_FORALL_DIFFERENT_REDISPATCH_SIGNATURE(KERNEL_DIFFERENT_REDISPATCH_SIGNATURE_PRIVATEUSEONE)
#define WIDEST(...) KERNEL_PRIVATEUSEONE(__VA_ARGS__, promote)
  AT_FORALL_PROMOTE(WIDEST)
  m.impl(TORCH_SELECTIVE_NAME("aten::binary_cross_entropy"), TORCH_FN(&refuse_binary_cross_entropy));
}
}  // namespace at::autocast

// as_host: the bytes of a chip tensor as a CPU tensor, for our own code that looks at them without a copy.
TORCH_LIBRARY(tapeout, m) {
  m.def("as_host(Tensor(a) tensor) -> Tensor(a)", as_host);
  m.def("copy_through_host(Tensor source, Tensor(a!) destination, bool non_blocking=False) -> Tensor(a!)",
        copy_through_host);
  m.def("default_generator() -> Generator?", default_generator_handle);
  m.def("draw(Generator? generator, int numbers) -> (int, int)", torch::CppFunction::makeFromUnboxedFunction(&draw));
}

// ------------------------------------------------------------------------------------------------ for device.py

#pragma GCC visibility push(default)
extern "C" {

// Reserves HBM and takes over the device type. Returns 0, or errno when the host refuses the reservation.
int tapeout_initialize(uint64_t hbm_size_bytes, const char* chip_name, const ClockCalls* calls, int timing_only) {
  if (!arena().reserve(hbm_size_bytes, chip_name, !timing_only)) {
    return errno;
  }
  clock_calls = *calls;
  c10::SetCPUAllocator(new HostAllocator, /*priority=*/255);
  at::RegisterPrivateUse1HooksInterface(new ChipHooks);
  return 0;
}

uint64_t tapeout_arena_base() { return arena().base(); }
uint64_t tapeout_arena_size_bytes() { return arena().size_bytes(); }

int tapeout_block_of(uint64_t address, uint64_t* start, uint64_t* size_bytes) {
  uintptr_t block_start = 0;
  size_t block_bytes = 0;
  if (!arena().block_of(address, &block_start, &block_bytes)) {
    return 0;
  }
  *start = block_start;
  *size_bytes = block_bytes;
  return 1;
}

// How time is kept from now on: the values of Timing. Reads in timing alone give zeros instead of an error if asked.
void tapeout_set_timing(int mode) { timing = static_cast<Timing>(mode); }
void tapeout_let_reads_be_zeros(int zeros) { reads_are_zeros = zeros != 0; }
// Keep the names of running operators from now on, and the innermost of them in this thread ("" if there is none).
void tapeout_watch_operators() {
  static std::once_flag once;
  std::call_once(once, watch_operators);
}
const char* tapeout_current_operator() {
  auto& names = running_operators();
  return names.empty() ? "" : names.back().c_str();
}
// A piece of work for torch.profiler's trace, if one is being taken.
void tapeout_trace(const char* name, int is_copy, int64_t stream, int64_t start_ps, int64_t end_ps) {
  ChipTrace::add(name, is_copy != 0, stream, start_ps, end_ps);
}
int64_t tapeout_current_stream() { return current_stream_id; }
int64_t tapeout_make_canonical(const int64_t* words, const char* is_address, int64_t count, int64_t* placed) {
  return arena().make_canonical(words, is_address, count, placed);
}

void tapeout_watch_allocations(void (*on_allocation)(uint64_t, uint64_t), uint64_t red_zone_bytes) {
  arena().watch(on_allocation, red_zone_bytes);
}

void tapeout_begin_capture() {
  arena().begin_capture();
  capturing = true;
}
// Ends the capture. Calls `hand_over` with every block allocated in it; tapeout_let_go takes it back.
void tapeout_end_capture(void (*hand_over)(uint64_t address)) {
  capturing = false;
  for (auto address : arena().end_capture()) {
    hand_over(address);
  }
}
void tapeout_let_go(uint64_t address) { arena().let_go(address); }

void tapeout_memory_statistics(int64_t* six) { arena().statistics(six); }
void tapeout_reset_peak() { arena().reset_peak(); }
void tapeout_return_free_pages() { arena().return_free_pages(); }

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
