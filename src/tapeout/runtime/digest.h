// 128 bits in place of many words: equal for equal words and, but for a chance of one in 2^64 or less, only for those.

#pragma once

#include <cstdint>

struct Digest {
    // Digits of pi; then two chains of steps, by different odd multipliers, each of which could be undone.
    uint64_t low = 0x243f6a8885a308d3, high = 0x13198a2e03707344;

    void add(uint64_t word) {
        low = (low ^ word) * 0x9e3779b97f4a7c15;
        low ^= low >> 32;
        high = (high + word) * 0xc2b2ae3d27d4eb4f;
        high ^= high >> 29;
    }
    void add(const int64_t* first, const int64_t* end) {
        add(uint64_t(end - first));
        for (const int64_t* word = first; word < end; word++) add(uint64_t(*word));
    }
    bool operator==(const Digest&) const = default;
};
