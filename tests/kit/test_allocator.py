"""Freed memory is kept, and used again without page faults."""

import platform
import subprocess
import sys

import pytest

# Page faults of the second half of many allocations of 32 MiB, all written to and freed.
COUNT_FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "tuned":
    from moebius.kit.allocator import tune_allocator
    print(tune_allocator(), file=sys.stderr)

def touch():
    for _ in range(10):
        values = np.empty(4 * 2**20)
        values.fill(1)
        del values

touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(mode):
    result = subprocess.run([sys.executable, "-c", COUNT_FAULTS, mode], check=True, capture_output=True, text=True)
    return int(result.stdout), result.stderr.strip()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these options")
def test_on_glibc_memory_is_used_again_without_page_faults():
    plain_faults, _ = count_faults("plain")
    tuned_faults, message = count_faults("tuned")
    assert message == "allocator: freed memory is kept"
    assert tuned_faults < 20
    assert plain_faults > 5 * tuned_faults


def test_elsewhere_nothing_is_done_and_it_says_so():
    code = (
        "import platform; platform.libc_ver = lambda: ('', '')\n"
        "import ctypes; ctypes.CDLL = None\n"
        "from moebius.kit.allocator import tune_allocator\n"
        "print(tune_allocator())"
    )
    result = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert result.stdout == "allocator: left as it is, this is not glibc\n"
