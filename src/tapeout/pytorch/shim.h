// What the parts of the shim know of each other. Only light headers of torch are included here: a part that does not
// deal with operators does not pay for their declarations when it is built.
//
//   shim_memory.cpp    HBM, and the allocators that hand it out
//   shim_hooks.cpp     the device as torch's guard and hooks see it: streams, events, random numbers, time
//   shim_profiler.cpp  torch.profiler
//   shim.cpp           operators: views, copies, autocast, the fallback on the host, and what it counts

#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace tapeout {

using c10::Device;
using c10::DeviceIndex;

constexpr auto kChip = c10::DeviceType::PrivateUse1;

// ------------------------------------------------------------------------------------------------ memory

extern c10::Allocator& hbm_allocator;
extern c10::Allocator& pinned_allocator;

bool in_hbm(const void* pointer);
DeviceIndex chip_that_holds(const void* pointer);  // -1: none
bool is_pinned(const void* pointer);

struct MemoryOfChip {
  std::string chip_name, name;
  size_t size_bytes;
};

// Reserves (does not commit) HBM for each chip. False, and errno is set, when the host refuses.
// Without `backed` nothing can be read or written there, and the host's memory sets no limit.
bool reserve_hbm(const std::vector<MemoryOfChip>& chips, bool backed);
// From now on a thread that runs a fallback allocates its host memory in HBM.
void take_over_host_allocator();

extern thread_local bool host_allocates_in_hbm;

struct AllocateHostResultsInHbm {
  bool before = std::exchange(host_allocates_in_hbm, true);
  ~AllocateHostResultsInHbm() { host_allocates_in_hbm = before; }
};

extern std::atomic<bool> capturing;

// Refuses what a graph cannot do again when it is replayed.
void refuse_in_capture(const char* what);

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
  // From the current chip to another, whose stream is given too.
  void (*copy_between)(int64_t bytes, int64_t stream, int64_t target, int64_t target_stream);
  void (*host_operator)(const char* name);
  void (*watch)(int64_t on);  // call tapeout_trace for every piece of work from now on, or no more
};

extern ClockCalls clock_calls;
extern std::atomic<Timing> timing;
extern std::atomic<bool> reads_are_zeros;

inline bool time_is_kept() { return timing.load(std::memory_order_relaxed) != Timing::off; }
inline bool timing_only() { return timing.load(std::memory_order_relaxed) == Timing::only; }

void note_copy(Copy kind, size_t bytes, bool host_waits);

// Refuses to look at values that do not exist.
void refuse_in_timing_only(const char* what);

// ------------------------------------------------------------------------------------------------ the chips

constexpr DeviceIndex kMostChips = 64;

extern DeviceIndex chip_count;
extern thread_local DeviceIndex current_device_index;

inline DeviceIndex current_device() { return current_device_index; }

// Makes a chip the current one of this thread; index -1 leaves the current one.
struct OnChip {
  explicit OnChip(DeviceIndex index) : before(current_device_index) {
    if (index >= 0) {
      current_device_index = index;
    }
  }
  explicit OnChip(Device device) : OnChip(device.index()) {}
  OnChip(const OnChip&) = delete;
  OnChip& operator=(const OnChip&) = delete;
  ~OnChip() { current_device_index = before; }
  DeviceIndex before;
};

// Refuses a device that is no chip of this process.
void check_device(Device device);

c10::StreamId current_stream_of(DeviceIndex index);

// Notes a copy from one chip's memory to another's.
void note_copy_between(DeviceIndex source, DeviceIndex target, size_t bytes);

}  // namespace tapeout
