"""A directory, and what oras 1.3.3 made of it: facts about the peer that needs no peer to run."""

from __future__ import annotations

import base64
import os
from pathlib import Path

TIME = 1_700_000_000
# The annotation io.deis.oras.content.digest of the directory.
CONTENT_DIGEST = "sha256:c466a8138a925050dd22d9f36c2500b1f7e22d15609eb63651fe5a7d1e02d35b"
# The blob itself, as Go's gzip compressed it.
BLOB = base64.b64decode(
    """
    H4sIAAAAAAAA/+xaZ1QrRRReu2LvXRewK8md2dkdRVERC1hR7H0hSxIIm5hdJBGx9967Yu+9YK/Ye++v9957
    PUmYA1lyHof3spOXk/nmx+zO7tmTnW+/7965k5awzwhJ7gIAgKqqBCk4+0STEFExoRQIIAkQYIokWWUPcBOt
    lq1HJQB2vrJgL8L6PEGSf29D2GwM+j1NVthkF7KIxIRohPSbop4eAGl9+AcJEFaBSDII/l3nv70kpMeNqFVS
    LuOOIjYqUChI6b9Wj1Ubus+IWh7w+qOGx47Z7A5JyrY0HD2AgnuPExJCWFOwJMfYA/JB/3kKrMkR3Q5UpL4D
    f7S7q7szSb/wgoLwAsZ7liU/yPiPHPEfaaoq4j+P+G+GzbLKuqqaGjYgUFBI6T+k24bllvyTkqCU9pNI5vVf
    Iv4TRKgk4zYj6A/Yllf31AdNoX839J8h/wuFTT+7nBU4p8bRA8bgzP8QVUX+xyP/Q4TIoaDZnEwC4zlHkfD/
    nPh/tiW/av5PgCpEkjH7KtyE8H+n/5vZhnNqHD1g1HucHFfE+p/X+h8paQUARhlvCN/n7Pus8aB9cPs/Cf0T
    FSli/4fL/s8Kwe5yuf4Dajr/KhCK87z+k1s/Zb9qQFiRUNC1hb9oq31LfabRVtNjBdgY9/1/hNP1j5AKiqj/
    8qj/lhZ764Om1wqIDCxHGVhuW0r/PYVWNshb/878DyFKsMj/uOR/ffl3qdA+QP6HSD/+McWa8H8e/i+tseZa
    a6+z7nrrb1C04UYbb7LpZptvseVWW2+z7Xbb77DjTjvvsqtcXFK62+577LnX3vvsu1+ZxwsIK0TV6P4HlB94
    UMXBhxxaeVjV4UcceVR1zdHHHHvc8SfUnnhS3cmnnHra6WecedbZ55x73vl6fYPPaPQHgk3NoRYzHLkgatmt
    F7bF4he1X9xxyaWXXX7FlVddfc21111/w4033XzLrbfdfsedd919z7333f/Agw89/Ejno489/sSTTz39zLPP
    Pf/Ciy+9/Mqrr73+xptvdb39zrvvvf/Bhx99/Mmnn3V//sWXX339zbffff/Djz/9/Muvv/3+x59//f3Pv//9
    P2TosOEjRo4aPWbsuPETJk6aPGXqtOkzZs6aPWfuvPkLFi5avGTpMvH+Bf7+TAcFHv+T8d9rtETsOLvEy/8z
    xH8FKAj/5+H/Ger/sWzDOTWOHjB2/P9PIQpQUf/nUv8nafV/RlnuINahXNehPGgf0P+Rw/8VTdGE/3PxfyNm
    G6bP8LFzAQEBAYHCwPIBAMlmx3AAOgAA
    """
)


def make_model(root: Path) -> None:
    """Create the directory: links, empty files, and names that need every kind of header."""
    root.mkdir(parents=True)
    (root / "config.json").write_bytes(b'{"layers": 2}\n')
    (root / "weights").mkdir()
    (root / "weights" / "a.bin").write_bytes(bytes(range(256)) * 3)
    (root / "weights" / "empty").write_bytes(b"")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "latest").symlink_to("weights/a.bin")
    (root / "größe.txt").write_text("non-ASCII")
    (root / ("n" * 120)).mkdir()
    (root / ("n" * 120) / ("m" * 30)).write_bytes(b"split")
    (root / ("x" * 130)).write_bytes(b"extended")
    (root / "long").symlink_to("y" * 130)
    for directory, directories, files in os.walk(root, topdown=False):
        for name in files + directories:
            path = Path(directory) / name
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or name == "run.sh" else 0o644)
            os.utime(path, (TIME, TIME), follow_symlinks=False)
    root.chmod(0o755)
    os.utime(root, (TIME, TIME + 0.6))


def tree_of(root: Path) -> dict[str, tuple[str, bytes, int, int]]:
    """What is below a directory: kind, content, mode and time of each name."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()), 0, 0)
        elif path.is_dir():
            found[name] = ("directory", b"", status.st_mode & 0o777, int(status.st_mtime))
        else:
            found[name] = ("file", path.read_bytes(), status.st_mode & 0o777, int(status.st_mtime))
    return found
