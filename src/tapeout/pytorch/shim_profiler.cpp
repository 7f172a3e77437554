// torch.profiler: what the chip did, in the chip's time.

#include "shim.h"

#include <libkineto.h>
#include <output_base.h>
#include <torch/csrc/profiler/standalone/privateuse1_profiler.h>

#include <chrono>
#include <memory>
#include <set>
#include <vector>

namespace tapeout {
namespace {

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

  static void add(const char* name, bool is_copy, int64_t chip, int64_t stream, int64_t start_ps, int64_t end_ps) {
    if (auto* trace = current_) {
      auto type = is_copy ? libkineto::ActivityType::GPU_MEMCPY : libkineto::ActivityType::CONCURRENT_KERNEL;
      trace->buffer_->emplace_activity(trace->buffer_->span, type, name);
      auto& activity = *trace->buffer_->activities.back();
      activity.startTime = trace->started_ns_ + (start_ps - trace->started_ps_) / 1000;
      activity.endTime = trace->started_ns_ + (end_ps - trace->started_ps_) / 1000;
      activity.id = static_cast<int32_t>(trace->correlations_.empty() ? 0 : trace->correlations_.back());
      activity.device = static_cast<int32_t>(chip);
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

}  // namespace

// ------------------------------------------------------------------------------------------------ for device.py

#pragma GCC visibility push(default)
extern "C" {

// A piece of work for torch.profiler's trace, if one is being taken.
void tapeout_trace(const char* name, int is_copy, int64_t chip, int64_t stream, int64_t start_ps, int64_t end_ps) {
  ChipTrace::add(name, is_copy != 0, chip, stream, start_ps, end_ps);
}
}
#pragma GCC visibility pop

}  // namespace tapeout
