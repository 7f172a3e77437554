// Checks of a program while it runs: included by native.cpp, called before (and, for values, after) every tile
// instruction of kernels that were translated with checks. One thread runs all programs of a sanitized launch, in order.
//
// Shadow of the scratchpad: one number a byte, which says in which program it was written. Shadow of HBM: a cell for
// every four bytes that says who wrote, read or updated it last in this launch. What was never written in HBM is known by
// its content: allocations are filled with words that depend on their address, and 16 equal bytes are no accident.

struct Finding {
    int64_t kind;  // failure_kind::Kind
    int64_t address;
    int64_t other;  // the other program of a race; 1 + a program's number, 0 for none
    int64_t how;    // of a race: 0 wrote, 1 read, 2 updated; of a value: 0 NaN, 1 infinity
};

class Sanitizer {
  public:
    using FindBlock = int (*)(uint64_t, uint64_t*, uint64_t*);

    Sanitizer(FindBlock find_block, int64_t base, int64_t bytes) : find_block_(find_block), base_(base), bytes_(bytes) {
        // Behind HBM, far from the heap and from code, whose parts must lie near each other.
        void* mapped = mmap(reinterpret_cast<void*>(base + bytes), shadow_bytes(), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (mapped == MAP_FAILED) abort();
        cells_ = static_cast<Cell*>(mapped);
    }

    static uint64_t pattern(uint64_t address) {  // splitmix64's mixing of an address
        uint64_t x = address * 0x9e3779b97f4a7c15 + 0x7461706575740000;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
        x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
        return x ^ (x >> 31);
    }

    static void mark_unwritten(uint64_t start, uint64_t bytes) {
        for (uint64_t at = start; at + 8 <= start + bytes; at += 8) *reinterpret_cast<uint64_t*>(at) = pattern(at);
    }

    void begin_launch(int64_t scratchpad_bytes, int64_t workspace, int64_t workspace_bytes, const int64_t* grid) {
        if (next_epoch_ > epoch_limit / 2) {
            madvise(cells_, shadow_bytes(), MADV_DONTNEED);
            next_epoch_ = 1;
        }
        scratchpad_.assign(scratchpad_bytes, 0);
        generation_ = always;
        workspace_ = workspace;
        workspace_bytes_ = workspace_bytes;
        std::copy(grid, grid + 3, grid_);
        first_epoch_ = next_epoch_;
        program_of_epoch_.clear();
        syncs_.clear();
        programs_.clear();
        block_first_ = block_end_ = 0;
        begin_program(-1);
    }

    void begin_program(int64_t linear) {
        program_ = linear;
        if (linear >= 0 && ++generation_ == 0) {  // numbers have run out: forget all programs but what precedes them
            for (uint16_t& byte : scratchpad_) byte = byte == always ? always : 0;
            generation_ = always + 1;
        }
        known_.clear();
        followed_.clear();
        begin_epoch();
    }

    bool examine(const Context* context, const CheckFacts* facts, const CheckValues* values, Finding* finding) {
        for (int64_t k = 0; k < facts->operand_count; k++) {
            Operand operand(facts, values, k);
            if (operand.in_register || operand.written || k == facts->gather_operand) continue;
            if (!each(operand.extent, operand.stride, operand.start, [&](int64_t at) {
                    return is_written(at, operand.bytes);
                })) {
                *finding = {failure_kind::scratchpad_never_written, first_unwritten_, 0, 0};
                return false;
            }
        }
        if (facts->gather_operand >= 0 && !examine_gather(context, facts, values, finding)) return false;
        if (facts->memory && !examine_memory(context, facts, values, finding)) return false;
        if (facts->memory == 3) begin_epoch();
        if (facts->watch_values) note_values(context, facts, values);
        for (int64_t k = 0; k < facts->operand_count; k++) {
            Operand operand(facts, values, k);
            if (!operand.written) continue;
            each(operand.extent, operand.stride, operand.start, [&](int64_t at) {
                if (!is_in_scratchpad(at, operand.bytes)) return false;  // the instruction itself will fail
                std::fill_n(scratchpad_.begin() + at, operand.bytes, generation_);
                return true;
            });
        }
        return true;
    }

    // After the instruction: did it make a NaN or an infinity of operands that were neither?
    bool inspect(const Context* context, const CheckFacts* facts, const CheckValues* values, Finding* finding) {
        for (int64_t k = 0; k < facts->operand_count; k++) {
            Operand operand(facts, values, k);
            if (!operand.written) continue;
            size_t number = 0;
            return each(operand.extent, operand.stride, operand.start, [&](int64_t at) {
                int kind = special(reinterpret_cast<const char*>(context->scratchpad + at), operand.dtype);
                bool fine = !kind || had_special_[number];
                number++;
                if (!fine) *finding = {failure_kind::value_born, at, 0, kind - 1};
                return fine;
            });
        }
        return true;
    }

    void place_of(int64_t linear, int64_t* place) const {
        place[0] = linear % grid_[0];
        place[1] = linear / grid_[0] % grid_[1];
        place[2] = linear / grid_[0] / grid_[1];
    }

  private:
    // Each word: the epoch of the last such access shifted by four, and which of the four bytes it touched. Readers: the
    // first one, and the last one that is another program.
    struct Cell {
        uint32_t writer, first_reader, other_reader, updater;
    };
    struct Release {
        int64_t program;
        uint32_t epoch;
    };
    struct Acquire {
        int64_t address;
        size_t releases;  // how many of that address came before it
        uint32_t epoch;
    };
    struct Operand {
        int64_t bytes, dtype, start;
        bool written, in_register;
        const int64_t* extent;
        const int64_t* stride;

        Operand(const CheckFacts* facts, const CheckValues* values, int64_t number) {
            const int64_t* words = facts->operands + number * 13;
            bytes = words[0];
            dtype = words[1];
            written = words[2];
            in_register = words[3];
            start = words[4] + values->offset[number];
            extent = words + 5;
            stride = words + 9;
        }
        int64_t place(const int64_t* i) const {
            return start + i[0] * stride[0] + i[1] * stride[1] + i[2] * stride[2] + i[3] * stride[3];
        }
    };
    static constexpr uint16_t always = 1;  // written before the first program: true for all of them
    static constexpr uint32_t epoch_limit = 1u << 28;

    size_t shadow_bytes() const { return size_t(bytes_) / 4 * sizeof(Cell); }

    // Calls `visit` with the address of every element until it says no; whether it never did.
    template <class Visit>
    static bool each(const int64_t* extent, const int64_t* stride, int64_t start, Visit visit) {
        for (int64_t a = 0; a < extent[0]; a++) {
            for (int64_t b = 0; b < extent[1]; b++) {
                for (int64_t c = 0; c < extent[2]; c++) {
                    int64_t at = start + a * stride[0] + b * stride[1] + c * stride[2];
                    for (int64_t d = 0; d < extent[3]; d++, at += stride[3]) {
                        if (!visit(at)) return false;
                    }
                }
            }
        }
        return true;
    }

    bool is_written(int64_t at, int64_t bytes) {
        first_unwritten_ = at;
        if (!is_in_scratchpad(at, bytes)) return false;
        for (int64_t b = 0; b < bytes; b++) {
            uint16_t when = scratchpad_[at + b];
            if (when != generation_ && when != always) {
                first_unwritten_ = at + b;
                return false;
            }
        }
        return true;
    }

    bool is_in_scratchpad(int64_t at, int64_t bytes) const {
        return at >= 0 && at + bytes <= int64_t(scratchpad_.size());
    }

    bool examine_gather(const Context* context, const CheckFacts* facts, const CheckValues* values, Finding* finding) {
        Operand source(facts, values, facts->gather_operand), index(facts, values, facts->index_operand);
        int64_t i[4];
        for (i[0] = 0; i[0] < facts->extent[0]; i[0]++) {
            for (i[1] = 0; i[1] < facts->extent[1]; i[1]++) {
                for (i[2] = 0; i[2] < facts->extent[2]; i[2]++) {
                    for (i[3] = 0; i[3] < facts->extent[3]; i[3]++) {
                        const char* pick = reinterpret_cast<const char*>(context->scratchpad + index.place(i));
                        int64_t at = source.place(i) + signed_at(pick, index.bytes) * facts->scale;
                        if (!is_written(at, source.bytes)) {
                            *finding = {failure_kind::scratchpad_never_written, first_unwritten_, 0, 0};
                            return false;
                        }
                    }
                }
            }
        }
        return true;
    }

    bool examine_memory(const Context* context, const CheckFacts* facts, const CheckValues* values, Finding* finding) {
        int64_t low[4], high[4], i[4];
        for (int d = 0; d < 4; d++) {
            low[d] = std::max<int64_t>(values->low[d], 0);
            high[d] = std::min(values->high[d], facts->extent[d]);
        }
        bool has_index = facts->index_operand >= 0, has_mask = facts->mask_operand >= 0;
        Operand index(facts, values, has_index ? facts->index_operand : 0);
        Operand mask(facts, values, has_mask ? facts->mask_operand : 0);
        if (has_mask && mask.in_register && !(mask.start & 1)) return true;
        const char* scratchpad = reinterpret_cast<const char*>(context->scratchpad);
        for (i[0] = low[0]; i[0] < high[0]; i[0]++) {
            for (i[1] = low[1]; i[1] < high[1]; i[1]++) {
                for (i[2] = low[2]; i[2] < high[2]; i[2]++) {
                    for (i[3] = low[3]; i[3] < high[3]; i[3]++) {
                        if (has_mask && !mask.in_register && !scratchpad[mask.place(i)]) continue;
                        int64_t at = values->base;
                        for (int d = 0; d < 4; d++) at += i[d] * values->stride[d];
                        if (has_index) {
                            int64_t chosen =
                                index.in_register ? index.start : signed_at(scratchpad + index.place(i), index.bytes);
                            at += chosen * facts->scale;
                        }
                        if (!examine_access(at, facts->element_bytes, facts->memory, finding)) return false;
                    }
                }
            }
        }
        return true;
    }

    bool examine_access(int64_t at, int64_t bytes, int64_t memory, Finding* finding) {
        if (uint64_t(at - workspace_) < uint64_t(workspace_bytes_)) return true;  // its own program's
        if (at < block_first_ || at + bytes > block_end_) {
            uint64_t start = 0, size = 0;
            if (!find_block_(at, &start, &size) || at + bytes > int64_t(start + size)) {
                *finding = {failure_kind::outside_every_tensor, at, 0, 0};
                return false;
            }
            block_first_ = start;
            block_end_ = start + size;
        }
        if (memory == 1 || memory == 3) {
            int64_t granule = at & ~int64_t(15);
            const uint64_t* words = reinterpret_cast<const uint64_t*>(granule);
            if (granule >= block_first_ && words[0] == pattern(granule) && words[1] == pattern(granule + 8)) {
                *finding = {failure_kind::never_written, at, 0, 0};
                return false;
            }
        }
        for (int64_t b = at; b < at + bytes;) {
            int64_t end = std::min((b | 3) + 1, at + bytes);
            uint32_t mask = ((1u << (end - b)) - 1) << (b & 3);
            if (!examine_cell(cells_[(b - base_) >> 2], mask, memory, finding)) {
                finding->address = b;
                return false;
            }
            b = end;
        }
        if (memory == 3) synchronise(at);
        return true;
    }

    bool examine_cell(Cell& cell, uint32_t mask, int64_t memory, Finding* finding) {
        if (!goes_with(cell.writer, mask, 0, finding)) return false;
        if (memory != 3 && !goes_with(cell.updater, mask, 2, finding)) return false;
        if (memory != 1 && !goes_with(cell.first_reader, mask, 1, finding)) return false;
        if (memory != 1 && !goes_with(cell.other_reader, mask, 1, finding)) return false;
        uint32_t* word = memory == 2 ? &cell.writer : &cell.updater;
        if (memory == 1) word = !is_recent(cell.first_reader) || is_own(cell.first_reader) ? &cell.first_reader : &cell.other_reader;
        uint32_t kept = is_recent(*word) && is_own(*word) ? *word & 15 : 0;
        *word = epoch_ << 4 | kept | mask;
        return true;
    }

    bool is_recent(uint32_t word) const { return word >> 4 >= first_epoch_; }
    int64_t program_at(uint32_t epoch) const { return program_of_epoch_[epoch - first_epoch_]; }
    bool is_own(uint32_t word) const { return program_at(word >> 4) == program_; }

    // Whether an earlier access may stand beside one that conflicts with it: not recent, of other bytes, by the same
    // program, or before it by way of atomics.
    bool goes_with(uint32_t word, uint32_t mask, int64_t how, Finding* finding) {
        if (!is_recent(word) || !(word & mask) || is_own(word)) return true;
        int64_t program = program_at(word >> 4);
        learn();
        auto found = known_.find(program);
        if (found != known_.end() && found->second.until >= word >> 4) return true;
        *finding = {failure_kind::race, 0, program + 1, how};
        return false;
    }

    void begin_epoch() {
        if (next_epoch_ < epoch_limit - 1) epoch_ = next_epoch_++;
        if (program_of_epoch_.size() <= epoch_ - first_epoch_) program_of_epoch_.push_back(program_);
    }

    // An atomic takes over what all earlier atomics on its address knew, and hands on what its program did so far.
    void synchronise(int64_t address) {
        std::vector<Release>& releases = syncs_[address];
        if (!releases.empty() && (releases.size() > 1 || releases[0].program != program_)) {
            programs_[program_].push_back({address, releases.size(), epoch_});
        }
        if (!releases.empty() && releases.back().program == program_) {
            releases.back().epoch = epoch_;
        } else {
            releases.push_back({program_, epoch_});
        }
    }

    // Follows atomics back from the running program: up to which epoch it knows each other program.
    struct Knowledge {
        uint32_t until = 0;
        size_t followed = 0;  // how many of that program's acquires
    };
    void learn() {
        std::vector<int64_t> open{program_};
        known_[program_].until = epoch_;
        while (!open.empty()) {
            int64_t program = open.back();
            open.pop_back();
            auto acquires = programs_.find(program);
            if (acquires == programs_.end()) continue;
            for (;;) {
                Knowledge& here = known_[program];
                if (here.followed >= acquires->second.size() || acquires->second[here.followed].epoch > here.until) break;
                const Acquire& acquire = acquires->second[here.followed++];
                const std::vector<Release>& releases = syncs_[acquire.address];
                size_t& done = followed_[acquire.address];
                for (; done < acquire.releases; done++) {
                    Knowledge& other = known_[releases[done].program];
                    if (other.until >= releases[done].epoch) continue;
                    other.until = releases[done].epoch;
                    open.push_back(releases[done].program);
                }
            }
        }
    }
    // 0 an ordinary number, 1 NaN, 2 infinity. Types as in native.cpp; integers have neither.
    static int special(const char* at, int64_t dtype) {
        uint64_t bits = 0;
        switch (dtype) {
            case F64: memcpy(&bits, at, 8); return bits << 1 > 0xffe0000000000000 ? 1 : bits << 1 == 0xffe0000000000000 ? 2 : 0;
            case F32: memcpy(&bits, at, 4); bits &= 0x7fffffff; return bits > 0x7f800000 ? 1 : bits == 0x7f800000 ? 2 : 0;
            case BF16: memcpy(&bits, at, 2); bits &= 0x7fff; return bits > 0x7f80 ? 1 : bits == 0x7f80 ? 2 : 0;
            case F16: memcpy(&bits, at, 2); bits &= 0x7fff; return bits > 0x7c00 ? 1 : bits == 0x7c00 ? 2 : 0;
            case F8E4M3: memcpy(&bits, at, 1); return (bits & 0x7f) == 0x7f;
            case F8E5M2: memcpy(&bits, at, 1); bits &= 0x7f; return bits > 0x7c ? 1 : bits == 0x7c ? 2 : 0;
            default: return 0;
        }
    }

    // For every element of the result whether an operand it depends on is NaN or infinite.
    void note_values(const Context* context, const CheckFacts* facts, const CheckValues* values) {
        const int64_t* kept = nullptr;
        for (int64_t k = 0; k < facts->operand_count; k++) {
            Operand operand(facts, values, k);
            if (operand.written) kept = operand.extent;
        }
        if (!kept) return;
        had_special_.assign(kept[0] * kept[1] * kept[2] * kept[3], 0);
        for (int64_t k = 0; k < facts->operand_count; k++) {
            Operand operand(facts, values, k);
            if (operand.written) continue;
            if (operand.in_register) {
                if (special(reinterpret_cast<const char*>(&operand.start), operand.dtype)) {
                    std::fill(had_special_.begin(), had_special_.end(), 1);
                }
                continue;
            }
            int64_t i[4];
            for (i[0] = 0; i[0] < facts->extent[0]; i[0]++) {
                for (i[1] = 0; i[1] < facts->extent[1]; i[1]++) {
                    for (i[2] = 0; i[2] < facts->extent[2]; i[2]++) {
                        for (i[3] = 0; i[3] < facts->extent[3]; i[3]++) {
                            if (!special(reinterpret_cast<const char*>(context->scratchpad + operand.place(i)), operand.dtype)) continue;
                            int64_t number = 0;
                            for (int d = 0; d < 4; d++) number = number * kept[d] + (kept[d] > 1 ? i[d] : 0);
                            had_special_[number] = 1;
                        }
                    }
                }
            }
        }
    }

    FindBlock find_block_;
    int64_t base_, bytes_;
    Cell* cells_;
    std::vector<uint16_t> scratchpad_;
    uint16_t generation_ = always;
    int64_t first_unwritten_ = 0;
    int64_t workspace_ = 0, workspace_bytes_ = 0;
    int64_t grid_[3] = {};
    int64_t program_ = -1;
    uint32_t epoch_ = 0, first_epoch_ = 1, next_epoch_ = 1;
    std::vector<int64_t> program_of_epoch_;
    int64_t block_first_ = 0, block_end_ = 0;
    std::unordered_map<int64_t, std::vector<Release>> syncs_;
    std::unordered_map<int64_t, std::vector<Acquire>> programs_;
    std::unordered_map<int64_t, Knowledge> known_;
    std::unordered_map<int64_t, size_t> followed_;
    std::vector<uint8_t> had_special_;
};
