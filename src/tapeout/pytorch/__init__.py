"""The chip as a PyTorch device: `torch.device("chip")`, `torch.chip`, and Inductor's way to the Triton back end.

registration.py runs when torch and tapeout are both imported and does only light work. The first use of the device
makes torch call `torch.chip._lazy_init()` (device.py), which builds or loads the C++ shim (build.py, shim.h).
Inductor is told about the chip when somebody imports it (inductor.py).
"""
