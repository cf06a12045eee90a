"""requests guesses encodings as ever, although the package for it is imported later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PATIENCE = 60.0  # seconds for a process that imports requests
DEFERRED = """
import sys
from concil.runtime.charset_detection import defer_charset_detection
with defer_charset_detection():
    import requests, requests.compat
"""
STOCK = "import sys, requests"
GUESS = """
response = requests.Response()
response._content = b"\\xc2\\xf1\\xe5\\xea\\xe8 \\xf7\\xee\\xe2\\xe5\\xea" * 9
print(response.apparent_encoding, ascii(response.text))
"""


def run(*source: str, path: Path | None = None) -> str:
    """Run a program in which every warning is an error, and return what it printed."""
    code = "\n".join(source)
    if path is not None:
        code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        timeout=PATIENCE,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def fake_package(directory: Path, name: str, **modules: str) -> None:
    package = directory / name
    package.mkdir()
    for module, source in modules.items():
        (package / f"{module}.py").write_text(source)


def test_encodings_are_guessed_as_by_stock_requests() -> None:
    guessed = run(DEFERRED, GUESS)

    assert guessed == run(STOCK, GUESS)
    assert not guessed.startswith(("None", "utf-8"))


@pytest.mark.parametrize(
    "statement",
    [
        "import charset_normalizer",
        "import charset_normalizer.api",
        "from charset_normalizer import from_bytes",
    ],
)
@pytest.mark.parametrize("is_within", [True, False])
def test_the_package_can_be_imported_at_any_time(statement: str, is_within: bool) -> None:
    indent = "    " if is_within else ""
    printed = run(
        DEFERRED + indent + statement,
        "import charset_normalizer",
        "assert charset_normalizer is sys.modules['charset_normalizer']",
        "print(charset_normalizer.from_bytes(b'text').best())",
        "assert charset_normalizer.detect is requests.compat.chardet.detect",
    )

    assert printed == "text\n"


def test_no_placeholder_remains() -> None:
    names = run(DEFERRED, "print(*(name for name in sys.modules if '.' not in name))").split()

    assert "requests" in names
    assert not {"chardet", "charset_normalizer"} & set(names)


def test_requests_that_was_imported_before_is_left_alone() -> None:
    assert run(STOCK, DEFERRED, "print('charset_normalizer' in sys.modules)") == "True\n"


def test_programs_that_import_concil_get_stock_requests() -> None:
    assert run("import sys, concil; concil.Engine; print('charset_normalizer' in sys.modules)") == (
        "True\n"
    )


def test_requests_prefers_chardet_as_ever(tmp_path: Path) -> None:
    fake_package(
        tmp_path,
        "chardet",
        __init__="from .version import __version__\ndef detect(data): return {'encoding': 'koi8'}",
        version="__version__ = '5.2.0'",
    )

    printed = run(
        DEFERRED,
        "print('chardet' in sys.modules)",
        "print(requests.compat.chardet.detect(b'')['encoding'], 'chardet' in sys.modules)",
        path=tmp_path,
    )

    assert printed == "False\nkoi8 True\n"


@pytest.mark.parametrize(
    "modules",
    [
        {"__init__": "__version__ = '5.2.0'"},
        {"__init__": "__version__ = '5.2.0'", "version": "number = 5"},
        {"__init__": "__version__ = '5.2.0'", "version": "from .missing import number"},
    ],
    ids=["none", "another name", "cannot be imported"],
)
def test_a_package_without_a_module_of_its_version_is_imported(
    tmp_path: Path, modules: dict[str, str]
) -> None:
    fake_package(tmp_path, "chardet", **modules)

    assert run(DEFERRED, "print('chardet' in sys.modules)", path=tmp_path) == "True\n"


def test_an_unsupported_version_is_reported_by_requests(tmp_path: Path) -> None:
    fake_package(tmp_path, "chardet", __init__="", version="__version__ = '99.0.0'")

    printed = run(
        "try:",
        "".join(f"    {line}\n" for line in DEFERRED.splitlines()),
        "except Warning as warning: print(type(warning).__name__)",
        path=tmp_path,
    )

    assert printed == "RequestsDependencyWarning\n"
