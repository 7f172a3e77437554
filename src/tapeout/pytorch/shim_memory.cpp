// HBM: host memory reserved once (`tapeout_initialize`) and handed out by an allocator, so every chip tensor's data_ptr()
// is its HBM address and lies inside the arena of its chip. The arenas of a process's chips lie one after another.

#include "shim.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <vector>

namespace tapeout {
namespace {

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
  Arena(uintptr_t base, const MemoryOfChip& memory)
      : base_(base), size_bytes_(memory.size_bytes), chip_name_(memory.chip_name), memory_name_(memory.name) {
    insert_free(base_, size_bytes_);
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
                       ", but of the ", readable(size_bytes_), " of ", memory_name_, " on chip '",
                       chip_name_, "' ", readable(allocated_bytes_), " are allocated in ", live_.size(),
                       " blocks and the largest free block has ", readable(largest),
                       ": ", readable(bytes - std::min(bytes, largest)), " are missing. Free tensors, make the batch "
                       "or the model smaller, share it among several chips, or describe a chip with more memory.");
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

  void reset_counts() {
    std::lock_guard<std::mutex> lock(mutex_);
    allocation_count_ = out_of_memory_count_ = 0;
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
  const uintptr_t base_;
  const size_t size_bytes_;
  const std::string chip_name_, memory_name_;
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

// Of each chip; never destroyed: tensors may outlive every static destructor.
std::vector<Arena*>& arenas() {
  static auto* of_chips = new std::vector<Arena*>;
  return *of_chips;
}

Arena& arena_of(DeviceIndex index) { return *arenas()[static_cast<size_t>(index)]; }
Arena& current_arena() { return arena_of(current_device()); }

// Null for an address that is in no chip's HBM.
Arena* arena_that_holds(const void* pointer) {
  for (auto* arena : arenas()) {
    if (arena->contains(pointer)) {
      return arena;
    }
  }
  return nullptr;
}

void release_hbm(void* pointer) {
  if (auto* arena = arena_that_holds(pointer)) {
    arena->release(pointer);
  }
}

// Also what torch.accelerator asks about memory.
struct HbmAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t bytes) override {
    void* pointer = current_arena().allocate(bytes);
    return {pointer, pointer, &release_hbm, Device(kChip, current_device())};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_hbm; }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override {
    for (auto* arena : arenas()) {
      arena->return_free_pages();
    }
  }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}  // what a stream has used is done with
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(DeviceIndex index) override {
    check_device(Device(kChip, index));
    int64_t values[6];
    arena_of(index).statistics(values);
    constexpr auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    c10::CachingDeviceAllocator::DeviceStats stats;
    stats.allocated_bytes[all].current = values[0];
    stats.allocated_bytes[all].peak = values[1];
    stats.reserved_bytes[all].current = stats.reserved_bytes[all].peak = values[2];
    stats.active[all].current = values[3];
    stats.allocation[all].allocated = values[4];
    stats.num_ooms = values[5];
    return stats;
  }
  void resetAccumulatedStats(DeviceIndex index) override {
    check_device(Device(kChip, index));
    arena_of(index).reset_counts();
  }
  void resetPeakStats(DeviceIndex index) override {
    check_device(Device(kChip, index));
    arena_of(index).reset_peak();
  }
  std::pair<size_t, size_t> getMemoryInfo(DeviceIndex index) override {
    check_device(Device(kChip, index));
    int64_t values[6];
    arena_of(index).statistics(values);
    auto size_bytes = arena_of(index).size_bytes();
    return {size_bytes - static_cast<size_t>(values[0]), size_bytes};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    refuse_in_capture("copying a storage");
    note_copy(Copy::on_chip, bytes, false);
    if (!timing_only()) {
      std::memcpy(to, from, bytes);
    }
  }
};

HbmAllocator hbm;
REGISTER_ALLOCATOR(kChip, &hbm);

// The process's CPU allocator while this library is loaded: host memory as before, except that a thread that is
// running a fallback gets HBM, so what the host computes for the chip is born on the chip.
class HostAllocator final : public c10::Allocator {
 public:
  HostAllocator() : host_(c10::GetCPUAllocator()) { host_release_ = host_->raw_deleter(); }
  c10::DataPtr allocate(size_t bytes) override {
    if (!host_allocates_in_hbm) {
      return host_->allocate(bytes);
    }
    void* pointer = current_arena().allocate(bytes);
    return {pointer, pointer, &release_hbm, Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release_either; }
  bool is_simple_data_ptr(const c10::DataPtr& pointer) const override {
    return pointer.get() == pointer.get_context();
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }

 private:
  static void release_either(void* pointer) {
    if (auto* arena = arena_that_holds(pointer)) {
      arena->release(pointer);
    } else {
      host_release_(pointer);
    }
  }
  c10::Allocator* host_;
  static c10::DeleterFnPtr host_release_;
};

c10::DeleterFnPtr HostAllocator::host_release_ = nullptr;

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

PinnedAllocator pinned;

}  // namespace

c10::Allocator& hbm_allocator = hbm;
c10::Allocator& pinned_allocator = pinned;
thread_local bool host_allocates_in_hbm = false;
std::atomic<bool> capturing{false};

bool in_hbm(const void* pointer) { return arena_that_holds(pointer) != nullptr; }
DeviceIndex chip_that_holds(const void* pointer) {
  auto found = std::find_if(arenas().begin(), arenas().end(), [&](Arena* arena) { return arena->contains(pointer); });
  return static_cast<DeviceIndex>(found == arenas().end() ? -1 : found - arenas().begin());
}
bool is_pinned(const void* pointer) { return PinnedAllocator::holds(pointer); }

bool reserve_hbm(const std::vector<MemoryOfChip>& chips, bool backed) {
  size_t all_bytes = 0;
  for (auto& chip : chips) {
    all_bytes += chip.size_bytes;
  }
  void* address = mmap(reinterpret_cast<void*>(kArenaHint), all_bytes, backed ? PROT_READ | PROT_WRITE : PROT_NONE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (address == MAP_FAILED) {
    return false;
  }
  if (backed) {
    madvise(address, all_bytes, MADV_HUGEPAGE);
  }
  auto base = reinterpret_cast<uintptr_t>(address);
  for (auto& chip : chips) {
    arenas().push_back(new Arena(base, chip));
    base += chip.size_bytes;
  }
  return true;
}
void take_over_host_allocator() { c10::SetCPUAllocator(new HostAllocator, /*priority=*/255); }

void refuse_in_capture(const char* what) {
  TORCH_CHECK(!capturing, what, " while a graph is captured: a graph holds the chip's own work only. Do it before the "
              "capture, or after it");
}

// ------------------------------------------------------------------------------------------------ for device.py

#pragma GCC visibility push(default)
extern "C" {

// All chips' HBM as one range, and each chip's.
uint64_t tapeout_arena_base() { return arenas().front()->base(); }
uint64_t tapeout_arena_size_bytes() {
  return arenas().back()->base() + arenas().back()->size_bytes() - arenas().front()->base();
}
uint64_t tapeout_base_of_chip(int64_t index) { return arena_of(static_cast<DeviceIndex>(index)).base(); }

int tapeout_block_of(uint64_t address, uint64_t* start, uint64_t* size_bytes) {
  uintptr_t block_start = 0;
  size_t block_bytes = 0;
  auto* arena = arena_that_holds(reinterpret_cast<void*>(address));
  if (arena == nullptr || !arena->block_of(address, &block_start, &block_bytes)) {
    return 0;
  }
  *start = block_start;
  *size_bytes = block_bytes;
  return 1;
}

// Of a launch on the current chip.
int64_t tapeout_make_canonical(const int64_t* words, const char* is_address, int64_t count, int64_t* placed) {
  return current_arena().make_canonical(words, is_address, count, placed);
}

void tapeout_watch_allocations(void (*on_allocation)(uint64_t, uint64_t), uint64_t red_zone_bytes) {
  for (auto* arena : arenas()) {
    arena->watch(on_allocation, red_zone_bytes);
  }
}

void tapeout_begin_capture() {
  for (auto* arena : arenas()) {
    arena->begin_capture();
  }
  capturing = true;
}
// Ends the capture. Calls `hand_over` with every block allocated in it; tapeout_let_go takes it back.
void tapeout_end_capture(void (*hand_over)(uint64_t address)) {
  capturing = false;
  for (auto* arena : arenas()) {
    for (auto address : arena->end_capture()) {
      hand_over(address);
    }
  }
}
void tapeout_let_go(uint64_t address) { arena_that_holds(reinterpret_cast<void*>(address))->let_go(address); }

void tapeout_memory_statistics(int64_t index, int64_t* six) { arena_of(static_cast<DeviceIndex>(index)).statistics(six); }
void tapeout_reset_peak(int64_t index) { arena_of(static_cast<DeviceIndex>(index)).reset_peak(); }
void tapeout_return_free_pages() {
  for (auto* arena : arenas()) {
    arena->return_free_pages();
  }
}
}
#pragma GCC visibility pop

}  // namespace tapeout
