"""`python -m concil`."""

from __future__ import annotations

from concil.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
