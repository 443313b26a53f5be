"""What processors there are: those that this process may use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from engine.threads import processors, torch_threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_only_processors_that_were_granted_count() -> None:
    first = min(os.sched_getaffinity(0))
    told = f"import os, engine.threads; os.sched_setaffinity(0, {{{first}}}); print(engine.threads.processors())"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout == "1\n"
    assert processors() == len(os.sched_getaffinity(0))


def test_torch_has_its_threads_back() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        with torch_threads(None):
            assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
