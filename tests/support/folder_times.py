"""Prints how many seconds the tests of each folder took: the numbers of CONTRIBUTING.md.

``pytest --junit-xml results.xml`` writes what it reads. The seconds of parallel workers are added.
"""

from __future__ import annotations

import collections
import sys
import xml.etree.ElementTree as ET


def seconds_of_folders(results: str) -> dict[str, float]:
    """Return the seconds of set-up, call and tear-down, by folder or file of `tests/`."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for case in ET.parse(results).getroot().iter("testcase"):
        _, name, *rest = str(case.get("classname")).split(".")
        seconds[f"{name}/" if rest else f"{name}.py"] += float(case.get("time", "0"))
    return dict(seconds)


if __name__ == "__main__":
    for name, seconds in sorted(seconds_of_folders(sys.argv[1]).items()):
        print(f"{seconds:8.1f} {name}")
