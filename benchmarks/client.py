"""The engine driven by hand, for settings that the command line does not offer."""

from __future__ import annotations

import sys

from concil.engine import Engine


def main(verb: str, source: str, destination: str) -> None:
    with Engine() as engine:
        if verb == "copy":
            engine.copy(source, destination)
        elif verb == "pull":
            engine.pull_blob(source, destination)
        else:
            engine.push_blob(source, destination)


if __name__ == "__main__":
    main(*sys.argv[1:4])
