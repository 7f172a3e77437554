// Cores of the RTL with a memory: every core is a Verilated model of its own, all step together.
//
// Memory answers loads and stores in order, a fixed number of cycles after it took them, one block a cycle and core.
// Writes and atomics happen when they are taken; cores take turns within a cycle in the order of their numbers. Between
// these turns cores have nothing in common: the host's threads share them out.

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <iterator>
#include <memory>
#include <thread>
#include <vector>

#include "Model.h"
#ifdef TRACE
#include "verilated_fst_c.h"
#endif

double sc_time_stamp() { return 0; }

struct Launch {
  const uint64_t* words;
  int64_t word_count;
  const uint64_t* arguments;
  int64_t argument_count;
  int64_t grid[3];
  int64_t core_count;
  uint64_t workspace;
  int64_t workspace_bytes;  // a core
  uint64_t memory_base;
  uint8_t* memory;
  int64_t memory_bytes;
  int64_t latency_cycles;
  int64_t dispatch_cycles;
  int64_t cycle_limit;
  const char* waveform;
  const char* trace;  // a file for a Record of every row written
  const char* timeline;  // a file for an Event of every beginning and end
  // Results.
  int64_t cycles;
  int64_t status;  // see Status
  int64_t core;
  int64_t word;  // where the sequencer was
  int64_t detail;
  int64_t started[4];  // instructions of each queue
};

enum Status { DONE, CYCLE_LIMIT, TRAPPED, ILLEGAL, MISPLACED, OUTSIDE, SEMAPHORE_OVERFLOW, SEMAPHORES_LEFT };

// Codes of tapeout.numerics.operations.AtomicFunction and tapeout.numerics.dtypes.DType.
enum { ADD, MAX_S, MIN_S, MAX_U, MIN_U, AND, OR, XOR, EXCHANGE, COMPARE_SWAP };
enum { F32, BF16, F16, F8E4M3, F8E5M2, F64, I1, I8, I16, I32, I64 };
static const int SIZE[] = {4, 2, 2, 1, 1, 8, 1, 1, 2, 4, 8};

static float float_of(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
static uint32_t bits_of(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }

static uint64_t float_sum(int dtype, uint64_t a, uint64_t b) {
  if (dtype == F32) {
    float sum = float_of(a) + float_of(b);
    return std::isnan(sum) ? 0x7fc00000u : bits_of(sum);
  }
  if (dtype == BF16) {
    float sum = float_of(a << 16) + float_of(b << 16);
    if (std::isnan(sum)) return 0x7fc0;
    uint32_t bits = bits_of(sum);
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) & 0xffff;
  }
  _Float16 x, y;
  uint16_t a16 = a, b16 = b, bits;
  memcpy(&x, &a16, 2);
  memcpy(&y, &b16, 2);
  float sum = float(x) + float(y);
  if (std::isnan(sum)) return 0x7e00;
  _Float16 rounded = sum;
  memcpy(&bits, &rounded, 2);
  return bits;
}

static uint64_t atomic(int function, int dtype, uint64_t x, uint64_t a, uint64_t other) {
  int bits = 8 * SIZE[dtype];
  uint64_t mask = bits == 64 ? ~0ull : (1ull << bits) - 1;
  a &= mask;
  if (function == EXCHANGE) return a;
  if (function == COMPARE_SWAP) return x == a ? other & mask : x;
  if (dtype == I1) { x = x != 0; a = a != 0; }
  int64_t sx = int64_t(x << (64 - bits)) >> (64 - bits), sa = int64_t(a << (64 - bits)) >> (64 - bits);
  switch (function) {
    case ADD: return dtype <= F16 ? float_sum(dtype, x, a) : (x + a) & mask;
    case MAX_S: return sx > sa ? x : a;
    case MIN_S: return sx < sa ? x : a;
    case MAX_U: return x > a ? x : a;
    case MIN_U: return x < a ? x : a;
    case AND: return x & a;
    case OR: return x | a;
    default: return x ^ a;
  }
}

// A row of the scratchpad, or a block of memory, that an instruction wrote: the `serial`-th its queue began. Engines
// write in the order of their instructions: a row is the oldest's that has not ended. Stores are one at a time until
// their last block is sent.
struct Record {
  int64_t cycle, serial;
  uint64_t address;
  int32_t core, queue;  // 4: the sequencer
  int32_t is_memory, bytes;
  uint64_t mask;
  uint8_t data[64];
};

// Queue 0 to 3: it began an instruction, or ended one. Queue 4: the sequencer fetches `word`.
struct Event {
  int64_t cycle, word;
  int32_t core, queue, is_end, unused;
};

struct Answer { int64_t cycle; uint64_t value; std::vector<uint32_t> data; };

struct Simulated {
  VerilatedContext context;
  Model model{&context};
  std::deque<Answer> loads, stores;
  std::vector<int64_t> programs;
  size_t next_program = 0;
  int64_t dispatch_left = -1;
  int64_t serial[5] = {-1, -1, -1, -1, -1};
  int64_t ended[5] = {0, 0, 0, 0, 0};
  int64_t word = -1;
  bool halted = false;
  // What the core asked for in this cycle.
  uint32_t address = 0, index = 0;
  bool dispatched = false, wants_program = false;
};

// Threads that do the same work again and again, each on every `size`-th of the items; the caller is one of them.
template <typename Work> class Team {
 public:
  Team(int size, Work work) : size_(size), work_(work) {
    for (int n = 1; n < size; ++n) threads_.emplace_back([this, n] { help(n); });
  }
  ~Team() {
    stop_ = true;
    round_.fetch_add(1);
    for (auto& thread : threads_) thread.join();
  }
  void run() {
    working_ = size_ - 1;
    round_.fetch_add(1);
    work_(0, size_);
    wait([&] { return working_.load() == 0; });
  }

 private:
  template <typename Condition> static void wait(Condition holds) {
    for (int n = 0; !holds(); ++n)
      if (n > 1000) sched_yield();
  }
  void help(int number) {
    for (int64_t seen = 0;; ++seen) {
      wait([&] { return round_.load() > seen; });
      if (stop_) return;
      work_(number, size_);
      working_.fetch_sub(1);
    }
  }
  const int size_;
  Work work_;
  std::atomic<int64_t> round_{0};
  std::atomic<int> working_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

// (Verilator writes __ in a name as ___05F.)  Amaranth's wide ports are VlWide, those up to 64 bits plain integers.
template <typename T> static uint32_t* words_of(T& port) { return reinterpret_cast<uint32_t*>(&port); }

static void record(FILE* file, int64_t cycle, int64_t serial, int core, int queue, uint64_t address, const void* data,
                   const void* mask, int bytes, bool is_memory) {
  for (int part = 0; part < bytes; part += 64) {
    int size = bytes - part < 64 ? bytes - part : 64;
    Record one{cycle, serial, address + part, core, queue, is_memory, size, 0, {}};
    memcpy(&one.mask, static_cast<const uint8_t*>(mask) + part / 8, size / 8);
    memcpy(one.data, static_cast<const uint8_t*>(data) + part, size);
    fwrite(&one, sizeof one, 1, file);
  }
}

// Inputs are taken at the rising edge.
static void tick(Model& model) {
  model.clk = 1;
  model.eval();
  model.clk = 0;
  model.eval();
}

extern "C" void tapeout_rtl_run(Launch* launch) {
  std::vector<std::unique_ptr<Simulated>> cores;
  int64_t count = launch->grid[0] * launch->grid[1] * launch->grid[2];
  for (int64_t n = 0; n < launch->core_count; ++n) {
    cores.push_back(std::make_unique<Simulated>());
    for (int64_t p = n; p < count; p += launch->core_count) cores.back()->programs.push_back(p);
  }
#ifdef TRACE
  VerilatedFstC trace;
  if (launch->waveform) {
    cores[0]->context.traceEverOn(true);
    cores[0]->model.trace(&trace, 99);
    trace.open(launch->waveform);
  }
#endif
  FILE* file = launch->trace ? fopen(launch->trace, "wb") : nullptr;
  FILE* timeline = launch->timeline ? fopen(launch->timeline, "wb") : nullptr;
  auto note = [&](int64_t cycle, int64_t word, int64_t core, int queue, bool is_end) {
    Event event{cycle, word, int32_t(core), queue, is_end, 0};
    fwrite(&event, sizeof event, 1, timeline);
  };
  const int64_t block = LOAD_BLOCK_BYTES, store_block = STORE_BLOCK_BYTES;
  for (int64_t n = 0; n < launch->core_count; ++n) {
    Model& model = cores[n]->model;
    model.clk = 0; model.rst = 1; model.launch = 0;
    model.program_ready = 0; model.load___05Fdata_valid = 0; model.store___05Fanswer_valid = 0;
    model.load___05Fready = 1; model.store___05Fready = 1;
    for (int axis = 0; axis < 3; ++axis) words_of(model.grid)[axis] = uint32_t(launch->grid[axis]);
    model.eval();
    for (int n = 0; n < 2; ++n) tick(model);
    model.rst = 0; model.launch = 1;
    model.workspace = launch->workspace + n * launch->workspace_bytes;
    tick(model);
    model.launch = 0;
  }
  int64_t cycle = 0;
  auto advance = [&](Simulated& core) {
    Model& model = core.model;
    // What it gets in the next cycle.
    for (int64_t n = 0; n < FETCH_WORDS; ++n) {
      uint64_t word = core.address + n < launch->word_count ? launch->words[core.address + n] : 0;
      memcpy(words_of(model.instruction_word) + 2 * n, &word, sizeof word);
    }
    model.argument_value = core.index < launch->argument_count ? launch->arguments[core.index] : 0;
    model.load___05Fdata_valid = !core.loads.empty() && core.loads.front().cycle <= cycle;
    if (model.load___05Fdata_valid) {
      memcpy(words_of(model.load___05Fdata), core.loads.front().data.data(), block);
      core.loads.pop_front();
    }
    model.store___05Fanswer_valid = !core.stores.empty() && core.stores.front().cycle <= cycle;
    if (model.store___05Fanswer_valid) {
      model.store___05Fanswer = core.stores.front().value;
      core.stores.pop_front();
    }
    if (core.dispatched) { model.program_ready = 0; core.dispatch_left = -1; }
    if (core.wants_program) {
      bool is_last = core.next_program >= core.programs.size();  // that there are no more is known at once
      if (core.dispatch_left < 0) core.dispatch_left = is_last ? 0 : launch->dispatch_cycles;
      if (core.dispatch_left-- == 0) {
        model.program_ready = 1;
        model.program_exists = core.next_program < core.programs.size();
        if (model.program_exists) {
          int64_t place = core.programs[core.next_program++];
          words_of(model.program_place)[0] = uint32_t(place % launch->grid[0]);
          words_of(model.program_place)[1] = uint32_t(place / launch->grid[0] % launch->grid[1]);
          words_of(model.program_place)[2] = uint32_t(place / launch->grid[0] / launch->grid[1]);
        }
      }
    }
    tick(model);
#ifdef TRACE
    if (launch->waveform && &core == cores[0].get()) trace.dump(uint64_t(2 * cycle + 1));
#endif
  };
  auto share = [&](int first, int step) {
    for (int64_t n = first; n < launch->core_count; n += step)
      if (!cores[n]->halted) advance(*cores[n]);
  };
  Team team(int(std::min<int64_t>(launch->core_count, std::max(1u, std::thread::hardware_concurrency()))), share);
  launch->status = CYCLE_LIMIT;
  auto fail = [&](int64_t status, int64_t number, int64_t detail) {
    launch->status = status;
    launch->core = number;
    launch->detail = detail;
    launch->word = cores[number]->model.word_number;
  };
  for (; cycle < launch->cycle_limit; ++cycle) {
    bool all_halted = true;
    for (int64_t number = 0; number < launch->core_count; ++number) {
      Simulated& core = *cores[number];
      if (core.halted) continue;
      all_halted = false;
      Model& model = core.model;  // settled, its clock low
#ifdef TRACE
      if (launch->waveform && number == 0) trace.dump(uint64_t(2 * cycle));
#endif
      // What the core asks for in this cycle.
      core.address = model.instruction_address;
      core.index = model.argument_index;
      if (file) {
#define WRITTEN(n)                                                                                              \
  if (model.written___05F##n##___05Fvalid)                                                                      \
    record(file, cycle, n == 1 || n == 4 ? core.serial[n] : core.ended[n], int(number), n, uint64_t(model.written___05F##n##___05Frow) * ROW_BYTES, \
           words_of(model.written___05F##n##___05Fdata), words_of(model.written___05F##n##___05Fmask), ROW_BYTES, false);
        WRITTEN(0) WRITTEN(1) WRITTEN(2) WRITTEN(3) WRITTEN(4)
      }
      for (int queue = 0; queue < 4; ++queue) core.ended[queue] += model.done >> queue & 1;
      if (timeline) {
        for (int queue = 0; queue < 4; ++queue) {
          if (model.started >> queue & 1) note(cycle, 0, number, queue, false);
          if (model.done >> queue & 1) note(cycle, 0, number, queue, true);
        }
        if (model.word_number != core.word) note(cycle - 1, core.word = model.word_number, number, 4, false);
      }
      for (int queue = 0; queue < 4; ++queue)
        if (model.started >> queue & 1) {
          launch->started[queue] += 1;
          core.serial[queue] += 1;
        }
      auto inside = [&](uint64_t at, int64_t size) {
        return at >= launch->memory_base && at + size <= launch->memory_base + launch->memory_bytes;
      };
      if (model.load___05Fvalid) {
        // A block may begin before or end after memory: only bytes of elements must lie inside.
        Answer answer{cycle + launch->latency_cycles, 0, std::vector<uint32_t>(block / 4)};
        for (int64_t byte = 0; byte < block; ++byte)
          if (inside(model.load___05Faddress + byte, 1))
            reinterpret_cast<uint8_t*>(answer.data.data())[byte] =
                launch->memory[model.load___05Faddress + byte - launch->memory_base];
        if (!inside(model.load___05Faddress, 1) && !inside(model.load___05Faddress + block - 1, 1)) {
          fail(OUTSIDE, number, model.load___05Faddress);
          goto end;
        }
        core.loads.push_back(std::move(answer));
      }
      if (model.store___05Fvalid) {
        uint64_t at = model.store___05Faddress, old = 0;
        if (model.store___05Fis_atomic) {
          int size = SIZE[model.store___05Fdtype];
          if (!inside(at, size)) { fail(OUTSIDE, number, at); goto end; }
          uint8_t* place = launch->memory + (at - launch->memory_base);
          memcpy(&old, place, size);
          const uint64_t written = (1ull << size) - 1;
          uint64_t now = atomic(model.store___05Ffunction, model.store___05Fdtype, old, model.store___05Foperand, model.store___05Fother);
          memcpy(place, &now, size);
          if (file) record(file, cycle, core.serial[1], int(number), 1, at, &now, &written, 8, true);
        } else {
          const uint8_t* data = reinterpret_cast<const uint8_t*>(words_of(model.store___05Fdata));
          const uint8_t* mask = reinterpret_cast<const uint8_t*>(words_of(model.store___05Fmask));
          if (file) record(file, cycle, core.serial[1], int(number), 1, at, data, mask, int(store_block), true);
          for (int64_t byte = 0; byte < store_block; ++byte)
            if (mask[byte / 8] >> (byte % 8) & 1) {
              if (!inside(at + byte, 1)) { fail(OUTSIDE, number, at + byte); goto end; }
              launch->memory[at + byte - launch->memory_base] = data[byte];
            }
        }
        core.stores.push_back({cycle + launch->latency_cycles, old, {}});
      }
      core.dispatched = model.program_request && model.program_ready;
      core.wants_program = model.program_request && !model.program_ready;
    }
    if (all_halted) {
      launch->status = DONE;
      break;
    }
    team.run();
    for (int64_t number = 0; number < launch->core_count; ++number) {
      Simulated& core = *cores[number];
      Model& model = core.model;
      if (core.halted) continue;
      if (model.is_misplaced) { fail(MISPLACED, number, 0); goto end; }
      if (model.is_illegal) { fail(ILLEGAL, number, 0); goto end; }
      if (model.semaphore_overflows) { fail(SEMAPHORE_OVERFLOW, number, 0); goto end; }
      if (model.is_trapped) { fail(TRAPPED, number, model.trap_code); goto end; }
      if (model.is_halted) {
        core.halted = true;
        if (!model.semaphores_are_zero) { fail(SEMAPHORES_LEFT, number, 0); goto end; }
      }
    }
  }
end:
  launch->cycles = cycle;
  if (file) fclose(file);
  if (timeline) fclose(timeline);
#ifdef TRACE
  if (launch->waveform) trace.close();
#endif
}

// The testbench as a program of its own: runs the words of PROGRAM on the image MEMORY, which lies at BASE, and writes
// the image back. Numbers may be given in hexadecimal (0x...).
int main(int count, char** given) {
  if (count < 10) {
    fprintf(stderr, "usage: %s PROGRAM MEMORY BASE CORES X Y Z WORKSPACE WORKSPACE_BYTES [ARGUMENT ...]\n", given[0]);
    return 2;
  }
  auto number = [&](int n) { return strtoull(given[n], nullptr, 0); };
  auto content = [](const char* path) {
    std::ifstream file(path, std::ios::binary);
    return std::vector<char>(std::istreambuf_iterator<char>(file), {});
  };
  std::vector<char> program = content(given[1]), memory = content(given[2]);
  std::vector<uint64_t> arguments;
  for (int n = 10; n < count; ++n) arguments.push_back(number(n));
  Launch launch{};
  launch.words = reinterpret_cast<const uint64_t*>(program.data());
  launch.word_count = int64_t(program.size() / 8);
  launch.arguments = arguments.data();
  launch.argument_count = int64_t(arguments.size());
  for (int axis = 0; axis < 3; ++axis) launch.grid[axis] = int64_t(number(5 + axis));
  launch.core_count = std::min(int64_t(number(4)), launch.grid[0] * launch.grid[1] * launch.grid[2]);
  launch.workspace = number(8);
  launch.workspace_bytes = int64_t(number(9));
  launch.memory_base = number(3);
  launch.memory = reinterpret_cast<uint8_t*>(memory.data());
  launch.memory_bytes = int64_t(memory.size());
  launch.latency_cycles = LATENCY_CYCLES;
  launch.dispatch_cycles = DISPATCH_CYCLES;
  launch.cycle_limit = INT64_MAX;
  tapeout_rtl_run(&launch);
  printf("%lld cycles, status %lld\n", (long long)launch.cycles, (long long)launch.status);
  std::ofstream(given[2], std::ios::binary).write(memory.data(), std::streamsize(memory.size()));
  return launch.status == DONE ? 0 : 1;
}
