// The choice of tile and split of a matrix product: what `plainly` in gemm.py says, for many rows quickly. Blocks of rows
// go through one choice after another, so that the compiler can keep several rows in a vector register.
#include <algorithm>
#include <cmath>
#include <cstdint>

// `choices` holds, for each choice, its rows, columns and split and its costs (`_Costs` in gemm.py).
extern "C" void tapeout_gemm(const double* m_, const double* n_, const double* k_, int64_t count, const double* choices,
                             int64_t choice_count, double left, double right, double out, double units,
                             double bandwidth, double pull, double softness, double reuse_bytes, double last_level, double* body,
                             double* compute_, double* memory_) {
    constexpr int64_t block = 256;
    double a[block], b[block], c[block], spills[block], best[block], best_compute[block], best_memory[block];
    const double per_unit = 1 / units, per_byte = 1 / bandwidth, hard = 1 - softness;
    for (int64_t start = 0; start < count; start += block) {
        const int64_t rows_here = std::min(block, count - start);
        const double *m = m_ + start, *n = n_ + start, *k = k_ + start;
        for (int64_t row = 0; row < rows_here; ++row) {
            a[row] = m[row] * k[row] * left, b[row] = n[row] * k[row] * right, c[row] = m[row] * n[row] * out;
            const double small = std::min(a[row], b[row]), share = small / (small + 0.5 * last_level);
            spills[row] = share * share;
            best[row] = INFINITY, best_compute[row] = 0, best_memory[row] = 0;
        }
        for (int64_t choice = 0; choice < choice_count; ++choice) {
            const double* at = choices + choice;
            const auto cost = [at, choice_count](int64_t number) { return at[number * choice_count]; };
            const double split = cost(2), step = cost(3), ends = cost(4), operands = cost(5), second = cost(6);
            const double per_row = 1 / cost(0), per_column = 1 / cost(1), per_depth = 1 / split / 64, sums = cost(7);
            const double first = std::max(operands / pull - step, 0.0);
            for (int64_t row = 0; row < rows_here; ++row) {
                const double tiles = std::ceil(m[row] * per_row) * std::ceil(n[row] * per_column) * split;
                const double depth = std::ceil(k[row] * per_depth) * 64;
                const double rounds = tiles * per_unit;
                const double waves = std::max(1.0, hard * std::ceil(rounds) + softness * rounds);
                const double compute = waves * (step * depth + ends) + first * depth;
                const double again = tiles * operands * depth / std::sqrt(std::min(tiles, units));
                const double once = a[row] + b[row];
                const double kept = once + spills[row] * std::max(again - once, 0.0) + c[row];
                const double memory = kept * (kept / (kept + reuse_bytes)) * per_byte;
                const double compute2 = compute * compute, memory2 = memory * memory;
                const double overlapped = std::sqrt(std::sqrt(compute2 * compute2 + memory2 * memory2));
                const double total = overlapped + second + sums * (m[row] * n[row]);
                const bool better = total < best[row];
                best[row] = better ? total : best[row];
                best_compute[row] = better ? compute : best_compute[row];
                best_memory[row] = better ? memory : best_memory[row];
            }
        }
        std::copy(best, best + rows_here, body + start);
        std::copy(best_compute, best_compute + rows_here, compute_ + start);
        std::copy(best_memory, best_memory + rows_here, memory_ + start);
    }
}
