// Ends of the passes of many pipelines that follow one order (training/schedules.py says what an order is). Which pass
// can run next does not depend on what passes take, so the sequence is found once and then walked for each pipeline.
#include <algorithm>
#include <cstdint>
#include <vector>

extern "C" {

enum { FORWARD, BACKWARD, WEIGHT, WHOLE_BACKWARD };

// `rows`: (pass, chunk, micro-batch) of each device, one after another from `starts`. Seconds by pipeline and chunk;
// `transfer` by pipeline and hop. Writes the end of each device's last pass. Returns 0, or 1 if the order waits for
// itself.
int64_t tapeout_pipeline_ends(const int64_t* rows, const int64_t* starts, int64_t devices, int64_t chunks,
                              int64_t micro_batches, const double* forward, const double* backward,
                              const double* weight, const double* transfer, int64_t pipelines, double* ends) {
    const int64_t count = starts[devices];
    std::vector<int64_t> sequence, device_of;
    sequence.reserve(count);
    device_of.reserve(count);
    std::vector<uint8_t> done(2 * chunks * micro_batches, 0);
    std::vector<int64_t> next(starts, starts + devices);
    while (int64_t(sequence.size()) < count) {
        const size_t before = sequence.size();
        for (int64_t device = 0; device < devices; ++device) {
            for (; next[device] < starts[device + 1]; ++next[device]) {
                const int64_t* row = rows + 3 * next[device];
                const int64_t kind = row[0], chunk = row[1], micro = row[2];
                if (kind == FORWARD && chunk && !done[(chunk - 1) * micro_batches + micro]) break;
                if ((kind == BACKWARD || kind == WHOLE_BACKWARD) && chunk < chunks - 1 &&
                    !done[(chunks + chunk + 1) * micro_batches + micro])
                    break;
                if (kind != WEIGHT) done[((kind != FORWARD) * chunks + chunk) * micro_batches + micro] = 1;
                sequence.push_back(next[device]);
                device_of.push_back(device);
            }
        }
        if (sequence.size() == before) return 1;
    }
    std::vector<double> end(2 * chunks * micro_batches), free(devices);
    for (int64_t pipeline = 0; pipeline < pipelines; ++pipeline) {
        const double *f = forward + pipeline * chunks, *b = backward + pipeline * chunks, *w = weight + pipeline * chunks;
        const double* hop = transfer + pipeline * (chunks - 1);
        std::fill(free.begin(), free.end(), 0.0);
        for (int64_t step = 0; step < count; ++step) {
            const int64_t* row = rows + 3 * sequence[step];
            const int64_t kind = row[0], chunk = row[1], micro = row[2];
            double now = free[device_of[step]];
            if (kind == FORWARD) {
                if (chunk) now = std::max(now, end[(chunk - 1) * micro_batches + micro] + hop[chunk - 1]);
                now += f[chunk];
                end[chunk * micro_batches + micro] = now;
            } else if (kind == WEIGHT) {
                now += w[chunk];
            } else {
                if (chunk < chunks - 1)
                    now = std::max(now, end[(chunks + chunk + 1) * micro_batches + micro] + hop[chunk]);
                now += kind == BACKWARD ? b[chunk] : b[chunk] + w[chunk];
                end[(chunks + chunk) * micro_batches + micro] = now;
            }
            free[device_of[step]] = now;
        }
        std::copy(free.begin(), free.end(), ends + pipeline * devices);
    }
    return 0;
}
}
