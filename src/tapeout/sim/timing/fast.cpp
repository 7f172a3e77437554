// The timing model of reference.py, fast. Same steps at the same times; what differs is order between cores: steps that
// touch nothing shared run ahead of other cores' steps, and only packets, which meet in the memory system, are taken in
// global time order. `abi.h` is generated: the structures Op, ChipFacts and the enumerations.

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <vector>

#include "abi.h"

namespace {

using Unsigned = uint64_t;

constexpr Word NEVER = Word(1) << 62;
constexpr Word ADDRESS_MASK = (Word(1) << 47) - 1;
constexpr int QUEUE_COUNT = 4;
constexpr int SEQUENCER = 4;  // number of the agent; the engines come before it
constexpr int UNIT_COUNT = 5;

struct Failure {
    Word kind, detail, program;
};

Unsigned folded(Unsigned n) { return n ^ n >> 6 ^ n >> 13 ^ n >> 21; }

Word ceiling(Word a, Word b) { return (a + b - 1) / b; }

// Division by a number that is mostly a power of two.
struct Divisor {
    Unsigned value = 1;
    int shift = 0;
    bool is_power = true;

    void set(Word v) {
        value = Unsigned(v);
        is_power = (value & (value - 1)) == 0;
        shift = std::countr_zero(value);
    }
    Unsigned quotient(Unsigned n) const { return is_power ? n >> shift : n / value; }
    Unsigned remainder(Unsigned n) const { return is_power ? n & (value - 1) : n % value; }
};

// ------------------------------------------------------------------------------------------------------- memory

// What the SRAM holds of some neighbouring lines. Few bytes a line, and all that a hit needs: the lines of a whole working
// set stay in the host's own caches.
struct Page {
    static constexpr Unsigned LINES = 256, GROUP = 64;
    static constexpr uint8_t DIRTY = 128;

    uint8_t state[LINES];             // 0: absent; else its way, counted from one, and whether it is dirty
    Word latest_fill[LINES / GROUP];  // no line of the group is still being fetched after this

    uint8_t &state_of(Word line) { return state[Unsigned(line) % LINES]; }
    Word &latest_fill_by(Word line) { return latest_fill[Unsigned(line) % LINES / GROUP]; }
};

// The pages that a launch needs, in a tree of two levels: lines of 32 bytes, the shortest, have numbers of 42 bits.
struct Pages {
    static constexpr Unsigned ROOTS = 1 << 19, BRANCHES = 1 << 16;
    using Branch = std::array<Page *, BRANCHES>;

    std::vector<std::unique_ptr<Branch>> branches{ROOTS};
    std::vector<std::unique_ptr<Page>> pages;
    std::vector<Page **> places;  // of the pages in use, which come first in `pages`

    Page &of(Word line) {
        Unsigned number = Unsigned(line) / Page::LINES;
        std::unique_ptr<Branch> &branch = branches[number / BRANCHES];
        if (!branch) [[unlikely]] branch = std::make_unique<Branch>();
        Page *&page = (*branch)[number % BRANCHES];
        if (!page) [[unlikely]] take(page);
        return *page;
    }

    void take(Page *&place) {
        if (places.size() == pages.size()) pages.push_back(std::make_unique_for_overwrite<Page>());
        place = pages[places.size()].get();
        places.push_back(&place);
        *place = Page{};
    }

    void clear() {
        for (Page **place : places) *place = nullptr;
        places.clear();
    }
};

struct Request {
    Word address, size;
};

// Where the line of a request is kept.
struct Place {
    Word line, slice, set;
    Page *page;
};

// A line that a set holds, and when it had come from HBM.
struct Way {
    Word line, ready;
};

struct Bank {
    Word row, opened, free, next_refresh;
};

struct Gap {
    Word start, end;
};

struct Write {
    Word row;
    uint32_t bank, bursts;
};

// See memory.py. The writes that wait are in an array for all channels.
struct alignas(64) Channel {
    Word free, dirty_lines, written, waiting_bursts;
    int32_t waiting, gap_count;
    bool writes;
    Gap gaps[GAP_COUNT + 1];
};

// A link of the network, and the gaps on it. See network.py.
struct Link {
    Word free;
    int32_t gap_count;
    Gap gaps[LINK_GAP_COUNT + 1];

    Word reserve(Word time, Word ticks) {
        for (int gap = 0; gap < gap_count; ++gap) {
            auto [left, right] = gaps[gap];
            Word start = std::max(left, time);
            if (start + ticks > right) continue;
            std::copy(gaps + gap + 1, gaps + gap_count, gaps + gap);
            --gap_count;
            if (start + ticks < right) insert(gap, {start + ticks, right});
            if (left < start) insert(gap, {left, start});
            forget();
            return start;
        }
        Word start = std::max(free, time);
        if (start > free) {
            gaps[gap_count++] = {free, start};
            forget();
        }
        free = start + ticks;
        return start;
    }

    void insert(int at, Gap fresh) {
        std::copy_backward(gaps + at, gaps + gap_count, gaps + gap_count + 1);
        gaps[at] = fresh;
        ++gap_count;
    }

    void forget() {
        if (gap_count <= LINK_GAP_COUNT) return;
        std::copy(gaps + 1, gaps + gap_count, gaps);
        --gap_count;
    }
};

struct Network {
    static constexpr Word EAST = 0, WEST = 1, SOUTH = 2, NORTH = 3, DIRECTIONS = 4;

    ChipFacts chip;
    std::vector<Word> station_of_slice;
    std::vector<Link> requests, answers;

    explicit Network(const ChipFacts &facts) : chip(facts) {
        if (!chip.has_network) return;
        Word rows = chip.is_crossbar ? 1 : chip.station_count / chip.column_count;
        for (Word s = 0; s < chip.slice_count; ++s)
            station_of_slice.push_back(chip.at_edges
                                           ? s / 2 % rows * chip.column_count + s % 2 * (chip.column_count - 1)
                                           : s * chip.station_count / chip.slice_count);
        requests.resize(chip.is_crossbar ? chip.station_count + chip.slice_count : chip.station_count * DIRECTIONS);
        answers.resize(requests.size());
    }

    void begin_launch() {
        std::fill(requests.begin(), requests.end(), Link{});
        std::fill(answers.begin(), answers.end(), Link{});
    }

    Word request(Word time, Word core, Word slice, Word size) {
        if (!chip.is_crossbar) return go(requests, time, core, station_of_slice[slice], size);
        Word head = hop(requests[core], time, size, false);
        return hop(requests[chip.station_count + slice], head, size, false) + ticks_of(size, false);
    }

    Word answer(Word time, Word core, Word slice, Word size) {
        if (!chip.is_crossbar) return go(answers, time, station_of_slice[slice], core, size);
        Word head = hop(answers[chip.station_count + slice], time, size, false);
        return hop(answers[core], head, size, false) + ticks_of(size, false);
    }

    Word ticks_of(Word size, bool is_border) const {
        Word ticks = ceiling(size * TICKS, chip.link_bytes_per_cycle);
        return is_border ? std::max(ticks, ceiling(size * chip.border_ticks_per_kib, 1024)) : ticks;
    }

    bool is_border(Word column, Word after) const {
        return chip.border_columns && column / chip.border_columns != after / chip.border_columns;
    }

    Word hop(Link &link, Word time, Word size, bool is_border) {
        Word start = size ? link.reserve(time, ticks_of(size, is_border)) : time;
        return start + chip.hop_ticks + (is_border ? chip.border_hop_ticks : 0);
    }

    // When the last byte has arrived.
    Word go(std::vector<Link> &links, Word time, Word at, Word end, Word size) {
        Word columns = chip.column_count, last = 0;
        if (chip.is_ring) {
            Word count = chip.station_count, eastwards = (end - at + count) % count;
            Word step = 2 * eastwards <= count ? 1 : count - 1;
            while (at != end) {
                Word after = (at + step) % count;
                bool crosses = is_border(at, after);
                time = hop(links[at * DIRECTIONS + (step == 1 ? EAST : WEST)], time, size, crosses);
                last = std::max(last, ticks_of(size, crosses));
                at = after;
            }
            return time + last;
        }
        Word column = at % columns, row = at / columns, to_column = end % columns, to_row = end / columns;
        while (column != to_column) {
            Word after = to_column > column ? column + 1 : column - 1;
            bool crosses = is_border(column, after);
            time = hop(links[(row * columns + column) * DIRECTIONS + (after > column ? EAST : WEST)], time, size, crosses);
            last = std::max(last, ticks_of(size, crosses));
            column = after;
        }
        while (row != to_row) {
            time = hop(links[(row * columns + column) * DIRECTIONS + (to_row > row ? SOUTH : NORTH)], time, size, false);
            last = std::max(last, ticks_of(size, false));
            row += to_row > row ? 1 : -1;
        }
        return time + last;
    }
};

// The memory system of one chip, kept between launches.
struct Memory {
    ChipFacts chip;
    Network network;
    Divisor lines, slices, sets_of_slice, granules, channels, stripes, banks, bursts, slice_bytes;
    std::vector<Word> slice_free;
    Pages pages;
    std::vector<uint8_t> counts;  // of each set, how many lines it holds
    std::vector<Unsigned> used;   // of each set, a bit for each way
    std::unique_ptr<Way[]> ways;  // of all sets
    std::vector<Word> filled;     // numbers of sets that hold some
    Unsigned all_ways;
    std::vector<Channel> channel;
    std::vector<Bank> bank, fresh_banks;
    std::vector<Write> waiting;
    Word hbm_read = 0, hbm_written = 0, sram_read = 0, sram_written = 0;
    Word hits = 0, misses = 0, row_hits = 0, row_misses = 0;

    explicit Memory(const ChipFacts &facts) : chip(facts), network(facts) {
        lines.set(chip.line_bytes);
        slices.set(chip.slice_count);
        sets_of_slice.set(chip.set_count);
        granules.set(chip.interleave_bytes);
        channels.set(chip.channel_count);
        stripes.set(chip.stripes_per_row);
        banks.set(chip.bank_count);
        bursts.set(chip.burst_bytes);
        slice_bytes.set(chip.slice_bytes_per_cycle);
        slice_free.resize(chip.slice_count);
        counts.resize(chip.has_dram ? chip.slice_count * chip.set_count : 0);  // without DRAM no line is looked for
        used.resize(counts.size());
        ways = std::make_unique_for_overwrite<Way[]>(counts.size() * chip.way_count);
        all_ways = ~Unsigned(0) >> (64 - chip.way_count);
        channel.resize(chip.channel_count);
        Word turn_count = chip.channel_count * chip.bank_count;
        for (Word c = 0; c < chip.channel_count; ++c)
            for (Word b = 0; b < chip.bank_count; ++b) {
                Word turn = (chip.bank_count - b) * chip.channel_count - c;
                fresh_banks.push_back({-1, 0, 0, turn * chip.refresh_interval_ticks / turn_count});
            }
        waiting.resize(chip.channel_count * chip.batch_bursts);
    }

    void begin_launch() {
        network.begin_launch();
        pages.clear();
        for (Word set : filled) counts[set] = used[set] = 0;
        filled.clear();
        std::fill(slice_free.begin(), slice_free.end(), 0);
        std::fill(channel.begin(), channel.end(), Channel{});
        bank = fresh_banks;
        hbm_read = hbm_written = sram_read = sram_written = hits = misses = row_hits = row_misses = 0;
    }

    // Sets of neighbouring lines, which are in different slices, lie side by side: a slice's own sets would be a power of
    // two apart, and throw each other out of the host's caches.
    Word set_of(Word line, Unsigned slice) const {
        return Word(sets_of_slice.remainder(slices.quotient(line))) * chip.slice_count + Word(slice);
    }

    // Puts the lines of [first, end) into the SRAM, clean, before anything is asked for.
    void bring(Word first, Word end) {
        if (!chip.has_dram) return;
        for (Word line = Word(lines.quotient(first)); line * chip.line_bytes < end; ++line) {
            Page &page = pages.of(line);
            Word set = set_of(line, slices.remainder(folded(line)));
            uint8_t &state = page.state_of(line);
            if (!state) {
                allocate(state, set, line, 0);
                way_of(set, state).ready = 0;
            }
            mark_used(set, state);
        }
    }

    bool holds(Word first, Word end) {
        if (!chip.has_dram) return true;
        for (Word line = Word(lines.quotient(first)); line * chip.line_bytes < end; ++line)
            if (!pages.of(line).state_of(line)) return false;
        return true;
    }

    Way &way_of(Word set, uint8_t state) { return ways[set * chip.way_count + state % Page::DIRTY - 1]; }

    void mark_used(Word set, uint8_t state) {
        Unsigned bit = Unsigned(1) << (state % Page::DIRTY - 1), together = used[set] | bit;
        used[set] = together == all_ways ? bit : together;
    }

    // Serves a packet of requests of a core within one line each, which are made at `time`, one after another; when the
    // last of their data (or acknowledgements) is back.
    Word access(Word time, Word core, const Request *requests, int count, bool reads, bool writes) {
        if (chip.fixed_latency_ticks) return time + chip.fixed_latency_ticks;
        if (!chip.has_network && chip.has_dram) [[likely]] return serve_packet(time, requests, count, reads, writes);
        Word last = 0;
        for (int n = 0; n < count; ++n) last = std::max(last, serve_over_network(time, core, requests[n], reads, writes));
        return last;
    }

    Word serve_over_network(Word time, Word core, const Request &request, bool reads, bool writes) {
        Word slice = Word(slices.remainder(folded(lines.quotient(request.address))));
        if (chip.has_network) time = network.request(time, core, slice, writes ? request.size : REQUEST_BYTES);
        Word done = chip.has_dram ? serve_packet(time, &request, 1, reads, writes) : serve_sram(time, slice, request, reads, writes);
        return chip.has_network ? network.answer(done, core, slice, reads ? request.size : 0) : done;
    }

    // Of a chip without DRAM, which has all data in its SRAM.
    Word serve_sram(Word time, Word slice, const Request &request, bool reads, bool writes) {
        Word start = std::max(time, slice_free[slice]);
        slice_free[slice] = start + ceiling((reads + writes) * request.size * TICKS, chip.slice_bytes_per_cycle);
        if (reads) sram_read += request.size;
        if (writes) sram_written += request.size;
        ++hits;
        return start + chip.latency_ticks;
    }

    Word serve_packet(Word time, const Request *requests, int count, bool reads, bool writes) {
        if (reads && writes) return serve<true, true>(time, requests, count);
        return reads ? serve<true, false>(time, requests, count) : serve<false, true>(time, requests, count);
    }

    // Where all the lines are kept is worked out first, so that the host's caches fetch it together.
    template <bool READS, bool WRITES>
    Word serve(Word time, const Request *requests, int count) {
        Place places[PACKET_REQUESTS];
        Word last = 0, size = 0, absent = 0;
        for (int n = 0; n < count; ++n) {
            places[n] = place_of(requests[n].address);
            size += requests[n].size;
        }
        for (int n = 0; n < count; ++n)
            if (!places[n].page->state_of(places[n].line)) prefetch_absent(places[n]);
        for (int n = 0; n < count; ++n)
            last = std::max(last, serve_one<READS, WRITES>(time, places[n], requests[n], absent));
        hits += count - absent;
        misses += absent;
        if (READS) sram_read += size;
        if (WRITES) sram_written += size;
        return last + chip.latency_ticks;
    }

    Place place_of(Word address) {
        Word line = Word(lines.quotient(address));
        Word slice = Word(slices.remainder(folded(line))), set = set_of(line, Unsigned(slice));
        Page &page = pages.of(line);
        __builtin_prefetch(&page.state_of(line));
        __builtin_prefetch(&used[set]);
        return {line, slice, set, &page};
    }

    void prefetch_absent(const Place &place) {
        __builtin_prefetch(&counts[place.set]);
        __builtin_prefetch(&ways[place.set * chip.way_count], 1);
    }

    template <bool READS, bool WRITES>
    Word serve_one(Word time, const Place &place, const Request &request, Word &absent) {
        auto [line, slice, set, page] = place;
        auto [address, size] = request;
        Word start = std::max(time, slice_free[slice]);
        Word passing = (READS + WRITES) * size * TICKS + chip.slice_bytes_per_cycle - 1;
        slice_free[slice] = start + Word(slice_bytes.quotient(passing));

        uint8_t &state = page->state_of(line);
        if (!state) {
            ++absent;
            allocate(state, set, line, start);
            Word there = READS || size < chip.line_bytes ? hbm(start, line, chip.line_bytes, false) : start;
            way_of(set, state).ready = there;
            page->latest_fill_by(line) = std::max(page->latest_fill_by(line), there);
        }
        mark_used(set, state);
        if (WRITES && !READS && bursts.remainder(address) == 0 && bursts.remainder(size) == 0) {
            hbm(start, line, size, true);
        } else if (WRITES && state < Page::DIRTY) {
            state += Page::DIRTY;
            ++channel_of(line).dirty_lines;
        }
        if (READS && page->latest_fill_by(line) > start) start = std::max(start, way_of(set, state).ready);
        return start;
    }

    // Finds a way for a line, and notes it in the line's state.
    void allocate(uint8_t &state, Word set, Word line, Word time) {
        Word way = counts[set];
        if (way < chip.way_count) {
            if (!way) filled.push_back(set);
            ++counts[set];
        } else {
            way = std::countr_one(used[set]) % chip.way_count;
            Word old = ways[set * chip.way_count + way].line;
            uint8_t &old_state = pages.of(old).state_of(old);
            if (old_state >= Page::DIRTY) {
                hbm(time, old, chip.line_bytes, true);
                --channel_of(old).dirty_lines;
            }
            old_state = 0;
        }
        state = uint8_t(way + 1);
        way_of(set, state).line = line;
    }

    Unsigned granule_of(Word line) const { return granules.quotient(Unsigned(line) * lines.value); }

    Channel &channel_of(Word line) { return channel[channels.remainder(folded(granule_of(line)))]; }

    Word hbm(Word time, Word line, Word size, bool writes) {
        Unsigned granule = granule_of(line);
        Word number = Word(channels.remainder(folded(granule)));
        Word row = Word(stripes.quotient(channels.quotient(granule)));
        Word bank_number = number * chip.bank_count + Word(banks.remainder(folded(row)));
        Channel &c = channel[number];
        Word count = Word(bursts.quotient(size + chip.burst_bytes - 1));
        if (c.waiting) {
            Word turns = chip.write_to_read_ticks + (c.writes ? 0 : chip.read_to_write_ticks);
            Word idle_from = std::max(c.free, c.written);
            if (idle_from + turns + chip.row_miss_ticks + c.waiting_bursts * chip.burst_ticks <= time)
                write_waiting(number, idle_from);
        }
        if (writes) {
            hbm_written += count * chip.burst_bytes;
            waiting[number * chip.batch_bursts + c.waiting++] = {row, uint32_t(bank_number), uint32_t(count)};
            c.waiting_bursts += count;
            c.written = std::max(c.written, time);
            if (c.waiting_bursts >= chip.batch_bursts) write_waiting(number, time);
            return time;
        }
        hbm_read += count * chip.burst_bytes;
        turn(c, false);
        return transfer(c, bank[bank_number], time, row, count) + chip.hbm_latency_ticks;
    }

    void turn(Channel &c, bool writes) const {
        if (c.writes == writes) return;
        c.writes = writes;
        c.free += writes ? chip.read_to_write_ticks : chip.write_to_read_ticks;
        c.gap_count = 0;
    }

    void write_waiting(Word number, Word time) {
        Channel &c = channel[number];
        turn(c, true);
        const Write *first = &waiting[number * chip.batch_bursts];
        for (const Write *w = first; w < first + c.waiting; ++w) transfer(c, bank[w->bank], time, w->row, w->bursts);
        c.waiting = 0;
        c.waiting_bursts = 0;
    }

    Word transfer(Channel &c, Bank &b, Word time, Word row, Word count) {
        Word ticks = count * chip.burst_ticks, start;
        if (time > b.next_refresh) refresh(b, time);
        bool is_open = b.row == row;
        Word ready = is_open ? std::max(time, b.opened) : std::max(time, b.free) + chip.row_miss_ticks;
        int gap = place(c, time, ready, ticks, start);
        if (is_open) {
            ++row_hits;
        } else {
            ++row_misses;
            b.row = row;
            b.opened = ready;
        }
        Word end = start + ticks;
        b.free = std::max(b.free, end);
        if (gap < c.gap_count) {
            Gap left{c.gaps[gap].start, start}, right{end, c.gaps[gap].end};
            remove_gap(c, gap);
            if (right.start < right.end) insert_gap(c, gap, right);
            if (left.start < left.end) insert_gap(c, gap, left);
        } else {
            if (start > c.free) insert_gap(c, c.gap_count, {c.free, start});
            c.free = end;
        }
        if (c.gap_count > GAP_COUNT) remove_gap(c, 0);
        return end;
    }

    void refresh(Bank &b, Word time) const {
        Word owed = (time - b.next_refresh) / chip.refresh_interval_ticks;
        Word due = b.next_refresh + owed * chip.refresh_interval_ticks;
        if (b.free >= time && owed < POSTPONED_REFRESHES) return;
        b.row = -1;
        b.free = std::max(due, b.free) + chip.bank_refresh_ticks;
        b.next_refresh = due + chip.refresh_interval_ticks;
    }

    // The number of the gap (or how many there are: none) and the time at which the bus is free for so long.
    int place(Channel &c, Word time, Word ready, Word ticks, Word &start) const {
        while (c.gap_count && c.gaps[0].end <= time) remove_gap(c, 0);
        for (int gap = 0; gap < c.gap_count; ++gap) {
            start = std::max(c.gaps[gap].start, ready);
            if (start + ticks <= c.gaps[gap].end) return gap;
        }
        start = std::max(c.free, ready);
        return c.gap_count;
    }

    static void remove_gap(Channel &c, int gap) {
        std::copy(c.gaps + gap + 1, c.gaps + c.gap_count, c.gaps + gap);
        --c.gap_count;
    }

    static void insert_gap(Channel &c, int gap, Gap fresh) {
        std::copy_backward(c.gaps + gap, c.gaps + c.gap_count, c.gaps + c.gap_count + 1);
        c.gaps[gap] = fresh;
        ++c.gap_count;
    }

    Word finish(Word time) {
        Word bursts_of_line = ceiling(chip.line_bytes, chip.burst_bytes), last = time;
        for (Word number = 0; number < chip.channel_count; ++number) {
            Channel &c = channel[number];
            if (c.waiting) write_waiting(number, c.written);
            if (c.dirty_lines) {
                turn(c, true);
                c.free = std::max(time, c.free) + c.dirty_lines * bursts_of_line * chip.burst_ticks;
                hbm_written += c.dirty_lines * bursts_of_line * chip.burst_bytes;
            }
            last = std::max(last, c.free);
        }
        return last;
    }
};

// ------------------------------------------------------------------------------------------------------- a core

struct Kernel {
    std::vector<Op> ops;
};

struct Region {
    Word shape, base, first, end;

    bool is_same_as(const Region &o) const { return shape == o.shape && base == o.base; }
    bool overlaps(const Region &o) const { return first < o.end && o.first < end; }
};

Region region_of(const Tile &t, const Word *registers) {
    Word base = t.base + registers[t.reg];
    return {t.shape, base, base + t.first, base + t.end};
}

struct Queued {
    const Op *op;
    Word index, enqueued;
    Region reads[READ_COUNT], written;
    // of a DMA descriptor
    Word base, strides[4], low[4], high[4], index_value;
    const Word *indices, *mask;
    std::vector<Word> assumed;
};

struct InFlight {
    Region written;
    Word first_result, done;
};

struct Outstanding {
    Word done, size;
};

// The requests of a descriptor, made eight at a time.
struct Walk {
    const Queued *q;
    Word place[4], from[4], to[4];
    Word along, length, here, ahead_address, cut_address, cut_end;
    bool has_ahead, is_over;

    void begin(const Queued &queued, Word memory_base) {
        q = &queued;
        const Op &op = *q->op;
        base = q->base - memory_base;
        along = -1;
        if (op.kind != ATOMIC)
            for (int d = 3; d >= 0 && along < 0; --d)
                if (op.extent[d] > 1 && q->strides[d] == op.size && !(op.varies >> d & 1)) along = d;
        is_over = false;
        for (int d = 0; d < 4; ++d) {
            from[d] = std::max<Word>(0, q->low[d]);
            to[d] = std::min(op.extent[d], q->high[d]);
            if (from[d] >= to[d]) is_over = true;
        }
        length = op.size;
        if (!is_over && along >= 0) {
            length *= to[along] - from[along];
            to[along] = from[along] + 1;
        }
        std::memcpy(place, from, sizeof place);
        here = base;
        for (int d = 0; d < 4; ++d) here += place[d] * q->strides[d];
        cut_address = cut_end = 0;
        has_ahead = !is_over && next_run(ahead_address);
    }

    // Fills a packet; 0 if there is nothing left.
    int packet(Request *requests, Word line_bytes, Word &bytes) {
        int count = 0;
        bytes = 0;
        while (count < PACKET_REQUESTS) {
            if (cut_address >= cut_end && !take_run()) break;
            Word end = std::min(cut_end, (cut_address & -line_bytes) + line_bytes);
            requests[count++] = {cut_address, end - cut_address};
            bytes += end - cut_address;
            cut_address = end;
        }
        return count;
    }

    // Vector by vector, for a microcoded core (`extent` and what goes with it are in the order of its loops): the
    // requests of the next one, maybe none; false if there are no more.
    void begin_vectors(const Queued &queued, Word memory_base) {
        q = &queued;
        const Op &op = *q->op;
        base = q->base - memory_base;
        for (int d = 0; d < 4; ++d) {
            from[d] = std::max<Word>(0, q->low[d]);
            to[d] = std::min(op.extent[d], q->high[d]);
            place[d] = 0;
        }
        is_over = false;
    }

    bool vector(Request *requests, int &count, Word &bytes, Word lanes, Word block_bytes) {
        if (is_over) return false;
        const Op &op = *q->op;
        bool is_store = op.unit == STORE_ENGINE;
        bool one_by_one = is_store && (op.is_indexed || op.kind == ATOMIC || std::abs(q->strides[3]) < op.size);
        Word first = place[3], end = std::min(first + lanes, op.extent[3]);
        bool is_inside = true;
        for (int d = 0; d < 3; ++d) is_inside = is_inside && from[d] <= place[d] && place[d] < to[d];
        count = 0;
        bytes = 0;
        for (; place[3] < end; ++place[3]) {
            if (!is_inside || place[3] < from[3] || place[3] >= to[3]) continue;
            if (q->mask && !q->mask[element(op.mask_own)]) continue;
            here = base;
            for (int d = 0; d < 4; ++d) here += place[d] * q->strides[d];
            Word address = address_here(), block = address / block_bytes;
            int known = 0;
            while (known < count && requests[known].address / block_bytes != block) ++known;
            if (one_by_one || (known == count && is_store)) {
                requests[count++] = {address, op.size};
            } else if (known == count) {
                requests[count++] = {block * block_bytes, block_bytes};
            } else if (is_store) {
                Request &r = requests[known];
                Word start = std::min(r.address, address), stop = std::max(r.address + r.size, address + op.size);
                r = {start, stop - start};
            }
        }
        for (int n = 0; n < count; ++n) bytes += requests[n].size;
        int d = 3;
        while (d >= 0 && place[d] >= op.extent[d]) {
            place[d] = 0;
            if (--d >= 0) ++place[d];
        }
        if (d < 0) is_over = true;
        return true;
    }

private:
    Word base;

    Word address_here() const {
        const Op &op = *q->op;
        Word address = here;
        if (op.is_indexed) address += (q->indices ? q->indices[element(op.index_own)] : q->index_value) * op.scale;
        return address & ADDRESS_MASK;
    }

    bool take_run() {
        if (!has_ahead) return false;
        cut_address = ahead_address;
        cut_end = cut_address + length;
        bool joins = q->op->kind != ATOMIC;
        while ((has_ahead = next_run(ahead_address)) && joins && ahead_address == cut_end) cut_end += length;
        return true;
    }

    Word element(const Word *own) const {
        Word number = 0;
        for (int d = 0; d < 4; ++d) number = number * own[d] + (own[d] > 1 ? place[d] : 0);
        return number;
    }

    bool next_run(Word &address) {
        const Op &op = *q->op;
        while (!is_over) {
            bool is_valid = !q->mask || q->mask[element(op.mask_own)];
            if (is_valid) address = address_here();
            int d = 3;
            for (; d >= 0; --d) {
                if (place[d] + 1 < to[d]) {
                    ++place[d];
                    here += q->strides[d];
                    break;
                }
                here -= (place[d] - from[d]) * q->strides[d];
                place[d] = from[d];
            }
            if (d < 0) is_over = true;
            if (is_valid) return true;
        }
        return false;
    }
};

struct Engine {
    std::vector<Queued> ring;
    int head = 0, count = 0;
    Word free = 0, done = 0, last_start = 0;
    std::vector<InFlight> in_flight;
    // of a DMA engine
    bool is_sending = false;
    Word bytes_per_cycle = 0, addresses_per_cycle = 0, limit = 0;
    Word conflict = 1, begun = 0, waited = 0, reason = -1, port_ticks = 0, sent = 0;
    Word next_time = 0, packet_bytes = 0;
    int packet_count = 0;
    bool has_packet = false;
    Request packet[PACKET_LIMIT];
    Queued current;
    Walk walk;
    std::vector<Outstanding> outstanding;  // a ring
    size_t first_outstanding = 0, outstanding_count = 0;

    Outstanding &back_at(size_t n) { return outstanding[(first_outstanding + n) & (outstanding.size() - 1)]; }

    void push_outstanding(Outstanding o) {
        if (outstanding_count == outstanding.size()) {
            std::vector<Outstanding> larger(std::max<size_t>(64, 2 * outstanding.size()));
            for (size_t n = 0; n < outstanding_count; ++n) larger[n] = back_at(n);
            outstanding.swap(larger);
            first_outstanding = 0;
        }
        ++outstanding_count;
        back_at(outstanding_count - 1) = o;
        sent += o.size;
    }

    void pop_outstanding() {
        sent -= back_at(0).size;
        ++first_outstanding;
        --outstanding_count;
    }
};

struct Launch;

struct Core {
    Launch *launch;
    Word number, workspace, program = 0, next_number;
    Word x = 0, y = 0, z = 0;
    Word registers[256] = {};
    bool unknown[256] = {};
    std::vector<Word> tokens[64];
    Engine engines[QUEUE_COUNT];
    Region held{};
    bool has_held = false;
    Unsigned random;
    Word scalar_at = 0, tile_at[2] = {0, 0};
    Word pc = 0, free = 0;
    bool halted = false;
    Word next[UNIT_COUNT];
    Word *busy, *stalls;

    void begin_launch(Launch &of, Word core_number, Word *busy_row, Word *stall_row);
    bool step_is_shared(int agent) const { return agent < 2 && engines[agent].is_sending; }
    int earliest() const {
        int best = 0;
        for (int a = 1; a < UNIT_COUNT; ++a)
            if (next[a] < next[best]) best = a;
        return best;
    }
    void refresh() {
        for (int a = 0; a < QUEUE_COUNT; ++a)
            if (!engines[a].is_sending) next[a] = engine_time(a);
        next[SEQUENCER] = sequencer_time();
    }
    void step(int agent, Word time);

    Word tokens_at(Word a, Word b) const;
    void take(Word a) {
        if (a) tokens[a].erase(tokens[a].begin());
    }
    void signal(int unit, const Op &op);
    void give(Word time, Word a) {
        if (a) tokens[a].insert(std::upper_bound(tokens[a].begin(), tokens[a].end(), time), time);
    }
    void account(int unit, Word index, Word reason, Word cycles);
    void wait_part(int unit, Word index, Word reason, Word until, Word &since, Word &waited, Word &longest, Word &why);
    void note(int unit, Word index, Word start, Word end, Word waited, Word why);
    void write_scratchpad(const Region &r) {
        if (has_held && r.overlaps(held)) has_held = false;
    }

    struct Start {
        Word given, start;
    };
    // When the front of a queue has read an entry.
    Word front_of(const Engine &e, const Queued &q) const;
    Start start_of(int unit, const Queued &q) const;
    bool keeps_sums(const Queued &q) const { return has_held && q.op->has_written && held.is_same_as(q.written); }
    Word engine_time(int unit) const {
        const Engine &e = engines[unit];
        return e.count ? start_of(unit, e.ring[e.head]).start : NEVER;
    }
    void begin(int unit, Word time, Queued &q, Word &waited, Word &why);
    void start_engine(int unit, Word time);
    void take_up(int unit, Word time);
    void send(int unit, Word time);
    void send_vector(int unit, Word time);
    bool take_packet(int unit);
    void finish(int unit);
    void prepare_packet(int unit);

    Word sequencer_time();
    void sequence(Word time);
    void compute(const Op &op);
    void issue(const Op &op, Word index, Word enqueued);
    const Word *tile(int stream, const Op &op, Word index, bool is_index, const Word *own, Queued &q);
};

// What a chip needs for every launch, kept from one to the next.
struct System {
    Memory memory;
    std::vector<Core> cores;
};

struct Launch {
    const Kernel *kernel;
    Memory *memory;
    const ChipFacts &chip;
    const Word *grid, *arguments;
    Word argument_count, memory_base, workspace, workspace_bytes, program_count;
    const Trace *trace;
    Word *counts, *op_busy, *op_stalls, *assumed;
    std::vector<IntervalWords> *intervals;
    const RegionWords *regions;
    Word region_count;

    // Below which indices that are not known are taken, for an access of `scale` bytes an index at `base`.
    Word assumed_index_range(Word base, Word scale) const {
        for (const RegionWords *r = regions; r < regions + region_count && scale > 0; ++r)
            if (r->first <= base && base < r->end) return std::max<Word>(1, (r->end - base) / scale);
        return ASSUMED_INDEX_RANGE;
    }
};

void Core::begin_launch(Launch &of, Word core_number, Word *busy_row, Word *stall_row) {
    const ChipFacts &chip = of.chip;
    launch = &of;
    number = next_number = core_number;
    workspace = of.workspace + number * of.workspace_bytes;
    random = Unsigned(number) + 1;
    busy = busy_row;
    stalls = stall_row;
    program = x = y = z = scalar_at = tile_at[0] = tile_at[1] = pc = free = 0;
    has_held = halted = false;
    std::fill(registers, registers + 256, 0);
    std::fill(unknown, unknown + 256, false);
    for (auto &given : tokens) given.clear();
    for (int u = 0; u < QUEUE_COUNT; ++u) {
        Engine &e = engines[u];
        e.ring.resize(chip.queue_depth);
        e.head = e.count = 0;
        e.free = e.done = e.last_start = e.port_ticks = e.sent = 0;
        e.in_flight.clear();
        e.is_sending = false;
        e.first_outstanding = e.outstanding_count = 0;
        bool loads = u == LOAD_ENGINE;
        e.bytes_per_cycle = loads ? chip.load_bytes_per_cycle : chip.store_bytes_per_cycle;
        e.addresses_per_cycle = loads ? chip.load_addresses_per_cycle : chip.store_addresses_per_cycle;
        e.limit = loads ? chip.load_outstanding_bytes : chip.store_outstanding_bytes;
    }
}

Word Core::tokens_at(Word a, Word b) const {
    if (a && a == b) return tokens[a].size() > 1 ? tokens[a][1] : NEVER;
    Word time = 0;
    if (a) time = tokens[a].empty() ? NEVER : tokens[a][0];
    if (b) time = std::max(time, tokens[b].empty() ? NEVER : tokens[b][0]);
    return time;
}

void Core::account(int unit, Word index, Word reason, Word cycles) {
    int row = UNIT_NUMBER[unit];
    if (reason < 0) {
        busy[row] += cycles;
        if (index >= 0) launch->op_busy[index] += cycles;
    } else {
        stalls[row * REASON_COUNT + reason] += cycles;
        if (index >= 0) launch->op_stalls[index * REASON_COUNT + reason] += cycles;
    }
}

void Core::wait_part(
    int unit, Word index, Word reason, Word until, Word &since, Word &waited, Word &longest, Word &why) {
    if (until <= since) return;
    Word cycles = until - since;
    since = until;
    account(unit, index, reason, cycles);
    waited += cycles;
    if (cycles > longest) {
        longest = cycles;
        why = reason;
    }
}

void Core::note(int unit, Word index, Word start, Word end, Word waited, Word why) {
    if (launch->kernel->ops[index].unit == unit) ++launch->counts[index];
    if (launch->intervals)
        launch->intervals->push_back({number, UNIT_NUMBER[unit], start, index, end, waited, why});
}

Word Core::front_of(const Engine &e, const Queued &q) const {
    return std::max(q.enqueued, e.last_start + launch->chip.handover_cycles) + q.op->front_cycles;
}

// Engines that hand over in stages give one semaphore after the other.
void Core::signal(int unit, const Op &op) {
    Word time = engines[unit].done + launch->chip.handover_cycles;
    for (Word semaphore : {op.signal_a, op.signal_b}) {
        if (!semaphore) continue;
        time += launch->chip.handover_cycles;
        give(time, semaphore);
    }
}

Core::Start Core::start_of(int unit, const Queued &q) const {
    const Engine &e = engines[unit];
    const Op &op = *q.op;
    Word ready = std::max(front_of(e, q), tokens_at(op.wait_a, op.wait_b) + launch->chip.handover_cycles);
    Word given = std::max(e.free, ready), dependency = 0;
    for (const InFlight &f : e.in_flight) {
        for (Word r = 0; r < op.read_count; ++r) {
            if (!q.reads[r].overlaps(f.written) || (r == op.sum_read && keeps_sums(q))) continue;
            bool streams = unit > STORE_ENGINE && q.reads[r].is_same_as(f.written);
            dependency = std::max(dependency, streams ? std::max(f.first_result, f.done - op.last_read) : f.done);
        }
    }
    Word start = std::max(given, dependency);
    if (op.fill && !keeps_sums(q)) start = std::max(start, std::max(ready, dependency) + op.fill);
    return {given, start};
}

void Core::begin(int unit, Word time, Queued &q, Word &waited, Word &why) {
    Engine &e = engines[unit];
    Queued &front = e.ring[e.head];
    Start s = start_of(unit, front);
    Word since = e.free, longest = 0;
    waited = 0;
    why = -1;
    if (unit <= STORE_ENGINE) wait_part(unit, front.index, REASON_MEMORY, std::min(e.done, s.start), since, waited, longest, why);
    wait_part(unit, front.index, REASON_EMPTY, front_of(e, front), since, waited, longest, why);
    wait_part(unit, front.index, REASON_SEMAPHORE, s.given, since, waited, longest, why);
    wait_part(unit, front.index, REASON_DEPENDENCY, s.start, since, waited, longest, why);
    std::swap(q, front);
    e.head = (e.head + 1) % int(e.ring.size());
    --e.count;
    e.last_start = time;
    take(q.op->wait_a);
    take(q.op->wait_b);
    std::erase_if(e.in_flight, [&](const InFlight &f) { return f.done <= time; });
}

void Core::start_engine(int unit, Word time) {
    Engine &e = engines[unit];
    Word waited, why;
    begin(unit, time, e.current, waited, why);
    const Queued &q = e.current;
    const Op &op = *q.op;
    e.free = time + op.occupancy + op.release_cycles;
    e.done = std::max(e.done, time + op.occupancy + op.latency);
    if (op.kind != SYNC) {
        e.in_flight.push_back({q.written, time + op.first_result, e.done});
        if (unit == MATRIX_ENGINE) {
            has_held = op.is_single_group;
            held = q.written;
        } else {
            write_scratchpad(q.written);
        }
    }
    account(unit, q.index, -1, e.free - time - op.conflict);
    account(unit, q.index, REASON_BANK_CONFLICT, op.conflict);
    note(unit, q.index, time, e.free, waited, why);
    signal(unit, op);
}

void Core::take_up(int unit, Word time) {
    Engine &e = engines[unit];
    begin(unit, time, e.current, e.waited, e.reason);
    const Op &op = *e.current.op;
    e.free = time + op.occupancy;
    account(unit, e.current.index, -1, op.occupancy);
    e.begun = time;
    if (op.has_written) write_scratchpad(e.current.written);
    e.has_packet = false;
    if (op.kind != SYNC) {
        if (launch->chip.is_microcoded) {
            e.walk.begin_vectors(e.current, launch->memory_base);
        } else {
            e.walk.begin(e.current, launch->memory_base);
            e.conflict = e.walk.along >= 0 ? op.conflicts[e.walk.along] : 1;
        }
        e.has_packet = take_packet(unit);
    }
    if (e.has_packet) {
        e.is_sending = true;
        prepare_packet(unit);
    } else {
        finish(unit);
    }
}

// Makes the next packet; false if there is none.
bool Core::take_packet(int unit) {
    Engine &e = engines[unit];
    const ChipFacts &chip = launch->chip;
    if (chip.is_microcoded)
        return e.walk.vector(e.packet, e.packet_count, e.packet_bytes, chip.lane_count, e.bytes_per_cycle);
    e.packet_count = e.walk.packet(e.packet, chip.line_bytes, e.packet_bytes);
    return e.packet_count > 0;
}

// Finds when the packet that is ready can go.
void Core::prepare_packet(int unit) {
    Engine &e = engines[unit];
    Word time = e.free, in_flight = e.sent;
    for (size_t n = 0; n < e.outstanding_count; ++n) {
        const Outstanding &o = e.back_at(n);
        if (o.done > time && in_flight + e.packet_bytes <= e.limit) break;
        time = std::max(time, o.done);
        in_flight -= o.size;
    }
    next[unit] = time;
}

void Core::send(int unit, Word time) {
    Engine &e = engines[unit];
    const Queued &q = e.current;
    Memory &memory = *launch->memory;
    account(unit, q.index, REASON_MEMORY, time - e.free);
    while (e.outstanding_count && e.back_at(0).done <= time) e.pop_outstanding();
    if (launch->chip.is_microcoded) {
        send_vector(unit, time);
        e.has_packet = take_packet(unit);
        if (e.has_packet)
            prepare_packet(unit);
        else
            finish(unit);
        return;
    }
    Word by_bytes = ceiling(e.packet_bytes, e.bytes_per_cycle);
    Word by_requests = ceiling(e.packet_count, e.addresses_per_cycle);
    Word ideal = std::max(by_bytes, by_requests), taken = std::max(by_bytes * e.conflict, by_requests);
    e.free = time + taken;
    account(unit, q.index, -1, ideal);
    account(unit, q.index, REASON_BANK_CONFLICT, taken - ideal);
    bool reads = unit == LOAD_ENGINE || q.op->kind == ATOMIC, writes = unit == STORE_ENGINE;
    e.port_ticks = std::max(e.port_ticks, memory.access(time * TICKS, number, e.packet, e.packet_count, reads, writes));
    e.port_ticks += ceiling(e.packet_bytes * TICKS, e.bytes_per_cycle);
    e.push_outstanding({ceiling(e.port_ticks, TICKS), e.packet_bytes});
    e.has_packet = take_packet(unit);
    if (e.has_packet)
        prepare_packet(unit);
    else
        finish(unit);
}

// A vector of a microcoded core's engine: a request a cycle. A load's rows go to the scratchpad one a cycle.
void Core::send_vector(int unit, Word time) {
    Engine &e = engines[unit];
    const Queued &q = e.current;
    const Op &op = *q.op;
    Word first = time + op.first_request_cycles, taken = op.vector_cycles + std::max(1, e.packet_count);
    Word back = (first - 1) * TICKS;
    bool reads = unit == LOAD_ENGINE || op.kind == ATOMIC, writes = unit == STORE_ENGINE;
    for (int n = 0; n < e.packet_count; ++n) {
        back = std::max(back, launch->memory->access((first + n) * TICKS, number, &e.packet[n], 1, reads, writes));
    }
    if (unit == LOAD_ENGINE) {
        e.port_ticks = std::max(e.port_ticks, back + ARRIVAL_TICKS) + op.row_ticks;
    } else {
        taken = std::max(taken, op.least_cycles);
        e.port_ticks = std::max(e.port_ticks, back);
    }
    e.free = time + taken;
    account(unit, q.index, -1, taken);
    if (op.kind == ATOMIC) {
        Word answered = ceiling(back, TICKS) + ATOMIC_CYCLES;
        account(unit, q.index, REASON_MEMORY, std::max<Word>(0, answered - e.free));
        e.free = std::max(e.free, answered);
    }
    e.push_outstanding({ceiling(e.port_ticks, TICKS), e.packet_bytes});
}

void Core::finish(int unit) {
    Engine &e = engines[unit];
    const Queued &q = e.current;
    Word last = e.outstanding_count ? e.back_at(e.outstanding_count - 1).done : 0;
    if (launch->chip.is_microcoded) {
        if (q.op->kind == SYNC)
            e.done = e.free;
        else if (unit == LOAD_ENGINE)
            e.done = last + 1;
        else
            e.done = q.op->kind == ATOMIC ? e.free : std::max(e.free - 1, last + ANSWER_CYCLES);
        account(unit, q.index, REASON_MEMORY, e.done - e.free);
        account(unit, q.index, -1, q.op->release_cycles);
        e.free = e.done + q.op->release_cycles;
    } else {
        e.done = std::max(e.done, std::max(e.free, last) + q.op->latency);
    }
    if (q.op->has_written) e.in_flight.push_back({q.written, e.done, e.done});
    note(unit, q.index, e.begun, e.free, e.waited, e.reason);
    signal(unit, *q.op);
    e.is_sending = false;
}

// -------------------------------------------------------------------------------------------------- sequencer

Word extended(Unsigned value, Word bits, bool is_unsigned) {
    if (bits == 64) return Word(value);
    Unsigned low = value & ((Unsigned(1) << bits) - 1);
    if (is_unsigned || !(low >> (bits - 1))) return Word(low);
    return Word(low | ~((Unsigned(1) << bits) - 1));
}

Word evaluate(Word function, Word bits, Word a, Word b) {
    bool is_bit = bits == 1;
    Unsigned ua = Unsigned(extended(a, bits, true)), ub = Unsigned(extended(b, bits, true));
    Word sa = extended(a, bits, is_bit), sb = extended(b, bits, is_bit);
    Unsigned r = 0;
    switch (function) {
        case FUNCTION_COPY: r = ua; break;
        case FUNCTION_COUNT_LEADING_ZEROS: r = Unsigned(std::countl_zero(ua)) - (64 - Unsigned(bits)); break;
        case FUNCTION_POPULATION_COUNT: r = Unsigned(std::popcount(ua)); break;
        case FUNCTION_ADD: r = ua + ub; break;
        case FUNCTION_SUB: r = ua - ub; break;
        case FUNCTION_MUL: r = ua * ub; break;
        case FUNCTION_MUL_HIGH_SIGNED: r = Unsigned(Word((__int128(sa) * sb) >> bits)); break;
        case FUNCTION_MUL_HIGH_UNSIGNED: r = Unsigned((static_cast<unsigned __int128>(ua) * ub) >> bits); break;
        case FUNCTION_DIV_SIGNED: r = !sb ? ~Unsigned(0) : sb == -1 ? -Unsigned(sa) : Unsigned(sa / sb); break;
        case FUNCTION_DIV_UNSIGNED: r = !ub ? ~Unsigned(0) : ua / ub; break;
        case FUNCTION_REM_SIGNED: r = !sb ? Unsigned(sa) : sb == -1 ? 0 : Unsigned(sa % sb); break;
        case FUNCTION_REM_UNSIGNED: r = !ub ? ua : ua % ub; break;
        case FUNCTION_MIN_SIGNED: r = Unsigned(std::min(sa, sb)); break;
        case FUNCTION_MAX_SIGNED: r = Unsigned(std::max(sa, sb)); break;
        case FUNCTION_MIN_UNSIGNED: r = std::min(ua, ub); break;
        case FUNCTION_MAX_UNSIGNED: r = std::max(ua, ub); break;
        case FUNCTION_AND: r = ua & ub; break;
        case FUNCTION_OR: r = ua | ub; break;
        case FUNCTION_XOR: r = ua ^ ub; break;
        case FUNCTION_SHIFT_LEFT: r = ub < Unsigned(bits) ? ua << ub : 0; break;
        case FUNCTION_SHIFT_RIGHT_SIGNED: r = Unsigned(sa >> (ub < Unsigned(bits) ? ub : Unsigned(bits - 1))); break;
        case FUNCTION_SHIFT_RIGHT_UNSIGNED: r = ub < Unsigned(bits) ? ua >> ub : 0; break;
        case FUNCTION_EQUAL: return ua == ub;
        case FUNCTION_NOT_EQUAL: return ua != ub;
        case FUNCTION_LESS: return sa < sb;
        case FUNCTION_LESS_EQUAL: return sa <= sb;
        case FUNCTION_LESS_UNSIGNED: return ua < ub;
        case FUNCTION_LESS_EQUAL_UNSIGNED: return ua <= ub;
        default: throw Failure{UNKNOWN_FUNCTION, function, 0};
    }
    return extended(r, bits, is_bit);
}

// Runs what concerns nobody else, up to the next instruction that does; when that one can run.
Word Core::sequencer_time() {
    if (halted) return NEVER;
    const std::vector<Op> &ops = launch->kernel->ops;
    while (true) {
        if (pc >= Word(ops.size())) throw Failure{PAST_END, pc, program};
        const Op &op = ops[pc];
        if (op.unit != SEQUENCER) {
            const Engine &e = engines[op.unit];
            return e.count >= int(e.ring.size()) ? NEVER : std::max(free, e.last_start);
        }
        if (op.kind == WAIT) return std::max(free, tokens_at(op.a, 0));
        if (op.kind == HALT || op.kind == DRAIN) {
            Word time = free;
            for (const Engine &e : engines) {
                if (e.count || e.is_sending) return NEVER;
                time = std::max(time, std::max(e.free, e.done));
            }
            return time;
        }
        if (op.kind == SCALAR_STORE) return free;
        sequence(free);
    }
}

void Core::sequence(Word time) {
    const Op &op = launch->kernel->ops[pc];
    Word index = pc++, waited = 0, why = -1, cycles = op.occupancy, dispatch = 0, fetched = free;
    if (time > free) {
        waited = time - free;
        why = op.unit != SEQUENCER ? REASON_QUEUE_FULL : op.kind == WAIT ? REASON_SEMAPHORE : REASON_DRAIN;
        account(SEQUENCER, index, why, waited);
    }
    if (op.unit != SEQUENCER) {
        cycles = op.issue_cycles;
        issue(op, index, time + cycles);
    } else {
        switch (op.kind) {
            case HALT: halted = true; break;
            case DRAIN: break;
            case WAIT: take(op.a); break;
            case JUMP:
            case BRANCH_ZERO:
            case BRANCH_NONZERO: {
                bool taken = op.kind == JUMP || (registers[op.condition] == 0) == (op.kind == BRANCH_ZERO);
                if (op.kind != JUMP && unknown[op.condition]) {
                    // An assertion of unknown data holds: a launch that traps has no time.
                    const std::vector<Op> &ops = launch->kernel->ops;
                    auto traps = [&](Word at) { return at < Word(ops.size()) && ops[at].kind == TRAP; };
                    if (traps(op.value)) taken = false;
                    else if (traps(pc)) taken = true;
                    else throw Failure{DATA_MISSING, index, program};
                }
                if (taken) {
                    pc = op.value;
                    cycles = std::max<Word>(cycles, TAKEN_BRANCH_CYCLES);
                }
                break;
            }
            case NEXT_PROGRAM:
                if (next_number < launch->program_count)
                    dispatch = op.dispatch_cycles;
                compute(op);
                break;
            default: compute(op);
        }
    }
    free = time + cycles + dispatch;
    // What waits was fetched and decoded before.
    if (op.kind == WAIT || op.kind == HALT || op.kind == DRAIN) free = std::max(time + 1, fetched + cycles);
    account(SEQUENCER, index, -1, free - time - dispatch);
    account(SEQUENCER, index, REASON_DISPATCH, dispatch);
    note(SEQUENCER, index, time, free, waited, why);
}

void Core::compute(const Op &op) {
    Word result = 0, to = op.destination;
    bool is_unknown = false;
    const Word *r = registers;
    switch (op.kind) {
        case NEXT_PROGRAM: {
            result = next_number < launch->program_count;
            if (result) {
                program = next_number;
                next_number += launch->chip.core_count;
                x = program % launch->grid[0];
                y = program / launch->grid[0] % launch->grid[1];
                z = program / launch->grid[0] / launch->grid[1];
                scalar_at = tile_at[0] = tile_at[1] = 0;
            }
            break;
        }
        case PROGRAM_ID: result = op.value == 0 ? x : op.value == 1 ? y : z; break;
        case GRID_SIZE: result = launch->grid[op.value]; break;
        case ARGUMENT:
            if (op.value >= launch->argument_count) throw Failure{NO_ARGUMENT, op.value, program};
            result = launch->arguments[op.value];
            break;
        case WORKSPACE: result = workspace; break;
        case LOAD_IMMEDIATE: result = op.value; break;
        case SCALAR:
            result = evaluate(op.function, op.bits, r[op.a], r[op.b]);
            is_unknown = unknown[op.a] || unknown[op.b];
            break;
        case SCALAR_SELECT:
            result = r[op.condition] ? r[op.a] : r[op.b];
            is_unknown = unknown[op.a] || unknown[op.b] || unknown[op.condition];
            break;
        case SCALAR_CONVERT:
            result = extended(Unsigned(r[op.a]), op.bits, op.value);
            is_unknown = unknown[op.a];
            break;
        case ROTATE:
            result = Word(Unsigned(r[to]) + Unsigned(op.value));
            if (result >= op.limit) result = 0;
            is_unknown = unknown[to];
            break;
        case SCALAR_LOAD:
            if (launch->trace) {
                const Trace &t = *launch->trace;
                Word at = t.first_scalar[program] + scalar_at++;
                if (at >= t.first_scalar[program + 1]) throw Failure{TRACE_TOO_SHORT, 0, program};
                result = t.scalars[at];
            } else {
                is_unknown = true;
                launch->assumed[&op - launch->kernel->ops.data()] = 1;
            }
            break;
        case SCALAR_STORE: {
            Word first = op.value + r[op.b];
            write_scratchpad({-1, first, first, first + op.size});
            return;
        }
        case TRAP: throw Failure{TRAPPED, op.value, program};
        default: return;
    }
    if (to) {
        registers[to] = result;
        unknown[to] = is_unknown;
    }
}

const Word *Core::tile(int stream, const Op &op, Word index, bool is_index, const Word *own, Queued &q) {
    if (const Trace *t = launch->trace) {
        Word at = t->first_tile[stream][program] + tile_at[stream]++;
        if (at >= t->first_tile[stream][program + 1]) throw Failure{TRACE_TOO_SHORT, 0, program};
        return t->tile_values + t->tile_starts[stream][at];
    }
    if (!is_index) return nullptr;
    launch->assumed[index] = 1;
    q.assumed.resize(own[0] * own[1] * own[2] * own[3]);
    Word limit = launch->assumed_index_range(registers[op.base], op.scale);
    for (Word &value : q.assumed) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        value = Word((random >> 33) % Unsigned(limit));
    }
    return q.assumed.data();
}

void Core::issue(const Op &op, Word index, Word enqueued) {
    Engine &e = engines[op.unit];
    Queued &q = e.ring[(e.head + e.count++) % int(e.ring.size())];
    const Word *r = registers;
    q.op = &op;
    q.index = index;
    q.enqueued = enqueued;
    for (Word n = 0; n < op.read_count; ++n) q.reads[n] = region_of(op.reads[n], r);
    if (op.has_written) q.written = region_of(op.written, r);
    if (op.unit > STORE_ENGINE || op.kind == SYNC) return;
    q.base = r[op.base];
    for (int d = 0; d < 4; ++d) {
        q.strides[d] = r[op.strides[d]];
        q.low[d] = r[op.low[d]];
        q.high[d] = op.high[d] ? r[op.high[d]] : op.extent[d];
    }
    q.indices = q.mask = nullptr;
    if (op.is_indexed) {
        int stream = int(op.unit);
        if (op.has_index_tile)
            q.indices = tile(stream, op, index, true, op.index_own, q);
        else
            q.index_value = extended(Unsigned(r[op.index_register]), op.index_bits, false);
        if (op.has_mask_tile) q.mask = tile(stream, op, index, false, op.mask_own, q);
    }
}

// -------------------------------------------------------------------------------------------------- all cores

void Core::step(int agent, Word time) {
    if (agent == SEQUENCER) {
        const Op &op = launch->kernel->ops[pc];
        sequence(time);
        if (op.unit != SEQUENCER && !engines[op.unit].is_sending) next[op.unit] = engine_time(int(op.unit));
        if (op.kind == WAIT || op.kind == SCALAR_STORE)
            refresh();
        else
            next[SEQUENCER] = sequencer_time();
    } else if (agent > STORE_ENGINE) {
        start_engine(agent, time);
        refresh();
    } else if (!engines[agent].is_sending) {
        take_up(agent, time);
        refresh();
    } else {
        send(agent, time);
        if (!engines[agent].is_sending) refresh();
    }
}

// Steps of cores in the order of time; ties go to the lower core.
struct Agenda {
    std::vector<Unsigned> heap;  // time << 12 | core

    void push(Unsigned key) {
        heap.push_back(key);
        std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
    Unsigned top() const { return heap.empty() ? ~Unsigned(0) : heap[0]; }
    Unsigned replace_top(Unsigned key) {
        Unsigned least = heap[0];
        size_t at = 0, size = heap.size();
        while (true) {
            size_t child = 2 * at + 1;
            if (child >= size) break;
            child += child + 1 < size && heap[child + 1] < heap[child];
            if (heap[child] >= key) break;
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = key;
        return least;
    }
    Unsigned pop() {
        std::pop_heap(heap.begin(), heap.end(), std::greater<>());
        Unsigned least = heap.back();
        heap.pop_back();
        return least;
    }
};

void simulate(std::vector<Core> &cores, Word count) {
    Agenda agenda;
    for (Word n = 0; n < count; ++n) {
        cores[n].refresh();
        agenda.push(Unsigned(n));
    }
    Unsigned now = agenda.pop();
    while (true) {
        Core &core = cores[now & 4095];
        while (true) {
            int agent = core.earliest();
            Word time = core.next[agent];
            if (time >= NEVER) {
                if (agenda.heap.empty()) return;
                now = agenda.pop();
                break;
            }
            Unsigned key = Unsigned(time) << 12 | Unsigned(core.number);
            if (core.step_is_shared(agent) && key > agenda.top()) {
                now = agenda.replace_top(key);
                break;
            }
            core.step(agent, time);
        }
    }
}

}  // namespace

extern "C" {

void *tapeout_timing_system(const ChipFacts *chip) { return new System{Memory(*chip), {}}; }

void tapeout_timing_free_system(void *system) { delete static_cast<System *>(system); }

void *tapeout_timing_kernel(const Op *ops, Word count) { return new Kernel{{ops, ops + count}}; }

void tapeout_timing_free_kernel(void *kernel) { delete static_cast<Kernel *>(kernel); }

// Times a launch into `result` and the arrays of `out`; 0, or the kind of failure. Recorded intervals are kept for
// tapeout_timing_take_intervals. `regions`: what the SRAM holds at the start, and at the end.
Word tapeout_timing_simulate(
    const void *kernel, void *system, const Word *grid, const Word *arguments, Word argument_count, Word memory_base,
    Word workspace, Word workspace_bytes, const Trace *trace, const Arrays *out, Result *result, Word record,
    RegionWords *regions, Word region_count) {
    System &s = *static_cast<System *>(system);
    Memory &m = s.memory;
    auto intervals = std::make_unique<std::vector<IntervalWords>>();
    Launch launch{
        static_cast<const Kernel *>(kernel), &m, m.chip, grid, arguments, argument_count, memory_base, workspace,
        workspace_bytes, grid[0] * grid[1] * grid[2], trace, out->counts, out->op_busy, out->op_stalls, out->assumed,
        record ? intervals.get() : nullptr, regions, region_count};
    m.begin_launch();
    for (Word n = 0; n < region_count; ++n)
        if (regions[n].is_resident) m.bring(regions[n].first - memory_base, regions[n].end - memory_base);
    Word count = std::min(m.chip.core_count, launch.program_count);
    if (Word(s.cores.size()) < count) s.cores.resize(count);
    for (Word n = 0; n < count; ++n)
        s.cores[n].begin_launch(launch, n, out->busy + n * UNIT_COUNT, out->stalls + n * UNIT_COUNT * REASON_COUNT);
    try {
        simulate(s.cores, count);
        for (Word n = 0; n < count; ++n)
            if (!s.cores[n].halted) throw Failure{DEADLOCK, s.cores[n].pc, n};
    } catch (const Failure &f) {
        result->detail = f.detail;
        result->program = f.program;
        return f.kind;
    }
    Word end = 0;
    for (Word n = 0; n < count; ++n) end = std::max(end, s.cores[n].free);
    result->cycles = ceiling(m.finish(end * TICKS), TICKS);
    for (Word n = 0; n < count; ++n) {
        Core &core = s.cores[n];
        Word waited = 0, longest = 0, why = -1;
        for (int u = 0; u < QUEUE_COUNT; ++u) {
            const Engine &e = core.engines[u];
            Word since = e.free;
            if (u <= STORE_ENGINE) core.wait_part(u, -1, REASON_MEMORY, std::min(e.done, core.free), since, waited, longest, why);
            core.wait_part(u, -1, REASON_EMPTY, core.free, since, waited, longest, why);
            core.wait_part(u, -1, REASON_IDLE, result->cycles, since, waited, longest, why);
        }
        Word since = core.free;
        core.wait_part(SEQUENCER, -1, REASON_IDLE, result->cycles, since, waited, longest, why);
    }
    for (Word n = 0; n < region_count; ++n)
        regions[n].is_resident = m.holds(regions[n].first - memory_base, regions[n].end - memory_base);
    result->hbm_read_bytes = m.hbm_read;
    result->hbm_written_bytes = m.hbm_written;
    result->sram_read_bytes = m.sram_read;
    result->sram_written_bytes = m.sram_written;
    result->sram_hits = m.hits;
    result->sram_misses = m.misses;
    result->row_hits = m.row_hits;
    result->row_misses = m.row_misses;
    result->interval_count = Word(intervals->size());
    result->recorded = record ? intervals.release() : nullptr;
    return 0;
}

// Copies the intervals in order of core, unit, start and instruction, and frees them.
void tapeout_timing_take_intervals(Result *result, IntervalWords *out) {
    auto *all = static_cast<std::vector<IntervalWords> *>(result->recorded);
    std::sort(all->begin(), all->end(), [](const IntervalWords &a, const IntervalWords &b) {
        return std::tie(a.core, a.unit, a.start, a.index) < std::tie(b.core, b.unit, b.start, b.index);
    });
    std::copy(all->begin(), all->end(), out);
    delete all;
    result->recorded = nullptr;
}
}
