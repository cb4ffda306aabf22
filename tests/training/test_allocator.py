"""The allocator's setting: where it holds, that it is left to the user, and that it does what it is for."""

import json
import os
import subprocess
import sys

import pytest

from implicit_l2o.training import allocator, keep_freed_memory

FAULTS = """
import json, resource, sys, torch
from implicit_l2o.training import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "keep" else None
x = torch.ones(256, 2**16)  # 64 MiB: above the largest block that glibc keeps by itself
for _ in range(3):
    y = x + x
    del y
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    y = x + x
    del y
print(json.dumps([kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def page_faults(choice: str, **environment: str) -> tuple[bool | None, int]:
    """What the setting returned, and the pages that twenty temporaries of 64 MiB asked the system for."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    found = subprocess.run(
        [sys.executable, "-c", FAULTS, choice], capture_output=True, text=True, check=True, env=clean | environment
    )
    kept, faults = json.loads(found.stdout)
    return kept, faults


def test_large_temporaries_take_no_fresh_pages():
    # The heap may still grow by a block or two where a small allocation has split the free one, which depends on addresses
    # drawn at random (one process of four). The least of three: a busy machine takes pages back, to be asked for again.
    measured = [page_faults("keep") for _ in range(3)]
    if not measured[0][0]:
        pytest.skip("the C library has no mallopt")
    assert min(faults for _, faults in measured) < page_faults("leave")[1] / 5


def test_a_user_who_has_set_the_allocator_is_left_alone():
    assert page_faults("keep", MALLOC_MMAP_THRESHOLD_="131072")[0] is False


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.platform, "libc_ver", lambda: ("", ""))
    assert keep_freed_memory() is False
