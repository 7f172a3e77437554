// Fitting and evaluating boosted oblivious trees (trees.py says what they are). Codes are bins of features, one byte
// each. Sums run over rows in order, so the same rows give the same trees.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

extern "C" {

// Grow one tree on the rows of `chosen` (indices): `codes` is row x feature. Writes the feature and bin of each level and
// the value of each leaf.
void tapeout_grow_tree(const uint8_t* codes, const double* gradient, const int64_t* chosen, int64_t count,
                       int64_t features, int64_t bins, int64_t depth, double least_rows, uint8_t* asked, uint8_t* edge,
                       double* leaves) {
    std::vector<int32_t> leaf(count, 0);
    for (int64_t level = 0; level < depth; ++level) {
        const int64_t nodes = int64_t{1} << level, width = features * bins;
        std::vector<double> sums(nodes * width, 0.0);
        std::vector<double> counts(nodes * width, 0.0);
        for (int64_t row = 0; row < count; ++row) {
            const int64_t at = chosen[row];
            double* sum = &sums[leaf[row] * width];
            double* number = &counts[leaf[row] * width];
            const uint8_t* code = codes + at * features;
            for (int64_t feature = 0; feature < features; ++feature) {
                sum[feature * bins + code[feature]] += gradient[at];
                number[feature * bins + code[feature]] += 1.0;
            }
        }
        double best = -1.0;
        int64_t best_feature = 0, best_bin = 0;
        std::vector<double> score(bins);
        for (int64_t feature = 0; feature < features; ++feature) {
            std::fill(score.begin(), score.end(), 0.0);
            for (int64_t node = 0; node < nodes; ++node) {
                const double* sum = &sums[node * width + feature * bins];
                const double* number = &counts[node * width + feature * bins];
                double total = 0.0, rows = 0.0, left = 0.0, left_rows = 0.0;
                for (int64_t bin = 0; bin < bins; ++bin) total += sum[bin], rows += number[bin];
                for (int64_t bin = 0; bin + 1 < bins; ++bin) {
                    left += sum[bin], left_rows += number[bin];
                    score[bin] += left * left / (left_rows + least_rows) +
                                  (total - left) * (total - left) / (rows - left_rows + least_rows);
                }
            }
            for (int64_t bin = 0; bin + 1 < bins; ++bin)
                if (score[bin] > best) best = score[bin], best_feature = feature, best_bin = bin;
        }
        asked[level] = static_cast<uint8_t>(best_feature);
        edge[level] = static_cast<uint8_t>(best_bin);
        for (int64_t row = 0; row < count; ++row)
            if (codes[chosen[row] * features + best_feature] > best_bin) leaf[row] |= 1 << level;
    }
    std::vector<double> rows(int64_t{1} << depth, 0.0);
    std::fill(leaves, leaves + (int64_t{1} << depth), 0.0);
    for (int64_t row = 0; row < count; ++row) leaves[leaf[row]] += gradient[chosen[row]], rows[leaf[row]] += 1.0;
    for (int64_t at = 0; at < (int64_t{1} << depth); ++at) leaves[at] /= rows[at] + least_rows;
}

// Add the values of `trees` trees to `total`, for each row.
void tapeout_sum_trees(const uint8_t* codes, int64_t count, int64_t features, int64_t trees, int64_t depth,
                       const uint8_t* asked, const uint8_t* edge, const double* leaves, double* total) {
    for (int64_t row = 0; row < count; ++row) {
        const uint8_t* code = codes + row * features;
        double sum = total[row];
        for (int64_t tree = 0; tree < trees; ++tree) {
            int64_t leaf = 0;
            for (int64_t level = 0; level < depth; ++level)
                leaf |= static_cast<int64_t>(code[asked[tree * depth + level]] > edge[tree * depth + level]) << level;
            sum += leaves[(tree << depth) + leaf];
        }
        total[row] = sum;
    }
}
}
