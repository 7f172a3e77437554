// Cores of the RTL with a memory: every core is a Verilated model of its own, all step together.
//
// Memory answers loads and stores in order, a fixed number of cycles after it took them, one block a cycle and core.
// Writes and atomics happen when they are taken; cores take turns within a cycle in the order of their numbers.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
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
  // Results.
  int64_t cycles;
  int64_t status;  // see Status
  int64_t core;
  int64_t word;  // where the sequencer was
  int64_t detail;
  int64_t started[4];  // instructions of each queue
};

enum Status { DONE, CYCLE_LIMIT, TRAPPED, ILLEGAL, MISPLACED, OUTSIDE, SEMAPHORE_OVERFLOW, SEMAPHORES_LEFT };

// Codes of tapeout.isa.functions.AtomicFunction and tapeout.numerics.dtypes.DType.
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

struct Answer { int64_t cycle; uint64_t value; std::vector<uint32_t> data; };

struct Simulated {
  Model model;
  std::deque<Answer> loads, stores;
  std::vector<int64_t> programs;
  size_t next_program = 0;
  int64_t dispatch_left = -1;
  bool halted = false;
};

// (Verilator writes __ in a name as ___05F.)  Amaranth's wide ports are VlWide, those up to 64 bits plain integers.
template <typename T> static uint32_t* words_of(T& port) { return reinterpret_cast<uint32_t*>(&port); }

extern "C" void tapeout_rtl_run(Launch* launch) {
  VerilatedContext context;
#ifdef TRACE
  context.traceEverOn(true);
#endif
  std::vector<std::unique_ptr<Simulated>> cores;
  int64_t count = launch->grid[0] * launch->grid[1] * launch->grid[2];
  for (int64_t n = 0; n < launch->core_count; ++n) {
    cores.push_back(std::make_unique<Simulated>());
    for (int64_t p = n; p < count; p += launch->core_count) cores.back()->programs.push_back(p);
  }
#ifdef TRACE
  VerilatedFstC trace;
  if (launch->waveform) {
    cores[0]->model.trace(&trace, 99);
    trace.open(launch->waveform);
  }
#endif
  const int64_t block = LOAD_BLOCK_BYTES, store_block = STORE_BLOCK_BYTES;
  for (auto& core : cores) {
    Model& model = core->model;
    model.clk = 0; model.rst = 1; model.launch = 0;
    model.program_ready = 0; model.load___05Fdata_valid = 0; model.store___05Fanswer_valid = 0;
    model.load___05Fready = 1; model.store___05Fready = 1;
    for (int axis = 0; axis < 3; ++axis) words_of(model.grid)[axis] = uint32_t(launch->grid[axis]);
    for (int n = 0; n < 2; ++n) { model.eval(); model.clk = 1; model.eval(); model.clk = 0; }
    model.rst = 0; model.launch = 1;
  }
  for (int64_t n = 0; n < launch->core_count; ++n)
    cores[n]->model.workspace = launch->workspace + n * launch->workspace_bytes;
  launch->status = CYCLE_LIMIT;
  auto fail = [&](int64_t status, int64_t number, int64_t detail) {
    launch->status = status;
    launch->core = number;
    launch->detail = detail;
    launch->word = cores[number]->model.word_number;
  };
  int64_t cycle = 0;
  for (; cycle < launch->cycle_limit; ++cycle) {
    bool all_halted = true;
    for (int64_t number = 0; number < launch->core_count; ++number) {
      Simulated& core = *cores[number];
      if (core.halted) continue;
      all_halted = false;
      Model& model = core.model;
      model.eval();
#ifdef TRACE
      if (launch->waveform && number == 0) trace.dump(uint64_t(2 * cycle));
#endif
      // What the core asks for in this cycle.
      uint32_t address = model.instruction_address, index = model.argument_index;
      for (int queue = 0; queue < 4; ++queue) launch->started[queue] += model.started >> queue & 1;
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
          uint64_t now = atomic(model.store___05Ffunction, model.store___05Fdtype, old, model.store___05Foperand, model.store___05Fother);
          memcpy(place, &now, size);
        } else {
          const uint8_t* data = reinterpret_cast<const uint8_t*>(words_of(model.store___05Fdata));
          const uint8_t* mask = reinterpret_cast<const uint8_t*>(words_of(model.store___05Fmask));
          for (int64_t byte = 0; byte < store_block; ++byte)
            if (mask[byte / 8] >> (byte % 8) & 1) {
              if (!inside(at + byte, 1)) { fail(OUTSIDE, number, at + byte); goto end; }
              launch->memory[at + byte - launch->memory_base] = data[byte];
            }
        }
        core.stores.push_back({cycle + launch->latency_cycles, old, {}});
      }
      bool dispatched = model.program_request && model.program_ready;
      bool wants_program = model.program_request && !model.program_ready;

      model.clk = 1;
      model.eval();

      // What it gets in the next.
      model.launch = 0;
      model.instruction_word = address < launch->word_count ? launch->words[address] : 0;
      model.argument_value = index < launch->argument_count ? launch->arguments[index] : 0;
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
      if (dispatched) { model.program_ready = 0; core.dispatch_left = -1; }
      if (wants_program) {
        if (core.dispatch_left < 0) core.dispatch_left = launch->dispatch_cycles;
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
      model.clk = 0;
      model.eval();
#ifdef TRACE
      if (launch->waveform && number == 0) trace.dump(uint64_t(2 * cycle + 1));
#endif
      if (model.is_misplaced) { fail(MISPLACED, number, 0); goto end; }
      if (model.is_illegal) { fail(ILLEGAL, number, 0); goto end; }
      if (model.semaphore_overflows) { fail(SEMAPHORE_OVERFLOW, number, 0); goto end; }
      if (model.is_trapped) { fail(TRAPPED, number, model.trap_code); goto end; }
      if (model.is_halted) {
        core.halted = true;
        if (!model.semaphores_are_zero) { fail(SEMAPHORES_LEFT, number, 0); goto end; }
      }
    }
    if (all_halted) {
      launch->status = DONE;
      break;
    }
  }
end:
  launch->cycles = cycle;
#ifdef TRACE
  if (launch->waveform) trace.close();
#endif
}
