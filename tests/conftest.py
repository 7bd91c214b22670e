"""Settings that every test runs under."""

import os

# Before any framework is imported: the tests run side by side, one thread each, on the CPU.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
}.items():
    os.environ.setdefault(name, value)
