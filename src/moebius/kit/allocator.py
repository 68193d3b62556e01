"""Memory that a CPU step does not wait for: freed memory kept in the process, and large pages."""

import ctypes
import os
import platform

# Variable of torch: whether its allocator asks for huge pages for tensors of 2 MiB and more.
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# The parameter numbers of mallopt, from glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def tune_allocator() -> str:
    """Make glibc keep freed memory instead of giving it back to the system.

    A training step on a CPU allocates and frees the same large activations and gradients again and again. By default
    glibc maps new pages for each, and the step waits until the system has zeroed them. Kept memory is reused as it is.
    Large tensors that are made from then on lie in huge pages, where the system has them: the processor finds weights
    that do not fit its caches faster. The cost: the process keeps its peak memory until it ends, plus up to 256 MiB.
    The command line calls this in its own processes; a user of the library calls it once, before the first tensor.
    Importing moebius never does.

    Returns:
        A sentence about what was done. Without glibc nothing is done, and the sentence says so.

    Example:
        >>> tune_allocator().split(":")[0]
        'allocator'

    Reference: mallopt(3); ours. benchmarks/steps.py measures the effect.
    """
    # torch reads the variable when it makes its first tensor.
    os.environ.setdefault(_HUGE_PAGES, "1")
    if platform.libc_ver()[0] != "glibc":
        return "allocator: left as it is, this is not glibc"
    mallopt = ctypes.CDLL(None).mallopt
    # A threshold of -1 is none; with the largest number, a process that frees 2 GiB in a step would give them back.
    options = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, 256 * 2**20))
    accepted = [mallopt(option, value) for option, value in options]
    if not all(accepted):
        return "allocator: glibc refused the options"
    return "allocator: freed memory is kept"
