// What is done for every launch while time is kept: find out which launch it is, and whether its time is known.
//
// Called with Python's lock held, by launch_times.py. A launch is its program, its words with canonical addresses, which
// of its allocations are in the last-level SRAM, and what memory held of that on which its time depends: a digest of all
// that names it.

#include "digest.h"

#include <cstring>
#include <unordered_map>
#include <vector>

namespace {

// `place(words, address_flags, count, placed)`: see tapeout.runtime.clock.
using Place = int64_t (*)(const int64_t*, const char*, int64_t, int64_t*);

struct Program {
    std::vector<char> address_flags;
    int64_t number, sram_bytes;

    int64_t word_count() const { return int64_t(address_flags.size()); }
};

// An allocation: where it is, its bytes, and its canonical address.
struct Block {
    int64_t address, bytes, canonical;
};

// What a launch is known to do: its time, and which of its allocations it leaves in the SRAM.
struct Outcome {
    int64_t duration_ps, submission_ps, brought_bytes;
    bool is_assumed;
    std::vector<char> resident;
};

struct Hash {
    size_t operator()(const Digest& digest) const { return digest.low; }
};

struct Left {
    int64_t bytes, brought_bytes;
};

struct Submitted {
    int64_t duration_ps, submission_ps, stream;
};

// Of one clock. The SRAM is on the memory's side: whatever reaches HBM passes it, copies of the host included, so what
// it holds is never out of date. An allocation that a launch leaves there stays as long as what was brought since then
// leaves it room, least recently used first. One that is there in part counts as absent.
struct Clock {
    std::unordered_map<int64_t, Left> left;  // by address; `brought_bytes` when it was left
    int64_t brought_bytes = 0;
    std::vector<Submitted> backlog;

    bool holds(const Block& block, int64_t capacity_bytes) const {
        auto known = left.find(block.address);
        return known != left.end() && known->second.bytes == block.bytes &&
               brought_bytes - known->second.brought_bytes + block.bytes <= capacity_bytes;
    }

    void update(const Block* blocks, const char* resident, int64_t count, int64_t bytes) {
        brought_bytes += bytes;
        for (int64_t n = 0; n < count; n++) {
            if (resident[n])
                left[blocks[n].address] = {blocks[n].bytes, brought_bytes};
            else
                left.erase(blocks[n].address);
        }
    }
};

std::unordered_map<Digest, Outcome, Hash> known;
int64_t program_count = 0;

// A launch with canonical addresses: words, the first free address, and the allocations.
struct Placed {
    std::vector<int64_t> words;
    int64_t block_count = 0;

    const Block* blocks(const Program& program) const {
        return reinterpret_cast<const Block*>(words.data() + program.word_count() + 1);
    }
};

Placed placed;  // of the call that runs
std::vector<char> warm;

Digest identify(const Clock& clock, const Program& program, const int64_t* words, const Digest* data, Place place) {
    int64_t count = program.word_count();
    placed.words.resize(size_t(count + 1 + 3 * count));
    if (place) {
        placed.block_count = place(words, program.address_flags.data(), count, placed.words.data());
    } else {
        memcpy(placed.words.data(), words, size_t(count) * sizeof(int64_t));
        placed.words[size_t(count)] = placed.block_count = 0;
    }
    Digest digest;
    digest.add(uint64_t(program.number));
    digest.add(placed.words.data(), placed.words.data() + count + 1);
    const Block* blocks = placed.blocks(program);
    warm.resize(size_t(placed.block_count));
    for (int64_t n = 0; n < placed.block_count; n++) {
        warm[size_t(n)] = clock.holds(blocks[n], program.sram_bytes);
        digest.add(uint64_t(blocks[n].bytes) << 1 | uint64_t(warm[size_t(n)]));
    }
    if (data) {
        digest.add(data->low);
        digest.add(data->high);
    }
    return digest;
}

}  // namespace

extern "C" {

void* tapeout_timed_program(const char* address_flags, int64_t count, int64_t sram_bytes) {
    return new Program{{address_flags, address_flags + count}, program_count++, sram_bytes};
}

void* tapeout_clock() { return new Clock; }

void tapeout_free_clock(void* clock) { delete static_cast<Clock*>(clock); }

void tapeout_empty_sram(void* clock) { static_cast<Clock*>(clock)->left.clear(); }

// Notes what a launch leaves in the SRAM and, with `is_told` false, adds it to the clock's backlog. 0, and nothing is done,
// if its time is not known, or rests on assumptions and nobody is told. `data`: null, or the digest of what its time
// depends on.
int64_t tapeout_submit(void* handle, const void* program_handle, const int64_t* words, const Digest* data,
                       int64_t stream, Place place, int64_t is_told) {
    Clock& clock = *static_cast<Clock*>(handle);
    const Program& program = *static_cast<const Program*>(program_handle);
    auto found = known.find(identify(clock, program, words, data, place));
    if (found == known.end() || (found->second.is_assumed && !is_told)) return 0;
    const Outcome& outcome = found->second;
    clock.update(placed.blocks(program), outcome.resident.data(), placed.block_count, outcome.brought_bytes);
    if (!is_told) clock.backlog.push_back({outcome.duration_ps, outcome.submission_ps, stream});
    return 1;
}

// The launch in full: its digest (2 words), the number of its allocations, its words with canonical addresses, the first
// free address, and of each allocation where it is, its bytes, where it would be, and whether it is in the SRAM.
void tapeout_identify(const void* handle, const void* program_handle, const int64_t* words, const Digest* data,
                      Place place, int64_t* out) {
    const Program& program = *static_cast<const Program*>(program_handle);
    Digest digest = identify(*static_cast<const Clock*>(handle), program, words, data, place);
    *out++ = int64_t(digest.low);
    *out++ = int64_t(digest.high);
    *out++ = placed.block_count;
    memcpy(out, placed.words.data(), size_t(program.word_count() + 1) * sizeof(int64_t));
    out += program.word_count() + 1;
    for (int64_t n = 0; n < placed.block_count; n++) {
        const Block& block = placed.blocks(program)[n];
        *out++ = block.address;
        *out++ = block.bytes;
        *out++ = block.canonical;
        *out++ = warm[size_t(n)];
    }
}

void tapeout_know(const Digest* digest, int64_t duration_ps, int64_t submission_ps, int64_t brought_bytes,
                  const char* resident, int64_t count, int64_t is_assumed) {
    known[*digest] = {duration_ps, submission_ps, brought_bytes, is_assumed != 0, {resident, resident + count}};
}

void tapeout_forget_times() { known.clear(); }

int64_t tapeout_backlog_size(const void* clock) { return int64_t(static_cast<const Clock*>(clock)->backlog.size()); }

// Moves the backlog to `out`: three words a launch.
void tapeout_take_backlog(void* handle, int64_t* out) {
    Clock& clock = *static_cast<Clock*>(handle);
    memcpy(out, clock.backlog.data(), clock.backlog.size() * sizeof(Submitted));
    clock.backlog.clear();
}
}
