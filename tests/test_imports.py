"""The import rule holds, and modules and functions stay short."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from tests.lab import arrows

PACKAGE = Path(__file__).parent.parent / "concil"
STANDARD = frozenset(sys.stdlib_module_names)


def package(directory: Path, sources: dict[str, str]) -> Path:
    root = directory / "concil"
    for name, source in sources.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))
    return root


def test_imports_go_downwards_only() -> None:
    assert arrows.forbidden_imports(PACKAGE, STANDARD) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert arrows.import_cycle(PACKAGE) == []


def test_sessions_are_built_in_one_module() -> None:
    assert arrows.foreign_sessions(PACKAGE) == []


def test_modules_and_functions_are_short() -> None:
    assert arrows.too_long(PACKAGE, module_lines=350, function_lines=60) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("errors.py", "from concil.content import Digest"),
        ("errors.py", "from .content import Digest"),
        ("errors.py", "from . import content"),
        ("errors.py", "import concil.cli"),
        ("content.py", "from concil.registry.client import RegistryClient"),
        ("registry/auth.py", "from concil.store import protocol"),
        ("registry/auth.py", "from ..store import protocol"),
        ("store/remote.py", "from concil.transfer.pool import WorkerPool"),
        ("transfer/push.py", "from concil.store.remote import Repository"),
        ("transfer/push.py", "from concil.store import Source"),
        ("transfer/push.py", "from concil.registry.client import RegistryClient"),
        ("transfer/push.py", "from concil.stores import open_store"),
        ("transfer/push.py", "import tenacity"),
        ("cli/copy.py", "from tqdm.auto import tqdm"),
        ("cli/copy.py", "import numpy"),
        ("engine.py", "import distributed"),
        ("engine.py", "from concil.cluster import driver"),
        ("dockerhub.py", "from concil.cli import main"),
        ("dockerhub.py", "from concil import DockerHub"),
        ("mislaid.py", "from concil import errors"),
        ("__init__.py", "from concil.cli import main"),
    ],
)
@pytest.mark.parametrize("guarded", [False, True])
def test_a_forbidden_import_is_found(
    tmp_path: Path, module: str, statement: str, guarded: bool
) -> None:
    wrapped = f"if TYPE_CHECKING:\n    {statement}\n" if guarded else f"{statement}\n"
    others = dict.fromkeys(("content.py", "errors.py", "store/protocol.py", "__init__.py"), "")
    root = package(tmp_path, others | {module: wrapped})

    assert len(arrows.forbidden_imports(root, STANDARD)) == 1


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("content.py", "from concil.errors import ConcilError"),
        ("content.py", "from concil import errors"),
        ("registry/http_session.py", "from concil import __version__"),
        ("transfer/push.py", "from concil.store.protocol import Destination"),
        ("transfer/push.py", "from concil.store import partial"),
        ("transfer/push.py", "from concil.retry import Retrier"),
        ("retry.py", "import tenacity"),
        ("bars.py", "from tqdm import tqdm"),
        ("stores.py", "from concil.store.remote import Repository"),
        ("dockerhub.py", "from concil.stores import open_store"),
        ("cli/copy.py", "from concil.transfer.engine import Engine"),
        ("cli/copy.py", "from . import options"),
        ("__init__.py", "from concil.dockerhub import DockerHub"),
        ("__main__.py", "from concil.cli import main"),
    ],
)
def test_an_allowed_import_is_let_through(tmp_path: Path, module: str, statement: str) -> None:
    others = dict.fromkeys(("errors.py", "store/partial.py", "cli/options.py"), "")
    root = package(tmp_path, others | {module: statement})

    assert arrows.forbidden_imports(root, STANDARD) == []


def test_a_circle_inside_a_layer_is_found(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        {
            "store/files.py": "from concil.store.layout import Layout",
            "store/layout.py": "from concil.store import files",
        },
    )

    assert set(arrows.import_cycle(root)) == {"concil.store.files", "concil.store.layout"}


@pytest.mark.parametrize(
    "source",
    [
        "import requests\nrequests.Session()",
        "import requests as http\nhttp.sessions.Session()",
        "from requests import Session\nSession()",
        "from requests.sessions import Session as S\nS()",
        "import requests\nrequests.get('http://localhost')",
        "import requests\nclass Mine(requests.Session): ...",
    ],
)
def test_a_session_built_elsewhere_is_found(tmp_path: Path, source: str) -> None:
    root = package(tmp_path, {"dockerhub.py": source, "registry/http_session.py": source})

    assert len(arrows.foreign_sessions(root)) == 1


def test_a_session_named_as_a_type_is_let_through(tmp_path: Path) -> None:
    source = """
        import requests

        def send(session: requests.Session) -> requests.Response:
            return session.get("http://localhost")
        """

    assert arrows.foreign_sessions(package(tmp_path, {"dockerhub.py": source})) == []


def test_long_modules_and_functions_are_found(tmp_path: Path) -> None:
    root = package(tmp_path, {"errors.py": "def long() -> None:\n" + "    pass\n" * 10})

    found = arrows.too_long(root, module_lines=10, function_lines=10)

    assert found == ["concil/errors.py: 11 lines", "concil/errors.py:1 long: 11 lines"]
