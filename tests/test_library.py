"""What a program gets from concil: names, types, remedies, and no noise."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

import concil
from concil import dockerhub as client
from concil.cli.output import errors as failures
from concil.dockerhub import DockerHub, DockerPath, ResponseStream
from concil.engine.engine import Engine
from concil.errors import (
    AccessDenied,
    Cancelled,
    ConcilError,
    ConnectionLost,
    DigestMismatch,
    NotFound,
    RegistryDenied,
    RegistryNotFound,
    RegistryQuotaExceeded,
    SessionLost,
    SizeMismatch,
    StatusError,
    StoreError,
    TLSFailure,
    Unreachable,
    UsageError,
)

PACKAGE = Path(concil.__file__).parent
# Of concil's own: for the workers of concil.cluster, for the command line's summary, and for
# the engine.
INTERNAL = {"set_blob_starter", "blob_totals", "destination_totals", "options_for"}


# Names and types -----------------------------------------------------------------------------


def test_every_name_is_there() -> None:
    for name in concil.__all__:
        assert getattr(concil, name) is not None
        assert name in dir(concil)
    with pytest.raises(AttributeError, match="AnyTypo"):
        _ = concil.AnyTypo  # type: ignore[attr-defined]


# Programs, and what a checker finds wrong in each.
CHECKED: list[tuple[str, list[str]]] = [
    ("from concil import AnyTypo", ['"AnyTypo"']),
    ("import concil\nconcil.AnyTypo", ['"AnyTypo"']),
    ("from concil.dockerhub import DockerHubb", ['"DockerHubb"']),
    (f"from concil import {', '.join(concil.__all__)}", []),
    (
        "from concil import DockerHub, Engine\n"  # noqa: ISC004 - one program
        "hub: DockerHub = DockerHub('docker://x/y', timeout=(3.05, 27), retry=3)\n"
        "with hub.open_layer('sha256:') as layer:\n"
        "    names: list[str] = layer.getnames()\n"
        "with hub.open_blob('sha256:') as response:\n"
        "    is_right: bool = response.verified\n"
        "Engine().push_blob('x', 'y', digest='sha256:')",
        [],
    ),
    (
        "from concil import DockerHub\nDockerHub('docker://x/y').open_blob(5)",
        ['incompatible type "int"'],
    ),
]


@pytest.mark.process
def test_a_checker_sees_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    """One run for all programs: it reads concil, which takes most of the time."""
    for number, (snippet, _) in enumerate(CHECKED):
        (tmp_path / f"snippet_{number}.py").write_text(snippet + "\n")
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nstrict = true\n[mypy-concil.*]\nfollow_imports = silent\n")

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, "--no-error-summary",
         *sorted(tmp_path.glob("*.py"))],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout + done.stderr
    for number, (snippet, errors) in enumerate(CHECKED):
        name = f"snippet_{number}.py:"
        found = [line for line in done.stdout.splitlines() if line.startswith(name)]
        assert bool(found) == bool(errors), (snippet, done.stdout)
        for error in errors:
            assert any(error in line for line in found), (snippet, found)


def of_concil(hint: object) -> Iterator[type]:
    """The classes of concil in an annotation."""
    if isinstance(hint, (list, tuple)):  # the arguments of a Callable
        for each in hint:
            yield from of_concil(each)
    elif inspect.isclass(hint) and not typing.get_origin(hint):
        if hint.__module__.startswith("concil"):
            yield hint
    else:
        yield from of_concil(typing.get_args(hint))


def hints_of(kind: type) -> Iterator[tuple[str, object]]:
    """The annotations of what is public in a class."""
    is_data = dataclasses.is_dataclass(kind)
    if is_data:
        for name, hint in typing.get_type_hints(kind).items():
            if name not in INTERNAL:
                yield f"{kind.__name__}.{name}", hint
    for name, member in inspect.getmembers(kind):
        function = member.fget if isinstance(member, property) else member
        ours = (getattr(function, "__module__", None) or "").startswith("concil")
        public = (name == "__init__" and not is_data) or not name.startswith("_")
        if public and ours and name not in INTERNAL and inspect.isroutine(function):
            for argument, hint in typing.get_type_hints(function).items():
                yield f"{kind.__name__}.{name}({argument})", hint


@pytest.mark.parametrize("kind", [Engine, DockerHub, DockerPath, ResponseStream])
def test_every_type_in_a_public_signature_is_exported(kind: type) -> None:
    exported = {id(getattr(concil, name)) for name in concil.__all__}
    exported |= {id(getattr(client, name)) for name in client.__all__}
    missing, seen, waiting = [], {kind}, [kind]
    while waiting:
        for where, hint in hints_of(waiting.pop()):
            for found in of_concil(hint):
                if id(found) not in exported:
                    missing.append(f"{where}: {found.__module__}.{found.__name__}")
                # What a caller fills in has fields with types of their own.
                if found not in seen and dataclasses.is_dataclass(found):
                    waiting.append(found)
                seen.add(found)

    assert missing == []


def test_what_is_exported_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "api.md").read_text()

    assert [name for name in concil.__all__ if not re.search(rf"\b{name}\b", text)] == []


# Logging -------------------------------------------------------------------------------------


def test_a_program_without_logging_sees_nothing() -> None:
    program = (
        "import logging, concil\n"
        "logging.getLogger('concil.retry').warning('heard')\n"
        "print(logging.getLogger('concil').handlers)"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    assert "NullHandler" in done.stdout


def test_a_package_that_runs_as_a_program_sees_nothing(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text(
        "import logging, concil\nlogging.getLogger('concil.retry').warning('heard')\n"
    )
    (tmp_path / "package" / "__main__.py").write_text("print('done')")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])

    done = subprocess.run(
        [sys.executable, "-m", "package"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )

    assert (done.stdout, done.stderr) == ("done\n", "")


def test_a_program_with_logging_sees_it(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("concil.retry").warning("heard")

    assert "heard" in caplog.text


# Errors --------------------------------------------------------------------------------------


def status(number: int, kind: type[StatusError] = StatusError) -> StatusError:
    response = requests.Response()
    response.status_code = number
    return kind(f"{number} Error", response=response)


def answered(error: Unreachable) -> Unreachable:
    error.has_answered_before = True
    return error


def cut(error: SizeMismatch) -> SizeMismatch:
    error.is_truncated = True
    return error


@pytest.mark.parametrize(
    ("error", "transient"),
    [
        (status(503), True),
        (status(500), True),
        (status(429), True),
        (status(408), True),
        (status(400), False),
        (status(404, RegistryNotFound), False),
        (status(401, RegistryDenied), False),
        (status(429, RegistryQuotaExceeded), False),
        (ConnectionLost("cut"), True),
        (Unreachable("a wrong name"), False),
        (answered(Unreachable("restarting")), True),
        (SessionLost("gone"), True),
        (cut(SizeMismatch("only 5 of 10")), True),
        (SizeMismatch("5 instead of 6"), False),
        (DigestMismatch("other bytes"), False),
        (TLSFailure("not trusted"), False),
        (AccessDenied("nobody to ask"), False),
        (NotFound("not there"), False),
        (StoreError("disk full"), False),
        (UsageError("nonsense"), False),
        (Cancelled("stopped"), False),
        (ConcilError("whatever"), False),
    ],
    ids=str,
)
def test_an_error_says_whether_another_try_is_worth_it(error: ConcilError, transient: bool) -> None:
    assert error.transient is transient


# Remedies ------------------------------------------------------------------------------------

LIBRARY = sorted(
    path
    for path in PACKAGE.rglob("*.py")
    if path.relative_to(PACKAGE).parts[0] not in ("cli", "cluster", "__main__.py")
)
OPTION = re.compile(r"(?<![\w-])--[a-z]")
PARAMETER = re.compile(r"(?<![-\w])[a-z_]+=(?!=)")


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a module that somebody may see: all but docstrings."""
    tree = ast.parse(path.read_text())
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if id(node) not in documentation and isinstance(node, ast.Constant):
            yield node.lineno, str(node.value)


def remedies_of(path: Path) -> Iterator[str]:
    """The remedies of a module, as far as they are constants."""
    for node in ast.walk(ast.parse(path.read_text())):
        values: list[ast.expr] = []
        if isinstance(node, ast.keyword) and node.arg == "remedy":
            values = [node.value]
        elif isinstance(node, ast.Assign):
            names = [getattr(each, "attr", getattr(each, "id", "")) for each in node.targets]
            values = [node.value] * any(
                name.lower().strip("_").startswith("remed") for name in names
            )
        for value in values:
            for each in ast.walk(value):
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield each.value


def test_the_library_speaks_of_no_option() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {text}"
        for path in LIBRARY
        for line, text in texts_of(path)
        if OPTION.search(text)
    ]

    assert found == []


def test_the_command_line_has_an_option_for_every_parameter_in_a_remedy() -> None:
    remedies = [text for path in LIBRARY for text in remedies_of(path)]
    named = [text for text in remedies if PARAMETER.search(text)]

    assert len(named) > 8
    assert [text for text in named if PARAMETER.search(failures.replace_parameters(text))] == []


def test_every_option_for_a_parameter_is_one() -> None:
    from concil.cli.argument_parser import create_parser  # noqa: PLC0415 - argparse's own, as the command line has it

    known: set[str] = set()
    waiting = [create_parser()]
    while waiting:
        for action in waiting.pop()._actions:
            known |= set(action.option_strings)
            if isinstance(action.choices, dict):
                waiting += list(action.choices.values())

    for option in failures.OPTION_BY_PARAMETER.values():
        assert re.split("[ =]", option)[0] in known


def test_a_remedy_names_the_parameter_and_the_option_where_each_belongs() -> None:
    error = TLSFailure(
        "no", remedy="give its CA with verify=FILE, or disable the check with verify=False"
    )

    assert (
        failures.describe_error(error)
        == "no; give its CA with --cacert FILE, or disable the check with --insecure"
    )
    assert "verify=False" in error.remedy
    assert (
        failures.replace_parameters("GET /x?referrers=True&workers=5")
        == "GET /x?referrers=True&workers=5"
    )
