// Fitting and evaluating boosted oblivious trees (trees.py says what they are). Codes are bins of features, one byte
// each. Sums run over rows in order, so the same rows give the same trees.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

typedef uint8_t Bytes __attribute__((vector_size(32)));  // as many rows at a time: ten times a plain loop's speed

extern "C" {

// Grow one tree on the rows of `chosen` (indices): `codes` is feature x row, of `all_rows` rows. Writes the feature and
// bin of each level and the value of each leaf. One feature's sums of all nodes stay in the nearest cache.
void tapeout_grow_tree(const uint8_t* codes, int64_t all_rows, const double* gradient, const int64_t* chosen, int64_t count,
                       int64_t features, int64_t bins, int64_t depth, double least_rows, uint8_t* asked, uint8_t* edge,
                       double* leaves) {
    const int64_t most = int64_t{1} << depth;
    std::vector<int32_t> leaf(count, 0);
    std::vector<double> pull(count), sums(bins * most), counts(bins * most), left(most), left_rows(most), score(most);
    for (int64_t row = 0; row < count; ++row) pull[row] = gradient[chosen[row]];
    for (int64_t level = 0; level < depth; ++level) {
        const int64_t nodes = int64_t{1} << level;
        std::vector<double> total(nodes, 0.0), rows(nodes, 0.0);
        for (int64_t row = 0; row < count; ++row) total[leaf[row]] += pull[row], rows[leaf[row]] += 1.0;
        double best = -1.0;
        int64_t best_feature = 0, best_bin = 0;
        for (int64_t feature = 0; feature < features; ++feature) {
            const uint8_t* code = codes + feature * all_rows;
            std::fill(sums.begin(), sums.begin() + bins * nodes, 0.0);
            std::fill(counts.begin(), counts.begin() + bins * nodes, 0.0);
            for (int64_t row = 0; row < count; ++row) {
                const int64_t at = code[chosen[row]] * nodes + leaf[row];
                sums[at] += pull[row];
                counts[at] += 1.0;
            }
            std::fill(left.begin(), left.end(), 0.0);
            std::fill(left_rows.begin(), left_rows.end(), 0.0);
            for (int64_t bin = 0; bin + 1 < bins; ++bin) {
                for (int64_t node = 0; node < nodes; ++node) {
                    left[node] += sums[bin * nodes + node], left_rows[node] += counts[bin * nodes + node];
                    const double right = total[node] - left[node];
                    score[node] = left[node] * left[node] / (left_rows[node] + least_rows) +
                                  right * right / (rows[node] - left_rows[node] + least_rows);
                }
                double all = 0.0;
                for (int64_t node = 0; node < nodes; ++node) all += score[node];
                if (all > best) best = all, best_feature = feature, best_bin = bin;
            }
        }
        asked[level] = static_cast<uint8_t>(best_feature);
        edge[level] = static_cast<uint8_t>(best_bin);
        const uint8_t* code = codes + best_feature * all_rows;
        for (int64_t row = 0; row < count; ++row)
            if (code[chosen[row]] > best_bin) leaf[row] |= 1 << level;
    }
    std::vector<double> rows(most, 0.0);
    std::fill(leaves, leaves + most, 0.0);
    for (int64_t row = 0; row < count; ++row) leaves[leaf[row]] += pull[row], rows[leaf[row]] += 1.0;
    for (int64_t at = 0; at < most; ++at) leaves[at] /= rows[at] + least_rows;
}

// Add the values of `trees` trees to `total`, for each row of `asked_of` (row x feature). `edges` has 128 thresholds a
// feature, ascending, infinite where there are fewer; a code is how many of them lie below the row's figure.
void tapeout_sum_trees(const double* asked_of, int64_t count, int64_t features, const double* edges, int64_t trees,
                       int64_t depth, const uint8_t* asked, const uint8_t* edge, const double* leaves, double* total) {
    constexpr int64_t block = 512, most = 128;
    std::vector<uint8_t> codes(features * block);
    uint8_t leaf[block];
    for (int64_t start = 0; start < count; start += block) {
        const int64_t rows = std::min(block, count - start);
        for (int64_t row = 0; row < rows; ++row)
            for (int64_t feature = 0; feature < features; ++feature) {
                const double value = asked_of[(start + row) * features + feature];
                const double* of = edges + feature * most;
                int64_t code = 0;
                for (int64_t step = most / 2; step > 0; step /= 2) code += of[code + step - 1] < value ? step : 0;
                codes[feature * block + row] = static_cast<uint8_t>(code);
            }
        for (int64_t tree = 0; tree < trees; ++tree) {
            std::memset(leaf, 0, sizeof leaf);
            for (int64_t level = 0; level < depth; ++level) {
                const uint8_t* code = &codes[asked[tree * depth + level] * block];
                const uint8_t bin = edge[tree * depth + level], bit = static_cast<uint8_t>(1 << level);
                for (int64_t row = 0; row < block; row += sizeof(Bytes)) {
                    Bytes here, found;
                    std::memcpy(&here, code + row, sizeof here);
                    std::memcpy(&found, leaf + row, sizeof found);
                    found |= (Bytes)(here > bin) & bit;
                    std::memcpy(leaf + row, &found, sizeof found);
                }
            }
            const double* values = leaves + (tree << depth);
            for (int64_t row = 0; row < rows; ++row) total[start + row] += values[leaf[row]];
        }
    }
}
}
