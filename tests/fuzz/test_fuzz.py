"""A little of the fuzzing, by chance, with every run of the tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.fuzz.targets import SEEDS, TARGETS
from tests.support.scale import FULL

BYTES = 150_000 if FULL else 30_000  # of input for each parser

pytestmark = pytest.mark.process


@pytest.mark.parametrize("name", TARGETS)
def test_a_parser_raises_nothing_of_python_s_own(name: str) -> None:
    words = ["-m", "tests.fuzz", name, f"--bytes={BYTES}", "--random"]

    done = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=100, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_search_begins_with_is_taken(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed.encode("latin-1"))
