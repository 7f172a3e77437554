"""Tapeout: everything an AI accelerator needs around it, from one description.

Importing this registers the device `chip` with torch if torch is imported; torch registers it if it is imported
later (pytorch/registration.py). Nothing else happens here: Triton imports this package to find its back end.
"""

import sys

if hasattr(sys.modules.get("torch"), "_import_device_backends"):
    from tapeout.pytorch.registration import register

    register()
