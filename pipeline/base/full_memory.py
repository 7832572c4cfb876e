"""An error that says that memory is full, told in one line."""

from __future__ import annotations

from pipeline.base.errors import InputError

# How errors say that memory is full, which are not torch's own kind for that.
GPU_MEMORY = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
MEMORY = ("can't allocate memory", "not enough memory")


def explain_lack_of_memory(error: RuntimeError | MemoryError) -> InputError | None:
    """One line of an error that says that a device's memory is full; None of any other."""
    found = (str(error).splitlines() or ["none left"])[0]
    on_gpu = type(error).__name__ == "OutOfMemoryError" or any(sign in found for sign in GPU_MEMORY)
    if not (on_gpu or isinstance(error, MemoryError) or any(sign in found for sign in MEMORY)):
        return None
    return InputError(
        "memory of the GPU" if on_gpu else "memory",
        expected="room for the networks, their activations and the data",
        found=found,
        fix="lower batch_size (dumps: batch), seeds or peers, or leave more of the data on disk: `--memory 2GB`",
    )
