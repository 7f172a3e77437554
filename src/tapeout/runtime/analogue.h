// Products of matrices in an analogue array. What is computed, bit for bit, is tapeout/numerics/analogue.py.
// Included by products.h.

#pragma once

namespace analogue {

constexpr float noise_scale = 1 / 37837.2;

inline uint64_t mixed(uint64_t value) {
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
    value = (value ^ value >> 27) * 0x94D049BB133111EBu;
    return value ^ value >> 31;
}

inline float noise(uint64_t before, int64_t n, int64_t chunk, int64_t sum) {
    constexpr uint64_t golden = 0x9E3779B97F4A7C15u;
    uint64_t value = mixed(before + uint64_t(n) + golden);
    value = mixed(value + uint64_t(chunk) + golden);
    value = mixed(value + uint64_t(sum) + golden);
    int64_t pieces = (value & 0xFFFF) + (value >> 16 & 0xFFFF) + (value >> 32 & 0xFFFF) + (value >> 48);
    return float(pieces - 131070) * noise_scale;
}

// Whole numbers of `count` values `stride` apart, and what one of them is worth.
template <class E>
float convert(const char* from, int64_t count, int64_t stride, float limit, float* values, float* whole,
              int64_t whole_stride) {
    float largest = 0;
    bool is_finite = true;
    for (int64_t i = 0; i < count; i++) {
        values[i] = float(E::one(from + i * stride));
        is_finite = is_finite && std::isfinite(values[i]);
        largest = std::max(largest, std::fabs(values[i]));
    }
    bool is_zero = !is_finite || largest < FLT_MIN;
    float inverse = is_zero ? 0.0f : limit / largest;
    for (int64_t i = 0; i < count; i++) {
        float rounded = is_zero ? 0.0f : std::nearbyint(values[i] * inverse);
        whole[i * whole_stride] = std::min(std::max(rounded, -limit), limit);
    }
    return is_finite ? largest / limit : NAN;
}

template <class L, class R, class A>
void multiply(const MatrixFacts* facts, char* accumulator, const char* lhs, const int64_t* ls, const char* rhs,
              const int64_t* rs) {
    constexpr uint64_t golden = 0x9E3779B97F4A7C15u;
    const int64_t* cs = facts->accumulator_stride;
    int64_t m = facts->extent[1], n = facts->extent[2], k = facts->extent[3], depth = facts->sum_depth;
    float limit = facts->operand_limit, sum_limit = facts->sum_limit;
    float step = std::bit_cast<float>(uint32_t(facts->sum_step_bits));
    float noise_steps = std::bit_cast<float>(uint32_t(facts->noise_bits));
    std::vector<float> values(depth), left(depth), right(depth * n), right_scale(n);
    std::vector<double> sums(n);
    for (int64_t batch = 0; batch < facts->extent[0]; batch++, accumulator += cs[0], lhs += ls[0], rhs += rs[0]) {
        for (int64_t first = 0, chunk = 0; first < k; first += depth, chunk++) {
            int64_t steps = std::min(depth, k - first);
            for (int64_t j = 0; j < n; j++)
                right_scale[j] = convert<R>(rhs + j * rs[2] + first * rs[3], steps, rs[3], limit, values.data(), &right[j], n);
            for (int64_t i = 0; i < m; i++) {
                float left_scale =
                    convert<L>(lhs + i * ls[1] + first * ls[3], steps, ls[3], limit, values.data(), left.data(), 1);
                std::fill(sums.begin(), sums.end(), 0.0);
                for (int64_t s = 0; s < steps; s++)
                    for (int64_t j = 0; j < n; j++) sums[j] += double(left[s]) * double(right[s * n + j]);
                uint64_t before = mixed(mixed(uint64_t(facts->noise_seed) + uint64_t(batch) + golden) + uint64_t(i) + golden);
                for (int64_t j = 0; j < n; j++) {
                    int64_t sum = int64_t(sums[j]);
                    float wanted = float(sum) / step + noise_steps * noise(before, j, chunk, sum);
                    float converted = std::min(std::max(float(std::nearbyint(wanted)), -sum_limit), sum_limit);
                    float value = converted * step * (left_scale * right_scale[j]);
                    A* place = (A*)(accumulator + i * cs[1] + j * cs[2]);
                    A before_it = facts->accumulate || chunk ? *place : A(0);
                    if constexpr (std::is_same_v<A, int32_t>) {
                        *place = before_it + int32_t(std::nearbyint(value));
                    } else {
                        A added = before_it + value;
                        *place = added != added ? A(NAN) : added;
                    }
                }
            }
        }
    }
}

}  // namespace analogue
