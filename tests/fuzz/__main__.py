"""`python -m tests.fuzz`: every parser gets so many bytes, guided by atheris where it is there."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

LONGEST = 4096  # bytes of one input
SLOW = 5.0  # seconds that no input may take


def main() -> int:
    """Run each target in a process of its own: libFuzzer ends the one it runs in."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="default: all")
    parser.add_argument("--bytes", type=int, default=10_000_000, help="for each target")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 2**31))
    parser.add_argument("--random", action="store_true", help="by chance, also with atheris")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    guided = not options.random and importlib.util.find_spec("atheris") is not None
    if options.here:
        [name] = options.targets
        module = _targets(guided=guided)
        count = Counter(name, module.TARGETS[name], options.bytes)
        chance = random.Random(options.seed)
        inputs = _inputs(module.SEEDS[name], module.WORDS, chance)
        _guided(count, inputs, options.seed) if guided else _by_chance(count, inputs)
        return 0
    known = list(_targets(guided=False).TARGETS)
    names = options.targets or known
    if not set(names) <= set(known):
        parser.error(f"the targets are {', '.join(known)}")
    failed = 0
    for name in names:
        print(f"{name}: {'atheris' if guided else 'random'}, seed {options.seed}", flush=True)
        words = [name, f"--bytes={options.bytes}", f"--seed={options.seed}", "--here"]
        words += ["--random"] if options.random else []
        done = subprocess.run([sys.executable, "-m", "tests.fuzz", *words], check=False)
        failed += done.returncode != 0
    return 1 if failed else 0


def _targets(*, guided: bool) -> Any:  # noqa: ANN401 - a module
    """The module of the targets; with what it imports prepared for atheris, and no more."""
    if not guided:
        return importlib.import_module("tests.fuzz.targets")
    import atheris  # noqa: PLC0415 - an option

    with atheris.instrument_imports(include=["concil", "tests.fuzz.targets"]):
        return importlib.import_module("tests.fuzz.targets")


class Counter:
    """Runs one target, and ends the process when it has had its bytes."""

    def __init__(self, name: str, target: Callable[[bytes], None], wanted: int) -> None:
        self.name = name
        self.target = target
        self.wanted = wanted
        self.got = self.runs = 0
        self.slowest = 0.0  # seconds
        self.began = time.monotonic()

    def __call__(self, content: bytes) -> None:
        began = time.perf_counter()
        try:
            self.target(content)
        except BaseException:
            print(f"{self.name}: {content!r}", flush=True)
            raise
        took = time.perf_counter() - began
        self.slowest = max(self.slowest, took)
        assert took < SLOW, f"{self.name}: {took:.1f} s for {content!r}"
        self.runs += 1
        self.got += len(content)

    @property
    def enough(self) -> bool:
        """Whether it has had its bytes."""
        return self.got >= self.wanted

    def tell(self) -> None:
        """Say what was done."""
        took = time.monotonic() - self.began
        print(
            f"{self.name}: {self.got} bytes in {self.runs} inputs, {took:.0f} s, "
            f"the slowest {self.slowest * 1000:.1f} ms; nothing unexpected",
            flush=True,
        )


def _guided(count: Counter, inputs: Iterator[bytes], seed: int) -> None:
    import atheris  # noqa: PLC0415 - an option

    chance = random.Random(seed)

    def run(content: bytes) -> None:
        count(content)
        # Without a corpus libFuzzer begins with short inputs, and takes long to longer ones.
        count(_mixed(next(inputs), content, chance))
        if count.enough:
            count.tell()
            os._exit(0)  # libFuzzer knows no other end than a failure

    atheris.Setup([sys.argv[0], f"-seed={seed}", f"-max_len={LONGEST}", "-verbosity=0"], run)
    atheris.Fuzz()


def _by_chance(count: Counter, inputs: Iterator[bytes]) -> None:
    for content in inputs:
        count(content)
        if count.enough:
            break
    count.tell()


def _inputs(
    seeds: tuple[str, ...], vocabulary: tuple[str, ...], chance: random.Random
) -> Iterator[bytes]:
    """Seeds with pieces cut out, doubled, replaced and put in, for ever."""
    words = [word.encode("latin-1") for word in vocabulary]
    begun = [seed.encode("latin-1") for seed in seeds]
    while True:
        content = bytearray(chance.choice(begun) if chance.random() < 0.9 else b"")
        for _ in range(chance.randrange(1, 12)):
            at = chance.randrange(len(content) + 1)
            upto = min(len(content), at + chance.choice((0, 1, 1, 2, 8, 64)))
            piece = chance.choice(
                (
                    b"",
                    chance.choice(words),
                    bytes(chance.randrange(256) for _ in range(chance.randrange(4))),
                    bytes(content[at:upto]) * chance.choice((2, 3, 40)),
                )
            )
            content[at:upto] = piece
        yield bytes(content[:LONGEST])


def _mixed(content: bytes, other: bytes, chance: random.Random) -> bytes:
    """What chance made, with what coverage asked for put in."""
    at = chance.randrange(len(content) + 1)
    return (content[:at] + other + content[at:])[:LONGEST]


if __name__ == "__main__":
    sys.exit(main())
