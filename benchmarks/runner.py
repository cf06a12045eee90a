"""Runs the programs of a case in turns, checks what they moved, and counts their requests."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.bench import Bench, Case, Command
from benchmarks.measure import Measured, measure
from benchmarks.results import Result, is_floor

TIMEOUT = 1800  # seconds of one run


def run_case(name: str, case: Case, bench: Bench, rounds: int) -> Result:
    """Run every program once in each round, each time to an empty target."""
    commands = _present(case.commands(case.hosts), bench)
    runs: dict[str, list[Measured]] = {program: [] for program in commands}
    try:
        for number in range(rounds):
            for program in _in_turn(list(commands), number):
                measured = _run(case, bench, program, commands[program])
                runs[program].append(measured)
                line = f"{name} {number + 1}/{rounds} {program}: {measured.seconds:.2f} s"
                print(f"{line}, {measured.cpu:.2f} CPU s", file=sys.stderr)
        requests = _count(case, bench)
    finally:
        case.close()
    return Result(name, case.size, {key: tuple(value) for key, value in runs.items()}, requests)


def _present(commands: Mapping[str, Command], bench: Bench) -> dict[str, Command]:
    """The command lines of the programs that are on this machine."""
    return {
        program: command
        for program, command in commands.items()
        if program.split()[0] in bench.programs or program.startswith("python")
    }


def _in_turn(programs: list[str], number: int) -> list[str]:
    """The order of a round: no program always meets the warmer machine."""
    first = number % len(programs)
    return programs[first:] + programs[:first]


def _run(case: Case, bench: Bench, program: str, command: Command) -> Measured:
    case.reset()
    if not case.keeps_home:
        bench.forget()
    before = bench.served()
    measured, output = measure(command, bench.environment(), timeout=TIMEOUT)
    measured = replace(measured, served=bench.served() - before)
    case.check(program, output)
    return measured


def _count(case: Case, bench: Bench) -> dict[str, int]:
    """Run each program once more, to servers that count; the time does not matter there."""
    counts: dict[str, int] = {}
    if case.counting is None:
        return counts
    programs = [name for name in _present(case.commands(case.hosts), bench) if not is_floor(name)]
    for program in programs:
        with case.counting() as (hosts, requests):
            command = case.commands(hosts)[program]
            _run(case, bench, program, command)
            counts[program] = requests()
    return counts
