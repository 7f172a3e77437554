// Three parts of the device as one unit: to read torch's headers takes a compiler longer than the parts themselves.

#include "shim_hooks.cpp"
#include "shim_memory.cpp"
#include "shim_profiler.cpp"
