// The native half of the runtime: launches on host threads, DMA, matrix products and atomics.
//
// Generated code calls these functions through addresses in its Context. "abi.h" is written by
// tapeout.sim.functional.abi when this file is built. HBM and scratchpad are host memory and never overlap.

#include "abi.h"
#include "digest.h"

#include <sys/mman.h>
#include <pthread.h>
#include <setjmp.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace {

#include "vectors.h"

// ------------------------------------------------------------------------------------------- launches

struct Failure {
    int64_t kind;         // failure_kind::Kind
    int64_t detail;       // trap code, address, or argument
    int64_t instruction;  // parameter of a foreign or misaligned pointer
    int64_t program[3];
    int64_t how;  // Finding::how
    int64_t other[3];  // the other program of a race
};

struct Kernel {
    void (*entry)(Context*);
    int64_t parameter_count;
    int64_t scratchpad_bytes;
    int64_t workspace_bytes;
    bool order_free;
    bool checked;  // its code calls the sanitizer
    std::vector<int64_t> alignment;  // bytes for pointer parameters, 0 for the others
};

constexpr int64_t cache_line = 64;
constexpr int64_t guard_bytes = 4096;

// Private memory of a host thread, kept from launch to launch and only ever grown.
struct Area {
    char* start = nullptr;
    int64_t size = 0;

    void reserve(int64_t bytes) {
        if (bytes <= size) return;
        release();
        void* mapped = mmap(nullptr, bytes + 2 * guard_bytes, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) abort();
        start = static_cast<char*>(mapped) + guard_bytes;  // reads a little outside the ends are harmless
        size = bytes;
    }
    void release() {
        if (start) munmap(start - guard_bytes, size + 2 * guard_bytes);
        start = nullptr;
        size = 0;
    }
};

struct Launch {
    const Kernel* kernel;
    const int64_t* words;  // grid x, y, z, then arguments
    int64_t total;
    int64_t chunk;
    bool alone;  // one thread runs all programs
    bool notes;  // what the time depends on is noted
    alignas(cache_line) std::atomic<int64_t> next;
    alignas(cache_line) std::atomic<bool> failed;
};

// Where a program's notes begin: its number, then the lengths of what was noted before it.
struct NotesOfProgram {
    int64_t linear, scalars, values[2], tiles[2];
};

// What a program read that its time depends on, noted by a host thread: scalars, and tiles of indices and masks for the
// load and the store queue. `sizes` are those of the tiles.
struct Notes {
    std::vector<NotesOfProgram> programs;
    std::vector<int64_t> scalars, values[2], sizes[2];
    bool too_many = false;

    void clear() {
        programs.clear();
        scalars.clear();
        for (int queue = 0; queue < 2; queue++) {
            values[queue].clear();
            sizes[queue].clear();
        }
        too_many = false;
    }
};
constexpr size_t most_noted = size_t(1) << 24;  // values, by a thread: 128 MiB

// A part of what was noted.
struct Span {
    const int64_t *first = nullptr, *end = nullptr;
};

// What one program noted; nothing if it was not dealt. `sizes` are those of the tiles whose elements `values` are.
struct ProgramNotes {
    Span scalars, sizes[2], values[2];
};

struct Worker {
    Context context{};
    Notes notes;
    Area scratchpad, workspace;
    jmp_buf escape;
    std::thread thread;
};

class Sanitizer;
void begin_sanitized_launch(Context* context);
void begin_sanitized_program(Context* context);

struct Pool {
    Sanitizer* sanitizer = nullptr;
    std::mutex launch_mutex;
    std::thread::id ending;  // the thread that ends the process, once one does
    int64_t scratchpad_bytes = 0;
    int64_t arena_base = 0, arena_bytes = 0;  // of all chips; while a program runs, of its chip
    std::vector<std::pair<int64_t, int64_t>> arenas;  // of each chip, if there are several
    int64_t (*current_chip)() = nullptr;
    int64_t totals[7] = {};
    int64_t launches = 0;
    Failure failure{};
    std::mutex failure_mutex;
    Launch launch;
    std::vector<Worker*> workers;
    std::vector<ProgramNotes> noted;  // by the latest launch that did; it points into the workers' notes
    alignas(cache_line) std::atomic<uint32_t> epoch{0};
    alignas(cache_line) std::atomic<int32_t> joined{closed};
    static constexpr int32_t closed = 1 << 30;
};

Pool* pool = nullptr;
constexpr int spin_limit = 4000;

inline void relax() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

[[noreturn]] void fail(Context* context, int64_t kind, int64_t detail, int64_t instruction) {
    {
        std::lock_guard<std::mutex> lock(pool->failure_mutex);
        if (!pool->failure.kind) {
            pool->failure = {
                kind, detail, instruction, {context->program[0], context->program[1], context->program[2]}, 0, {}};
        }
    }
    pool->launch.failed.store(true, std::memory_order_relaxed);
    longjmp(reinterpret_cast<Worker*>(context->thread)->escape, 1);
}

void trap(Context* context, int64_t code) { fail(context, failure_kind::trap, code, 0); }

// Called after a turn of a loop that reads memory and writes it by atomics only. Where one thread runs all programs,
// nobody else changes memory: a turn that found the same registers and memory as the one before repeats for ever. A loop
// of atomics that counts its turns is given up after very many without effect.
void turn(Context* context, int64_t place, int64_t state, int64_t state_is_whole, int64_t has_atomics) {
    constexpr int64_t patience = 1 << 24;
    bool alone = reinterpret_cast<Launch*>(context->launch)->alone;
    if (context->turn_place == place && context->turn_changes == context->changes) {
        bool repeats = alone && state_is_whole && context->turn_state == state;
        if (repeats || (has_atomics && ++context->turn_count > patience)) fail(context, failure_kind::endless_wait, 0, place);
    } else {
        context->turn_count = 0;
    }
    context->turn_place = place;
    context->turn_state = state;
    context->turn_changes = context->changes;
}

int64_t deal_program(Context* context) {
    if (++context->linear < context->linear_end) {
        if (++context->program[0] == context->grid[0]) {
            context->program[0] = 0;
            if (++context->program[1] == context->grid[1]) {
                context->program[1] = 0;
                ++context->program[2];
            }
        }
        return 1;
    }
    Launch* launch = reinterpret_cast<Launch*>(context->launch);
    if (launch->failed.load(std::memory_order_relaxed)) return 0;
    int64_t start = launch->next.fetch_add(launch->chunk, std::memory_order_relaxed);
    if (start >= launch->total) return 0;
    context->linear = start;
    context->linear_end = std::min(start + launch->chunk, launch->total);
    context->program[0] = start % context->grid[0];
    context->program[1] = start / context->grid[0] % context->grid[1];
    context->program[2] = start / context->grid[0] / context->grid[1];
    return 1;
}

int64_t next_program(Context* context) {
    context->turn_place = 0;
    int64_t dealt = deal_program(context);
    if (dealt) begin_sanitized_program(context);
    if (dealt && pool->launch.notes) {
        Notes& n = reinterpret_cast<Worker*>(context->thread)->notes;
        n.programs.push_back({context->linear, int64_t(n.scalars.size()),
                              {int64_t(n.values[0].size()), int64_t(n.values[1].size())},
                              {int64_t(n.sizes[0].size()), int64_t(n.sizes[1].size())}});
    }
    return dealt;
}

// An address in memory, counted from the chip's: so that notes do not depend on where the host keeps its memory.
int64_t without_base(int64_t value) {
    bool is_address = pool->arena_bytes && value >= pool->arena_base && value < pool->arena_base + pool->arena_bytes;
    return is_address ? value - pool->arena_base : value;
}

void note_scalar(Context* context, int64_t value) {
    if (!pool->launch.notes) return;
    Notes& n = reinterpret_cast<Worker*>(context->thread)->notes;
    if (n.scalars.size() >= most_noted) n.too_many = true;
    if (!n.too_many) n.scalars.push_back(without_base(value));
}

void run(Worker* worker) {
    Launch* launch = &pool->launch;
    const Kernel* kernel = launch->kernel;
    Context* context = &worker->context;
    worker->scratchpad.reserve(pool->scratchpad_bytes);
    worker->workspace.reserve(kernel->workspace_bytes);
    context->arguments = reinterpret_cast<int64_t>(launch->words + 3);
    for (int axis = 0; axis < 3; axis++) {
        context->grid[axis] = launch->words[axis];
        context->program[axis] = 0;
    }
    context->scratchpad = reinterpret_cast<int64_t>(worker->scratchpad.start);
    context->workspace = reinterpret_cast<int64_t>(worker->workspace.start);
    context->linear = context->linear_end = 0;
    context->changes = context->turn_place = context->turn_count = 0;
    begin_sanitized_launch(context);
    context->launch = reinterpret_cast<int64_t>(launch);
    context->thread = reinterpret_cast<int64_t>(worker);
#if defined(__x86_64__)
    unsigned saved = _mm_getcsr();  // a caller may have asked for flushed subnormals or another rounding
    _mm_setcsr(0x1f80);
#endif
    if (!setjmp(worker->escape)) kernel->entry(context);
#if defined(__x86_64__)
    _mm_setcsr(saved);
#endif
}

void serve(Worker* worker) {
    uint32_t seen = pool->epoch.load(std::memory_order_acquire);
    for (;;) {
        for (int spin = 0; pool->epoch.load(std::memory_order_acquire) == seen; spin++) {
            if (spin < spin_limit) {
                relax();
            } else {
                pool->epoch.wait(seen, std::memory_order_acquire);
            }
        }
        seen = pool->epoch.load(std::memory_order_acquire);
        if (!(pool->joined.fetch_add(1, std::memory_order_acq_rel) & Pool::closed)) run(worker);
        pool->joined.fetch_sub(1, std::memory_order_acq_rel);
    }
}

void collect(Worker* worker) {
    int64_t* total = pool->totals;
#define COLLECT(name) \
    *total++ += worker->context.name; \
    worker->context.name = 0;
    TAPEOUT_COUNTERS(COLLECT)
#undef COLLECT
}

// ----------------------------------------------------------------------------------------------- DMA

struct Valid {
    int64_t low[4], high[4];
    bool whole = true, empty = false;

    Valid(const BlockValues* values, const int64_t* extent) {
        for (int d = 0; d < 4; d++) {
            low[d] = std::max<int64_t>(values->low[d], 0);
            high[d] = std::min(values->high[d], extent[d]);
            whole &= low[d] == 0 && high[d] == extent[d];
            empty |= low[d] >= high[d];
        }
    }
    int64_t count() const {
        int64_t product = 1;
        for (int d = 0; d < 4; d++) product *= high[d] - low[d];
        return product;
    }
};

inline bool inside(int64_t first, int64_t end, int64_t base, int64_t bytes) {
    return uint64_t(first - base) <= uint64_t(bytes) && uint64_t(end - base) <= uint64_t(bytes) && first <= end;
}

inline void check(Context* context, int64_t first, int64_t end, int64_t instruction) {
    if (__builtin_expect(inside(first, end, pool->arena_base, pool->arena_bytes) || !pool->arena_bytes, true)) return;
    if (inside(first, end, context->workspace, pool->launch.kernel->workspace_bytes)) return;
    fail(context, failure_kind::outside_hbm, inside(first, first, pool->arena_base, pool->arena_bytes) ? end - 1 : first, instruction);
}

// Loops of a copy, outermost first; strides in bytes. Rearranged only where the order of writes cannot show.
struct Loops {
    int rank = 0;
    int64_t count[4], to[4], from[4];

    void add(int64_t n, int64_t to_stride, int64_t from_stride) {
        if (n == 1) return;
        count[rank] = n;
        to[rank] = to_stride;
        from[rank++] = from_stride;
    }
    void swap(int a, int b) {
        std::swap(count[a], count[b]);
        std::swap(to[a], to[b]);
        std::swap(from[a], from[b]);
    }
    // Innermost the smallest destination stride; then neighbours that are one loop in truth are merged.
    void simplify(int64_t element_bytes) {
        for (int i = 1; i < rank; i++) {
            for (int j = i; j > 0 && std::abs(to[j]) > std::abs(to[j - 1]); j--) swap(j, j - 1);
        }
        int64_t reach = element_bytes;
        bool distinct = true;
        for (int i = rank - 1; i >= 0; i--) {
            distinct &= std::abs(to[i]) >= reach;
            reach = std::abs(to[i]) * count[i];
        }
        if (!distinct) return;
        int merged = 0;
        for (int i = 0; i < rank; i++) {
            if (merged && to[merged - 1] == to[i] * count[i] && from[merged - 1] == from[i] * count[i]) {
                count[merged - 1] *= count[i];
                to[merged - 1] = to[i];
                from[merged - 1] = from[i];
            } else {
                count[merged] = count[i];
                to[merged] = to[i];
                from[merged++] = from[i];
            }
        }
        rank = merged;
    }
    bool distinct(int64_t element_bytes) const {
        Loops sorted = *this;
        for (int i = 1; i < rank; i++) {
            for (int j = i; j > 0 && std::abs(sorted.to[j]) > std::abs(sorted.to[j - 1]); j--) sorted.swap(j, j - 1);
        }
        int64_t reach = element_bytes;
        for (int i = rank - 1; i >= 0; i--) {
            if (std::abs(sorted.to[i]) < reach) return false;
            reach = std::abs(sorted.to[i]) * sorted.count[i];
        }
        return true;
    }
};

typedef uint8_t v64u8 __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint8_t v32u8 __attribute__((vector_size(32), aligned(1), may_alias));
typedef uint8_t v16u8 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint64_t word __attribute__((aligned(1), may_alias));
typedef uint32_t half_word __attribute__((aligned(1), may_alias));
typedef uint16_t quarter_word __attribute__((aligned(1), may_alias));

// memcpy, not V*: a template argument loses its type's aligned(1).
template <class V>
inline void copy_ends(char* to, const char* from, int64_t bytes) {
    V first, last;
    memcpy(&first, from, sizeof(V));
    memcpy(&last, from + bytes - sizeof(V), sizeof(V));
    memcpy(to, &first, sizeof(V));
    memcpy(to + bytes - sizeof(V), &last, sizeof(V));
}

inline void copy_bytes(char* to, const char* from, int64_t bytes) {
    if (bytes >= 64) {
        int64_t i = 0;
        for (; i + 256 <= bytes; i += 256) {
            v64u8 a = *(const v64u8*)(from + i), b = *(const v64u8*)(from + i + 64);
            v64u8 c = *(const v64u8*)(from + i + 128), d = *(const v64u8*)(from + i + 192);
            *(v64u8*)(to + i) = a;
            *(v64u8*)(to + i + 64) = b;
            *(v64u8*)(to + i + 128) = c;
            *(v64u8*)(to + i + 192) = d;
        }
        for (; i + 64 <= bytes; i += 64) *(v64u8*)(to + i) = *(const v64u8*)(from + i);
        if (i < bytes) *(v64u8*)(to + bytes - 64) = *(const v64u8*)(from + bytes - 64);
    } else if (bytes >= 32) {
        copy_ends<v32u8>(to, from, bytes);
    } else if (bytes >= 16) {
        copy_ends<v16u8>(to, from, bytes);
    } else if (bytes >= 8) {
        copy_ends<word>(to, from, bytes);
    } else if (bytes >= 4) {
        copy_ends<half_word>(to, from, bytes);
    } else {
        for (int64_t i = 0; i < bytes; i++) to[i] = from[i];
    }
}

template <class T>
void copy_elements(char* to, const char* from, int64_t count, int64_t to_stride, int64_t from_stride) {
    typedef T type __attribute__((aligned(1), may_alias));
    for (int64_t i = 0; i < count; i++) *(type*)(to + i * to_stride) = *(const type*)(from + i * from_stride);
}

template <class T>
void fill_elements(char* to, int64_t count, T value) {
    typedef T vector __attribute__((vector_size(64), aligned(1), may_alias));
    typedef T type __attribute__((aligned(1), may_alias));
    constexpr int64_t lanes = 64 / sizeof(T);
    vector many = vector{} + value;
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) *(vector*)(to + i * sizeof(T)) = many;
    for (; i < count; i++) *(type*)(to + i * sizeof(T)) = value;
}

template <class T>
void copy_loops(char* to, const char* from, const Loops& loops) {
    int rank = loops.rank;
    int64_t count[4] = {1, 1, 1, 1}, ts[4] = {}, fs[4] = {};
    for (int i = 0; i < rank; i++) {
        count[4 - rank + i] = loops.count[i];
        ts[4 - rank + i] = loops.to[i];
        fs[4 - rank + i] = loops.from[i];
    }
    constexpr int64_t size = sizeof(T);
    bool rows = rank && ts[3] == size && fs[3] == size;
    bool transposed = rank >= 2 && ts[3] == size && std::abs(fs[2]) < std::abs(fs[3]) && loops.distinct(size);
    for (int64_t i0 = 0; i0 < count[0]; i0++) {
        for (int64_t i1 = 0; i1 < count[1]; i1++) {
            char* t = to + i0 * ts[0] + i1 * ts[1];
            const char* f = from + i0 * fs[0] + i1 * fs[1];
            if (transposed) {
                transpose<T>(t, f, count[2], count[3], ts[2], fs[2], fs[3]);
                continue;
            }
            for (int64_t i2 = 0; i2 < count[2]; i2++, t += ts[2], f += fs[2]) {
                if (rows) {
                    copy_bytes(t, f, count[3] * size);
                } else if (ts[3] == size && fs[3] == 0) {
                    T value;
                    memcpy(&value, f, size);
                    fill_elements<T>(t, count[3], value);
                } else if (ts[3] == size) {
                    copy_elements<T>(t, f, count[3], size, fs[3]);
                } else if (fs[3] == size) {
                    copy_elements<T>(t, f, count[3], ts[3], size);
                } else {
                    copy_elements<T>(t, f, count[3], ts[3], fs[3]);
                }
            }
        }
    }
}

void copy(char* to, const char* from, Loops loops, int64_t element_bytes) {
    if (loops.distinct(element_bytes)) loops.simplify(element_bytes);
    switch (element_bytes) {
        case 1: return copy_loops<uint8_t>(to, from, loops);
        case 2: return copy_loops<uint16_t>(to, from, loops);
        case 4: return copy_loops<uint32_t>(to, from, loops);
        default: return copy_loops<uint64_t>(to, from, loops);
    }
}

void fill_all(char* tile, const BlockFacts* facts, int64_t value) {
    int64_t repeated[1] = {value};
    Loops loops;
    for (int d = 0; d < 4; d++) loops.add(facts->extent[d], facts->tile_stride[d], 0);
    copy(tile, (const char*)repeated, loops, facts->element_bytes);
}

// Offset of the first valid element, and a check of all valid addresses.
int64_t admit(Context* context, const Valid& valid, const BlockValues* values, int64_t element_bytes, int64_t instruction) {
    int64_t start = values->base, first = values->base, last = values->base;
    for (int d = 0; d < 4; d++) {
        int64_t a = valid.low[d] * values->stride[d], b = (valid.high[d] - 1) * values->stride[d];
        start += a;
        first += std::min(a, b);
        last += std::max(a, b);
    }
    check(context, first, last + element_bytes, instruction);
    return start;
}

int64_t load_block(Context* context, const BlockFacts* facts, const BlockValues* values, char* tile) {
    Valid valid(values, facts->extent);
    if (!valid.whole) fill_all(tile, facts, values->fill);
    if (valid.empty) return 0;
    int64_t start = admit(context, valid, values, facts->element_bytes, facts->instruction);
    Loops loops;
    for (int d = 0; d < 4; d++) {
        tile += valid.low[d] * facts->tile_stride[d];
        loops.add(valid.high[d] - valid.low[d], facts->tile_stride[d], values->stride[d]);
    }
    copy(tile, (const char*)start, loops, facts->element_bytes);
    return valid.count() * facts->element_bytes;
}

int64_t store_block(Context* context, const BlockFacts* facts, const BlockValues* values, const char* tile) {
    Valid valid(values, facts->extent);
    if (valid.empty) return 0;
    int64_t start = admit(context, valid, values, facts->element_bytes, facts->instruction);
    Loops loops;
    for (int d = 0; d < 4; d++) {
        tile += valid.low[d] * facts->tile_stride[d];
        loops.add(valid.high[d] - valid.low[d], values->stride[d], facts->tile_stride[d]);
    }
    copy((char*)start, tile, loops, facts->element_bytes);
    return valid.count() * facts->element_bytes;
}

// Innermost dimension of more than one element, or 3.
inline int unit_dimension(const BlockFacts* facts) {
    int d = 3;
    while (d > 0 && facts->extent[d] == 1) d--;
    return facts->extent[d] == 1 ? 3 : d;
}

void look_at_tile(View* view) {
    const BlockFacts* facts = reinterpret_cast<const BlockFacts*>(view->facts);
    view->direct = 0;
    view->pointer = view->tile;
    std::copy(facts->tile_stride, facts->tile_stride + 4, view->stride);
}

// Looks at the block in HBM if all of it is valid and its rows are neighbouring bytes. Reads word by word what was written
// word by word a moment ago: a wide load would wait for the narrow stores to reach the cache.
__attribute__((optimize("no-tree-vectorize"))) bool look_at_block(Context* context, const BlockFacts* facts, const BlockValues* values, char* tile, View* view) {
    view->facts = reinterpret_cast<int64_t>(facts);
    view->values = reinterpret_cast<int64_t>(values);
    view->tile = reinterpret_cast<int64_t>(tile);
    int64_t first = values->base, last = values->base;
    for (int d = 0; d < 4; d++) {
        if (values->low[d] > 0 || values->high[d] < facts->extent[d]) return false;
        int64_t reach = (facts->extent[d] - 1) * values->stride[d];
        first += std::min<int64_t>(reach, 0);
        last += std::max<int64_t>(reach, 0);
        view->stride[d] = values->stride[d];
    }
    if (values->stride[unit_dimension(facts)] != facts->element_bytes) return false;
    view->pointer = values->base;
    view->first = first;
    view->end = last + facts->element_bytes;
    view->direct = 1;
    check(context, view->first, view->end, facts->instruction);
    return true;
}

// A loop over blocks of short rows jumps from row to row: the hardware does not foresee the next block, but it lies as far
// from this one as this one from the last.
void prefetch_next(const BlockFacts* facts, const BlockValues* values, View* view) {
    constexpr int64_t longest_row_bytes = 256, most_bytes = 1 << 16, farthest = 1 << 22;
    int64_t step = values->base - view->previous;
    view->previous = values->base;
    int unit = unit_dimension(facts);
    int64_t row_bytes = facts->extent[unit] * facts->element_bytes;
    int64_t rows = facts->extent[0] * facts->extent[1] * facts->extent[2] * facts->extent[3] / facts->extent[unit];
    if (rows < 4 || row_bytes > longest_row_bytes || rows * row_bytes > most_bytes) return;
    if (!step || std::abs(step) > farthest) return;
    const char* next = (const char*)(values->base + step);
    int64_t extent[4];
    std::copy(facts->extent, facts->extent + 4, extent);
    extent[unit] = 1;
    for (int64_t i0 = 0; i0 < extent[0]; i0++) {
        for (int64_t i1 = 0; i1 < extent[1]; i1++) {
            const char* row = next + i0 * values->stride[0] + i1 * values->stride[1];
            for (int64_t i2 = 0; i2 < extent[2]; i2++, row += values->stride[2]) {
                for (int64_t i = 0; i < row_bytes; i += cache_line) __builtin_prefetch(row + i);
            }
        }
    }
}

inline int64_t block_bytes(const BlockFacts* facts) {
    return facts->extent[0] * facts->extent[1] * facts->extent[2] * facts->extent[3] * facts->element_bytes;
}

int64_t view_block(Context* context, const BlockFacts* facts, const BlockValues* values, char* tile, View* view) {
    if (look_at_block(context, facts, values, tile, view)) {
        prefetch_next(facts, values, view);
        return block_bytes(facts);
    }
    look_at_tile(view);
    return load_block(context, facts, values, tile);
}

int64_t place_block(Context* context, const BlockFacts* facts, const BlockValues* values, char* tile, View* view) {
    if (look_at_block(context, facts, values, tile, view)) {
        Loops loops;
        for (int d = 0; d < 4; d++) loops.add(facts->extent[d], values->stride[d], 0);
        if (loops.distinct(facts->element_bytes)) return block_bytes(facts);
    }
    look_at_tile(view);
    Valid valid(values, facts->extent);
    return valid.empty ? 0 : valid.count() * facts->element_bytes;
}

// Keeps what a group writes to `stored` from changing what it reads through `view`. `relation` 0: different elements of the
// two meet in the loop; 1: the same ones, so that reading and writing in place is right; 2: `view` is written too.
void separate(Context* context, View* view, const View* stored, int64_t relation) {
    if (!view->direct || !stored->direct || view->end <= stored->first || stored->end <= view->first) return;
    if (relation == 1 && view->pointer == stored->pointer && std::equal(view->stride, view->stride + 4, stored->stride)) {
        return;
    }
    look_at_tile(view);
    if (relation == 2) return;
    load_block(context, reinterpret_cast<const BlockFacts*>(view->facts),
               reinterpret_cast<const BlockValues*>(view->values), reinterpret_cast<char*>(view->tile));
}

void finish_store(Context* context, const View* view) {
    if (view->direct) return;
    store_block(context, reinterpret_cast<const BlockFacts*>(view->facts),
                reinterpret_cast<const BlockValues*>(view->values), reinterpret_cast<const char*>(view->tile));
}

inline int64_t signed_at(const char* address, int64_t bytes) {
    switch (bytes) {
        case 1: return *(const int8_t*)address;
        case 2: return *(const int16_t*)address;
        case 4: return *(const int32_t*)address;
        default: return *(const int64_t*)address;
    }
}

inline int64_t at(const int64_t* stride, int64_t i0, int64_t i1, int64_t i2) {
    return i0 * stride[0] + i1 * stride[1] + i2 * stride[2];
}

inline void move_element(char* to, const char* from, int64_t bytes) {
    switch (bytes) {
        case 1: *(uint8_t*)to = *(const uint8_t*)from; break;
        case 2: *(quarter_word*)to = *(const quarter_word*)from; break;
        case 4: *(half_word*)to = *(const half_word*)from; break;
        default: *(word*)to = *(const word*)from;
    }
}

// Notes a tile's own elements: a dimension along which its stride is 0 counts once.
void note_tile(Notes& n, int queue, const char* tile, const int64_t* extent, const int64_t* stride, int64_t bytes,
               bool is_mask) {
    int64_t own[4], count = 1;
    for (int d = 0; d < 4; d++) count *= own[d] = stride[d] ? extent[d] : 1;
    std::vector<int64_t>& values = n.values[queue];
    if (values.size() + size_t(count) > most_noted) n.too_many = true;
    if (n.too_many) return;
    n.sizes[queue].push_back(count);
    for (int64_t i0 = 0; i0 < own[0]; i0++)
        for (int64_t i1 = 0; i1 < own[1]; i1++)
            for (int64_t i2 = 0; i2 < own[2]; i2++)
                for (int64_t i3 = 0; i3 < own[3]; i3++) {
                    int64_t value = signed_at(tile + at(stride, i0, i1, i2) + i3 * stride[3], bytes);
                    values.push_back(is_mask ? value != 0 : without_base(value));
                }
}

void note_indices(Context* context, int queue, const IndexedFacts* facts, const char* index, const char* mask) {
    if (!pool->launch.notes) return;
    Notes& n = reinterpret_cast<Worker*>(context->thread)->notes;
    if (facts->has_index_tile) note_tile(n, queue, index, facts->extent, facts->index_stride, facts->index_bytes, false);
    if (facts->has_mask_tile) note_tile(n, queue, mask, facts->extent, facts->mask_stride, 1, true);
}

template <bool loading>
int64_t indexed(Context* context, const IndexedFacts* facts, const BlockValues* values, char* tile, const char* index,
                const char* mask) {
    note_indices(context, loading ? 0 : 1, facts, index, mask);
    Valid valid(values, facts->extent);
    int64_t bytes = facts->element_bytes, moved = 0;
    const int64_t* extent = facts->extent;
    if (loading && !valid.whole) {
        fill_all(tile, reinterpret_cast<const BlockFacts*>(facts), values->fill);
    }
    if (valid.empty) return 0;
    int64_t first = valid.low[3], count = valid.high[3] - valid.low[3];
    bool rows = facts->index_stride[3] == 0 && (!mask || facts->mask_stride[3] == 0);
    for (int64_t i0 = valid.low[0]; i0 < valid.high[0]; i0++) {
        for (int64_t i1 = valid.low[1]; i1 < valid.high[1]; i1++) {
            for (int64_t i2 = valid.low[2]; i2 < valid.high[2]; i2++) {
                char* t = tile + at(facts->tile_stride, i0, i1, i2) + first * facts->tile_stride[3];
                const char* i = index + at(facts->index_stride, i0, i1, i2) + first * facts->index_stride[3];
                const char* m = mask ? mask + at(facts->mask_stride, i0, i1, i2) + first * facts->mask_stride[3] : nullptr;
                int64_t row = values->base + at(values->stride, i0, i1, i2) + first * values->stride[3];
                if (rows) {
                    Loops loops;
                    if (m && !*m) {
                        if (!loading) continue;
                        int64_t fill = values->fill;
                        loops.add(count, facts->tile_stride[3], 0);
                        copy(t, (const char*)&fill, loops, bytes);
                        continue;
                    }
                    int64_t start = row + signed_at(i, facts->index_bytes) * facts->scale;
                    int64_t reach = (count - 1) * values->stride[3];
                    check(context, start + std::min<int64_t>(reach, 0), start + std::max<int64_t>(reach, 0) + bytes,
                          facts->instruction);
                    if (facts->tile_stride[3] == bytes && values->stride[3] == bytes) {
                        copy_bytes(loading ? t : (char*)start, loading ? (const char*)start : t, count * bytes);
                    } else if (loading) {
                        loops.add(count, facts->tile_stride[3], values->stride[3]);
                        copy(t, (const char*)start, loops, bytes);
                    } else {
                        loops.add(count, values->stride[3], facts->tile_stride[3]);
                        copy((char*)start, t, loops, bytes);
                    }
                    moved += count;
                    continue;
                }
                for (int64_t i3 = 0; i3 < count; i3++) {
                    if (m && !m[i3 * facts->mask_stride[3]]) {
                        if (loading) move_element(t + i3 * facts->tile_stride[3], (const char*)&values->fill, bytes);
                        continue;
                    }
                    int64_t position = row + i3 * values->stride[3] +
                                       signed_at(i + i3 * facts->index_stride[3], facts->index_bytes) * facts->scale;
                    check(context, position, position + bytes, facts->instruction);
                    if (loading) {
                        move_element(t + i3 * facts->tile_stride[3], (const char*)position, bytes);
                    } else {
                        move_element((char*)position, t + i3 * facts->tile_stride[3], bytes);
                    }
                    moved++;
                }
            }
        }
    }
    return moved * bytes;
}

int64_t load_indexed(Context* context, const IndexedFacts* facts, const BlockValues* values, char* tile, const char* index,
                     const char* mask) {
    return indexed<true>(context, facts, values, tile, index, mask);
}

int64_t store_indexed(Context* context, const IndexedFacts* facts, const BlockValues* values, char* tile,
                      const char* index, const char* mask) {
    return indexed<false>(context, facts, values, tile, index, mask);
}

// ----------------------------------------------------------------------------------------- sanitizer

#include "sanitizer.h"

void begin_sanitized_launch(Context* context) {
    const Kernel* kernel = pool->launch.kernel;
    if (!kernel->checked || !pool->sanitizer) return;
    pool->sanitizer->begin_launch(kernel->scratchpad_bytes, context->workspace, kernel->workspace_bytes, context->grid);
}

void begin_sanitized_program(Context* context) {
    if (pool->launch.kernel->checked && pool->sanitizer) pool->sanitizer->begin_program(context->linear);
}

[[noreturn]] void report(Context* context, const CheckFacts* facts, const Finding& finding) {
    pool->failure.kind = failure_kind::none;
    Failure found = {finding.kind, finding.address, facts->instruction,
                     {context->program[0], context->program[1], context->program[2]}, finding.how, {}};
    if (finding.other) pool->sanitizer->place_of(finding.other - 1, found.other);
    pool->failure = found;
    pool->launch.failed.store(true, std::memory_order_relaxed);
    longjmp(reinterpret_cast<Worker*>(context->thread)->escape, 1);
}

void examine(Context* context, const CheckFacts* facts, const CheckValues* values) {
    Finding finding;
    if (pool->sanitizer && !pool->sanitizer->examine(context, facts, values, &finding)) report(context, facts, finding);
}

void inspect(Context* context, const CheckFacts* facts, const CheckValues* values) {
    Finding finding;
    if (pool->sanitizer && facts->watch_values && !pool->sanitizer->inspect(context, facts, values, &finding)) {
        report(context, facts, finding);
    }
}

// -------------------------------------------------------------------------------------------- atomics

enum Atomic { ADD, MAX_S, MIN_S, MAX_U, MIN_U, AND, OR, XOR, EXCHANGE, COMPARE_SWAP };

template <class U>
U integer_atomic(int64_t function, U x, U a, U b) {
    using S = std::make_signed_t<U>;
    switch (function) {
        case ADD: return x + a;
        case MAX_S: return S(x) > S(a) ? x : a;
        case MIN_S: return S(x) < S(a) ? x : a;
        case MAX_U: return x > a ? x : a;
        case MIN_U: return x < a ? x : a;
        case AND: return x & a;
        case OR: return x | a;
        case XOR: return x ^ a;
        case EXCHANGE: return a;
        default: return x == a ? b : x;
    }
}

uint64_t float_add(int64_t dtype, uint64_t x, uint64_t a) {
    switch (dtype) {
        case F64: {
            double p, q, sum;
            memcpy(&p, &x, 8);
            memcpy(&q, &a, 8);
            sum = p + q;
            if (sum != sum) return 0x7ff8000000000000;
            uint64_t bits;
            memcpy(&bits, &sum, 8);
            return bits;
        }
        case BF16: return float_to_bf16(bf16_to_float(uint16_t(x)) + bf16_to_float(uint16_t(a)));
        case F16: return float_to_f16(f16_to_float(uint16_t(x)) + f16_to_float(uint16_t(a)));
        default: {
            float sum = float_of_bits(uint32_t(x)) + float_of_bits(uint32_t(a));
            return sum != sum ? canonical_nan : bits_of_float(sum);
        }
    }
}

int64_t atomic(Context* context, const IndexedFacts* facts, int64_t base, const char* tile, const char* other,
               const char* index, const char* mask, char* previous) {
    note_indices(context, 1, facts, index, mask);
    int64_t bytes = facts->element_bytes, moved = 0;
    const int64_t* extent = facts->extent;
    bool is_float_add = facts->function == ADD && facts->dtype <= F64;
    for (int64_t i0 = 0; i0 < extent[0]; i0++) {
        for (int64_t i1 = 0; i1 < extent[1]; i1++) {
            for (int64_t i2 = 0; i2 < extent[2]; i2++) {
                for (int64_t i3 = 0; i3 < extent[3]; i3++) {
                    auto place = [&](const int64_t* stride) { return at(stride, i0, i1, i2) + i3 * stride[3]; };
                    if (mask && !mask[place(facts->mask_stride)]) continue;
                    int64_t position =
                        base + signed_at(index + place(facts->index_stride), facts->index_bytes) * facts->scale;
                    check(context, position, position + bytes, facts->instruction);
                    uint64_t x = 0, a = 0, b = 0, result;
                    move_element((char*)&x, (const char*)position, bytes);
                    move_element((char*)&a, tile + place(facts->tile_stride), bytes);
                    if (facts->function == COMPARE_SWAP) {
                        move_element((char*)&b, other + place(facts->other_stride), bytes);
                    }
                    if (facts->dtype == I1 && facts->function < EXCHANGE) {
                        bool either = facts->function == OR || facts->function == MAX_S || facts->function == MAX_U;
                        bool p = x != 0, q = a != 0;
                        result = facts->function == XOR ? p != q : either ? p || q : p && q;
                    } else if (is_float_add) {
                        result = float_add(facts->dtype, x, a);
                    } else {
                        switch (bytes) {
                            case 1: result = integer_atomic<uint8_t>(facts->function, x, a, b); break;
                            case 2: result = integer_atomic<uint16_t>(facts->function, x, a, b); break;
                            case 4: result = integer_atomic<uint32_t>(facts->function, x, a, b); break;
                            default: result = integer_atomic<uint64_t>(facts->function, x, a, b);
                        }
                    }
                    context->changes += result != x;
                    move_element((char*)position, (const char*)&result, bytes);
                    move_element(previous + place(facts->previous_stride), (const char*)&x, bytes);
                    moved++;
                }
            }
        }
    }
    return moved * bytes;
}

// --------------------------------------------------------------------------------------------- gather

void pick(const PickFacts* facts, char* result, const char* source, const char* index) {
    int64_t bytes = facts->element_bytes;
    const int64_t* extent = facts->extent;
    for (int64_t i0 = 0; i0 < extent[0]; i0++) {
        for (int64_t i1 = 0; i1 < extent[1]; i1++) {
            for (int64_t i2 = 0; i2 < extent[2]; i2++) {
                char* r = result + at(facts->result_stride, i0, i1, i2);
                const char* s = source + at(facts->source_stride, i0, i1, i2);
                const char* x = index + at(facts->index_stride, i0, i1, i2);
                for (int64_t i3 = 0; i3 < extent[3]; i3++) {
                    int64_t picked = signed_at(x + i3 * facts->index_stride[3], facts->index_bytes) * facts->step;
                    move_element(r + i3 * facts->result_stride[3], s + i3 * facts->source_stride[3] + picked, bytes);
                }
            }
        }
    }
}

#include "products.h"

Worker* make_worker() {
    void* room = aligned_alloc(cache_line, (sizeof(Worker) + cache_line - 1) / cache_line * cache_line);
    Worker* worker = new (room) Worker;
#define FILL(name) worker->context.call_##name = reinterpret_cast<int64_t>(&name);
    TAPEOUT_FUNCTIONS(FILL)
#undef FILL
    return worker;
}

// The right to launch, as long as the lock is kept. Once the process ends, what other threads would run is being taken
// apart: they wait here for its end.
std::unique_lock<std::mutex> turn() {
    std::unique_lock<std::mutex> lock(pool->launch_mutex);
    if (pool->ending != std::thread::id{} && pool->ending != std::this_thread::get_id()) {
        lock.unlock();
        for (;;) pause();
    }
    return lock;
}

int64_t launch_all(const Kernel* kernel, const int64_t* words, bool notes) {
    if (pool->current_chip) std::tie(pool->arena_base, pool->arena_bytes) = pool->arenas[size_t(pool->current_chip())];
    if (pool->arena_bytes) {
        for (int64_t i = 0; i < kernel->parameter_count; i++) {
            int64_t alignment = kernel->alignment[i], value = words[3 + i];
            if (!alignment || !value) continue;  // an empty tensor has no address
            if (!inside(value, value, pool->arena_base, pool->arena_bytes)) {
                pool->failure = {failure_kind::foreign_pointer, value, i, {}, 0, {}};
                return failure_kind::foreign_pointer;
            }
            if (value & (alignment - 1)) {
                pool->failure = {failure_kind::misaligned_pointer, value, i, {}, 0, {}};
                return failure_kind::misaligned_pointer;
            }
        }
    }
    pool->failure.kind = failure_kind::none;
    Launch* launch = &pool->launch;
    launch->kernel = kernel;
    launch->words = words;
    launch->notes = notes;
    if (notes)
        for (Worker* worker : pool->workers) worker->notes.clear();
    launch->total = words[0] * words[1] * words[2];
    launch->failed.store(false, std::memory_order_relaxed);
    launch->next.store(0, std::memory_order_relaxed);
    int64_t threads = int64_t(pool->workers.size());
    bool alone = !kernel->order_free || kernel->checked || launch->total <= 1 || threads == 1;
    launch->alone = alone;
    launch->chunk = alone ? launch->total : std::max<int64_t>(1, launch->total / (threads * 8));
    pool->launches++;
    if (alone) {
        run(pool->workers[0]);
        collect(pool->workers[0]);
        return pool->failure.kind;
    }
    pool->joined.fetch_and(~Pool::closed, std::memory_order_acq_rel);
    pool->epoch.fetch_add(1, std::memory_order_acq_rel);
    pool->epoch.notify_all();
    run(pool->workers[0]);
    pool->joined.fetch_or(Pool::closed, std::memory_order_acq_rel);
    for (int spin = 0; pool->joined.load(std::memory_order_acquire) != Pool::closed; spin++) {
        if (spin < spin_limit) {
            relax();
        } else {
            std::this_thread::yield();  // a worker may have lost its processor
        }
    }
    for (Worker* worker : pool->workers) collect(worker);
    return pool->failure.kind;
}

// Notes of all threads, in the order of the programs; false if there were too many to keep.
bool sort_notes(int64_t program_count, std::vector<ProgramNotes>& sorted) {
    sorted.assign(program_count, {});
    for (Worker* worker : pool->workers) {
        const Notes& notes = worker->notes;
        if (notes.too_many) return false;
        NotesOfProgram end{0, int64_t(notes.scalars.size()),
                           {int64_t(notes.values[0].size()), int64_t(notes.values[1].size())},
                           {int64_t(notes.sizes[0].size()), int64_t(notes.sizes[1].size())}};
        for (size_t n = 0; n < notes.programs.size(); n++) {
            const NotesOfProgram& from = notes.programs[n];
            const NotesOfProgram& to = n + 1 < notes.programs.size() ? notes.programs[n + 1] : end;
            ProgramNotes& program = sorted[from.linear];
            program.scalars = {notes.scalars.data() + from.scalars, notes.scalars.data() + to.scalars};
            for (int queue = 0; queue < 2; queue++) {
                const int64_t *values = notes.values[queue].data(), *sizes = notes.sizes[queue].data();
                program.values[queue] = {values + from.values[queue], values + to.values[queue]};
                program.sizes[queue] = {sizes + from.tiles[queue], sizes + to.tiles[queue]};
            }
        }
    }
    return true;
}

// Scalars, where each program's begin, values of tiles, where each program's tiles of the load and of the store queue
// begin, and where each of those tiles begins.
struct Record {
    std::array<std::vector<int64_t>, 7> arrays;
};

Record* record_of(const std::vector<ProgramNotes>& programs) {
    Record* record = new Record;
    auto& [scalars, first_scalar, values, first_load, first_store, load_starts, store_starts] = record->arrays;
    std::vector<int64_t>*first_tile[] = {&first_load, &first_store}, *starts[] = {&load_starts, &store_starts};
    for (const ProgramNotes& program : programs) {
        first_scalar.push_back(int64_t(scalars.size()));
        scalars.insert(scalars.end(), program.scalars.first, program.scalars.end);
    }
    first_scalar.push_back(int64_t(scalars.size()));
    for (int queue = 0; queue < 2; queue++) {
        int64_t start = int64_t(values.size());
        for (const ProgramNotes& program : programs) {
            first_tile[queue]->push_back(int64_t(starts[queue]->size()));
            for (const int64_t* size = program.sizes[queue].first; size < program.sizes[queue].end; start += *size++)
                starts[queue]->push_back(start);
            values.insert(values.end(), program.values[queue].first, program.values[queue].end);
        }
        first_tile[queue]->push_back(int64_t(starts[queue]->size()));
        starts[queue]->push_back(start);
    }
    return record;
}

}  // namespace

// ------------------------------------------------------------------------------------ called from Python

extern "C" {

// Starts `thread_count - 1` workers; the thread that launches is the first. A child process of fork starts anew.
void tapeout_start(int64_t thread_count, int64_t scratchpad_bytes) {
    Pool* old = pool;
    pool = new (aligned_alloc(cache_line, (sizeof(Pool) + cache_line - 1) / cache_line * cache_line)) Pool;
    if (old) {
        pool->arena_base = old->arena_base;
        pool->arena_bytes = old->arena_bytes;
        pool->arenas = old->arenas;
        pool->current_chip = old->current_chip;
        std::copy(old->totals, old->totals + 7, pool->totals);
        pool->launches = old->launches;
        pool->sanitizer = old->sanitizer;
    }
    pool->scratchpad_bytes = scratchpad_bytes;
    for (int64_t i = 0; i < thread_count; i++) pool->workers.push_back(make_worker());
    for (int64_t i = 1; i < thread_count; i++) {
        Worker* worker = pool->workers[i];
        std::thread(serve, worker).detach();
    }
}

// From now on only the calling thread launches; a launch under way is waited for.
void tapeout_end() {
    std::lock_guard<std::mutex> lock(pool->launch_mutex);
    pool->ending = std::this_thread::get_id();
}

void tapeout_need_scratchpad(int64_t bytes) {
    std::lock_guard<std::mutex> lock(pool->launch_mutex);
    pool->scratchpad_bytes = std::max(pool->scratchpad_bytes, bytes);
}

void tapeout_set_arena(int64_t base, int64_t bytes) {
    pool->arena_base = base;
    pool->arena_bytes = bytes;
}

// Several chips: a launch is on the current one, and its memory is that chip's.
void tapeout_set_chips(int64_t count, const int64_t* bases, const int64_t* bytes, int64_t (*current_chip)()) {
    pool->arenas.clear();
    for (int64_t n = 0; n < count; n++) pool->arenas.emplace_back(bases[n], bytes[n]);
    pool->current_chip = current_chip;
}

// From now on kernels translated with checks are checked, against the blocks that `find_block` knows.
void tapeout_sanitize(int (*find_block)(uint64_t, uint64_t*, uint64_t*)) {
    pool->sanitizer = new Sanitizer(find_block, pool->arena_base, pool->arena_bytes);
}

// To be told of every new block.
void tapeout_mark_unwritten(uint64_t start, uint64_t bytes) { Sanitizer::mark_unwritten(start, bytes); }

void* tapeout_kernel(int64_t entry, int64_t parameter_count, const int64_t* alignment, int64_t scratchpad_bytes,
                     int64_t workspace_bytes, int64_t order_free, int64_t checked) {
    return new Kernel{reinterpret_cast<void (*)(Context*)>(entry), parameter_count, scratchpad_bytes, workspace_bytes,
                      order_free != 0, checked != 0, std::vector<int64_t>(alignment, alignment + parameter_count)};
}

void tapeout_free_kernel(void* kernel) { delete static_cast<Kernel*>(kernel); }

// 0, or the kind of the failure that `tapeout_failure` describes. `words`: grid, then arguments.
int64_t tapeout_launch(const void* handle, const int64_t* words) {
    auto lock = turn();
    return launch_all(static_cast<const Kernel*>(handle), words, false);
}

// The same, and notes what the launch's time depends on. `digest`: 16 bytes that are equal for equal notes. -1 if the
// launch went well but noted more than is kept.
int64_t tapeout_launch_noting(const void* handle, const int64_t* words, Digest* digest) {
    auto lock = turn();
    int64_t failure = launch_all(static_cast<const Kernel*>(handle), words, true);
    if (failure) return failure;
    if (!sort_notes(words[0] * words[1] * words[2], pool->noted)) return -1;
    *digest = {};
    for (const ProgramNotes& program : pool->noted) {
        digest->add(program.scalars.first, program.scalars.end);
        for (int queue = 0; queue < 2; queue++) {
            digest->add(program.sizes[queue].first, program.sizes[queue].end);
            digest->add(program.values[queue].first, program.values[queue].end);
        }
    }
    return 0;
}

// What the latest launch that noted has noted; to be freed.
Record* tapeout_record() {
    std::lock_guard<std::mutex> lock(pool->launch_mutex);
    return record_of(pool->noted);
}

// Addresses and lengths of a record's seven arrays, in the order of `Record`.
void tapeout_record_arrays(const Record* record, const int64_t** addresses, int64_t* lengths) {
    for (size_t n = 0; n < record->arrays.size(); n++) {
        addresses[n] = record->arrays[n].data();
        lengths[n] = int64_t(record->arrays[n].size());
    }
}

void tapeout_free_record(Record* record) { delete record; }

// kind, detail, instruction, program x, y, z, how, other program x, y, z
void tapeout_failure(int64_t* words) { memcpy(words, &pool->failure, sizeof(Failure)); }

// the counters in the order of the ABI, then launches
void tapeout_counters(int64_t* words) {
    std::copy(pool->totals, pool->totals + 7, words);
    words[7] = pool->launches;
}

void tapeout_reset_counters() {
    std::fill(pool->totals, pool->totals + 7, 0);
    pool->launches = 0;
}
}
