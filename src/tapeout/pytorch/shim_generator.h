// The chip's random numbers, as operators take them (shim_hooks.cpp).

#pragma once

#include <ATen/core/Generator.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace tapeout {

// Of the current chip, and of any.
const at::Generator& default_generator();
const at::Generator& default_generator(c10::DeviceIndex index);

// Takes `numbers` numbers from the generator (the current chip's, if none is given); returns its seed and the first's place.
std::tuple<int64_t, int64_t> draw(std::optional<at::Generator> generator, int64_t numbers);

// A host generator for an operator that runs on the host, seeded from the chip's; a host generator as it is.
at::Generator host_generator(const at::Generator& generator);

}  // namespace tapeout
