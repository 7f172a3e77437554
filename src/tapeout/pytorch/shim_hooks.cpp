// The device as torch's guard and hooks see it, with its streams, events and random numbers.
//
// Time is kept in Python (tapeout.runtime.clock): `ClockCalls` is how this file tells it what happens.

#include "shim.h"
#include "shim_generator.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cerrno>
#include <cstring>
#include <mutex>

namespace tapeout {
namespace {

std::atomic<int64_t> next_stream_id{1};
thread_local c10::StreamId current_stream_ids[kMostChips] = {};

DeviceIndex or_current(DeviceIndex index) { return index < 0 ? current_device() : index; }

}  // namespace

DeviceIndex chip_count = 1;
thread_local DeviceIndex current_device_index = 0;

void check_device(Device device) {
  if (C10_LIKELY(device.index() < chip_count)) {
    return;
  }
  TORCH_CHECK(chip_count != 1, "device '", device.str(),
              "' does not exist: this process simulates one chip, 'chip' or 'chip:0'");
  TORCH_CHECK(false, "device '", device.str(), "' does not exist: this process simulates ", int(chip_count),
              " chips, 'chip:0' to 'chip:", chip_count - 1, "'");
}

c10::StreamId current_stream_of(DeviceIndex index) { return current_stream_ids[index]; }

ClockCalls clock_calls{};
std::atomic<Timing> timing{Timing::off};
std::atomic<bool> reads_are_zeros{false};

void note_copy(Copy kind, size_t bytes, bool host_waits) {
  if (time_is_kept()) {
    clock_calls.copy(static_cast<int64_t>(kind), static_cast<int64_t>(bytes), current_stream_of(current_device()),
                     host_waits);
  }
}

void note_copy_between(DeviceIndex source, DeviceIndex target, size_t bytes) {
  if (time_is_kept()) {
    OnChip on_source(source);
    clock_calls.copy_between(static_cast<int64_t>(bytes), current_stream_of(source), target, current_stream_of(target));
  }
}

// Refuses to look at values that do not exist.
void refuse_in_timing_only(const char* what) {
  TORCH_CHECK(!timing_only(), what, " needs values, and in timing alone there are none: nothing was computed. Take the ",
              "read out of what is timed, run without --timing-only, or let every value read be zero with ",
              "--read-zeros (TAPEOUT_READ=zeros)");
}

namespace {

struct Event {
  int64_t time_ps = 0;
  int64_t unknown_count = 0;
};

// While no time is kept, work is done when a launch returns, and streams and events only have an identity. The first
// record of an event that is to measure time starts the clock.
struct ChipGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kChip; }
  Device exchangeDevice(Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return Device(kChip, current_device()); }
  void setDevice(Device device) const override {
    check_device(device);
    uncheckedSetDevice(device);
  }
  void uncheckedSetDevice(Device device) const noexcept override { current_device_index = or_current(device.index()); }
  c10::Stream getStream(Device device) const override {
    auto index = checked(device);
    return stream(index, current_stream_of(index));
  }
  c10::Stream getNewStream(Device device, int) const override { return stream(checked(device), next_stream_id++); }
  c10::Stream getDefaultStream(Device device) const override { return stream(checked(device), 0); }
  c10::Stream getStreamFromGlobalPool(Device device, bool) const override { return getNewStream(device, 0); }
  c10::Stream exchangeStream(c10::Stream to) const override {
    return stream(to.device_index(), std::exchange(current_stream_ids[to.device_index()], to.id()));
  }
  DeviceIndex deviceCount() const noexcept override { return chip_count; }
  c10::DeviceCapability getDeviceCapability(Device) const override { return {}; }  // tensors of every type
  void record(void** event, const c10::Stream& stream, DeviceIndex, c10::EventFlag flag) const override {
    if (*event == nullptr) {
      *event = new Event;
    }
    OnChip of_stream(stream.device_index());
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
      OnChip of_stream(stream.device_index());
      clock_calls.wait(stream.id(), static_cast<Event*>(event)->time_ps);
    }
  }
  bool queryEvent(void* event) const override {
    return !time_is_kept() || event == nullptr || clock_calls.poll(static_cast<Event*>(event)->time_ps);
  }
  bool queryStream(const c10::Stream& stream) const override {
    OnChip of_stream(stream.device_index());
    return !time_is_kept() || clock_calls.poll(end_of(stream));
  }
  void synchronizeStream(const c10::Stream& stream) const override {
    if (time_is_kept()) {
      OnChip of_stream(stream.device_index());
      clock_calls.reach(end_of(stream));
    }
  }
  void synchronizeEvent(void* event) const override {
    if (time_is_kept() && event != nullptr) {
      clock_calls.reach(static_cast<Event*>(event)->time_ps);
    }
  }
  void synchronizeDevice(DeviceIndex index) const override {
    OnChip on_chip(checked(Device(kChip, index)));
    if (time_is_kept()) {
      clock_calls.synchronize();
    }
  }
  // Memory is used when a kernel is launched, which has run when the launch returns: no stream holds on to it.
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
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
  static DeviceIndex checked(Device device) {
    check_device(device);
    return or_current(device.index());
  }
  static c10::Stream stream(DeviceIndex index, c10::StreamId id) {
    return c10::Stream(c10::Stream::UNSAFE, Device(kChip, index), id);
  }
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
  explicit ChipGenerator(DeviceIndex index)
      : c10::GeneratorImpl(Device(kChip, index), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)) {}
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
    auto* copy = new ChipGenerator(device().index());
    copy->seed_ = seed_;
    copy->offset_ = offset_;
    return copy;
  }

 private:
  static constexpr int64_t kStateBytes = 16;
  uint64_t seed_ = c10::default_rng_seed_val;
  uint64_t offset_ = 0;
};

}  // namespace

const at::Generator& default_generator(DeviceIndex index) {
  static auto* generators = [] {
    auto* of_chips = new std::vector<at::Generator>;
    for (DeviceIndex i = 0; i < chip_count; ++i) {
      of_chips->push_back(at::make_generator<ChipGenerator>(i));
    }
    return of_chips;
  }();
  return (*generators)[static_cast<size_t>(index)];
}

const at::Generator& default_generator() { return default_generator(current_device()); }

std::tuple<int64_t, int64_t> draw(std::optional<at::Generator> generator, int64_t numbers) {
  at::Generator chosen = generator.has_value() && generator->defined() ? *generator : default_generator();
  TORCH_CHECK(chosen.device().type() == kChip, "expected a generator on the chip, torch.Generator('chip'), but it is on ",
              chosen.device());
  TORCH_CHECK(chosen.device().index() == current_device(), "Expected a '", Device(kChip, current_device()),
              "' device type for generator but found '", chosen.device(), "'");
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

namespace {

struct ChipHooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return chip_count; }
  DeviceIndex getCurrentDevice() const override { return current_device(); }
  void setCurrentDevice(DeviceIndex index) const override {
    check_device(Device(kChip, index));
    current_device_index = or_current(index);
  }
  DeviceIndex exchangeDevice(DeviceIndex index) const override {
    auto before = current_device();
    setCurrentDevice(index);
    return before;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex index) const override { return exchangeDevice(index); }
  Device getDeviceFromPtr(void* pointer) const override {
    auto index = chip_that_holds(pointer);
    TORCH_CHECK(index >= 0, "address ", pointer, " is not in the chip's HBM");
    return Device(kChip, index);
  }
  bool isPinnedPtr(const void* pointer) const override { return is_pinned(pointer); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  const at::Generator& getDefaultGenerator(DeviceIndex index) const override {
    check_device(Device(kChip, index));
    return default_generator(or_current(index));
  }
  at::Generator getNewGenerator(DeviceIndex index) const override {
    check_device(Device(kChip, index));
    return at::make_generator<ChipGenerator>(or_current(index));
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t bytes) const override {
    auto* impl = storage.unsafeGetStorageImpl();
    OnChip of_storage(storage.device());
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

}  // namespace

// ------------------------------------------------------------------------------------------------ for device.py

#pragma GCC visibility push(default)
extern "C" {

// Reserves HBM for each chip and takes over the device type. Returns 0, or errno when the host refuses the reservation.
int tapeout_initialize(int64_t count, const uint64_t* hbm_size_bytes, const char* const* chip_names,
                       const char* const* memory_names, const ClockCalls* calls, int timing_only) {
  std::vector<MemoryOfChip> chips;
  for (int64_t i = 0; i < count; ++i) {
    chips.push_back({chip_names[i], memory_names[i], hbm_size_bytes[i]});
  }
  if (!reserve_hbm(chips, !timing_only)) {
    return errno;
  }
  chip_count = static_cast<DeviceIndex>(count);
  clock_calls = *calls;
  take_over_host_allocator();
  at::RegisterPrivateUse1HooksInterface(new ChipHooks);
  return 0;
}

// How time is kept from now on: the values of Timing. Reads in timing alone give zeros instead of an error if asked.
void tapeout_set_timing(int mode) { timing = static_cast<Timing>(mode); }
void tapeout_let_reads_be_zeros(int zeros) { reads_are_zeros = zeros != 0; }
int64_t tapeout_current_stream() { return current_stream_of(current_device()); }
int64_t tapeout_current_device() { return current_device(); }
// Makes a chip that exists the current one of this thread.
void tapeout_set_device(int64_t index) { current_device_index = static_cast<DeviceIndex>(index); }
}
#pragma GCC visibility pop

}  // namespace tapeout
