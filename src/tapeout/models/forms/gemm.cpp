// The choice of tile and split of a matrix product: what `plainly` in gemm.py says, for many rows quickly.
#include <algorithm>
#include <cmath>
#include <cstdint>

extern "C" void tapeout_gemm(const double* m_, const double* n_, const double* k_, int64_t count, const double* choices,
                             int64_t choice_count, double left, double right, double out, double units, double load_rate,
                             double store_rate, double peak, double edge, double fill, double bandwidth, double split_cost,
                             double softness, double reuse_bytes, double last_level, double memory_rate, double* body,
                             double* compute_, double* memory_) {
    for (int64_t row = 0; row < count; ++row) {
        const double m = m_[row], n = n_[row], k = k_[row];
        const double a = m * k * left, b = n * k * right, c = m * n * out;
        const double small = std::min(a, b), spills = small / (small + 0.5 * last_level);
        double best = INFINITY;
        for (int64_t choice = 0; choice < choice_count; ++choice) {
            const double rows = choices[choice], columns = choices[choice_count + choice];
            const double split = choices[2 * choice_count + choice];
            const double tiles = std::ceil(m / rows) * std::ceil(n / columns) * split;
            const double depth = std::ceil(k / split / 64) * 64;
            const double product = 2 * rows * columns / peak * (1 + edge * (1 / rows + 1 / columns));
            const double load = (rows * left + columns * right) / load_rate;
            const double tile = std::max(product, load) * depth + fill + rows * columns * out / store_rate;
            const double rounds = tiles / units;
            const double waves = rounds <= 1 ? 1.0 : (1 - softness) * std::ceil(rounds) + softness * rounds;
            const double compute = waves * tile;
            const double again = tiles * (rows * left + columns * right) * depth / std::sqrt(std::min(tiles, units));
            const double operands = a + b + spills * spills * std::max(again - a - b, 0.0);
            const double kept = operands + c;
            const double memory = kept * (kept / (kept + reuse_bytes)) / bandwidth;
            const double compute2 = compute * compute, memory2 = memory * memory;
            double total = std::sqrt(std::sqrt(compute2 * compute2 + memory2 * memory2));
            if (split > 1) total += split_cost + 2 * split * m * n * 4 / (2.5 * memory_rate);
            if (total < best) best = total, compute_[row] = compute, memory_[row] = memory;
        }
        body[row] = best;
    }
}
