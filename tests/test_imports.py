"""The import rule holds, and modules and functions stay short."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

import pytest

from tests.support import import_rules

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
    assert import_rules.forbidden_imports(PACKAGE, STANDARD) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert import_rules.import_cycle(PACKAGE) == []


def test_sessions_are_built_in_one_module() -> None:
    assert import_rules.find_session_construction(PACKAGE) == []


def test_modules_and_functions_are_short() -> None:
    assert import_rules.find_oversized(PACKAGE, module_lines=350, function_lines=60) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("errors.py", "from concil.oci.manifest import Manifest"),
        ("errors.py", "from .oci.manifest import Manifest"),
        ("errors.py", "from .oci import manifest"),
        ("errors.py", "import concil.cli"),
        ("oci/manifest.py", "from concil.registry.client import RegistryClient"),
        ("fs/partial_file.py", "from concil.ratelimit.schedule import Schedule"),
        ("http/transport.py", "from concil.auth.authenticator import Authenticator"),
        ("auth/authenticator.py", "from concil.store import protocols"),
        ("auth/authenticator.py", "from ..store import protocols"),
        ("auth/authenticator.py", "from concil.registry.client import RegistryClient"),
        ("store/registry/repository.py", "from concil.transfer.worker_pool import WorkerPool"),
        ("transfer/blob/push.py", "from concil.store.registry.repository import Repository"),
        ("transfer/blob/push.py", "from concil.store import Source"),
        ("transfer/blob/push.py", "from concil.registry.client import RegistryClient"),
        ("transfer/blob/push.py", "from concil.http.transport import Transport"),
        ("transfer/blob/push.py", "from concil.engine.store_factory import open_store"),
        ("transfer/blob/push.py", "from concil.transfer.image.job import ImageJob"),
        ("transfer/image/copier.py", "from concil.transfer.mirror.mirror import Mirror"),
        ("transfer/context.py", "from concil.transfer.blob.push import BlobUpload"),
        ("transfer/blob/push.py", "import tenacity"),
        ("cli/commands/copy.py", "from tqdm.auto import tqdm"),
        ("cli/commands/copy.py", "import numpy"),
        ("engine/engine.py", "import distributed"),
        ("engine/engine.py", "from concil.cluster import driver"),
        ("report/timeline.py", "from concil.display.bars import BarView"),
        ("server/router.py", "from concil.dockerhub import DockerHub"),
        ("dockerhub/client.py", "from concil.cli.main import main"),
        ("dockerhub/client.py", "from concil import DockerHub"),
        ("mislaid.py", "from concil import errors"),
        ("__init__.py", "from concil.cli.main import main"),
    ],
)
@pytest.mark.parametrize("guarded", [False, True])
def test_a_forbidden_import_is_found(
    tmp_path: Path, module: str, statement: str, guarded: bool
) -> None:
    wrapped = f"if TYPE_CHECKING:\n    {statement}\n" if guarded else f"{statement}\n"
    others = dict.fromkeys(
        ("oci/manifest.py", "errors.py", "store/protocols.py", "__init__.py"), ""
    )
    root = package(tmp_path, others | {module: wrapped})

    assert len(import_rules.forbidden_imports(root, STANDARD)) == 1


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("oci/manifest.py", "from concil.errors import ConcilError"),
        ("oci/manifest.py", "from concil import errors"),
        ("http/requests_session.py", "from concil import __version__"),
        ("auth/authenticator.py", "from concil.http.transport import Transport"),
        ("transfer/blob/push.py", "from concil.store.protocols import Destination"),
        ("transfer/blob/push.py", "from concil.store import protocols"),
        ("transfer/blob/push.py", "from concil.transfer.context import TransferContext"),
        ("transfer/blob/push.py", "from concil.retry import ProgressRetry"),
        ("transfer/image/copier.py", "from concil.transfer.blob.push import BlobUpload"),
        ("transfer/mirror/mirror.py", "from concil.transfer.image.copier import ImageCopier"),
        ("retry.py", "import tenacity"),
        ("display/bars.py", "from tqdm import tqdm"),
        ("engine/store_factory.py", "from concil.store.registry.repository import Repository"),
        ("dockerhub/client.py", "from concil.engine.store_factory import open_store"),
        ("cli/commands/copy.py", "from concil.engine.engine import Engine"),
        ("cli/commands/copy.py", "from ..options import common"),
        ("__init__.py", "from concil.dockerhub.client import DockerHub"),
        ("__main__.py", "from concil.cli.main import main"),
    ],
)
def test_an_allowed_import_is_let_through(tmp_path: Path, module: str, statement: str) -> None:
    others = dict.fromkeys(("errors.py", "store/protocols.py", "cli/options/common.py"), "")
    root = package(tmp_path, others | {module: statement})

    assert import_rules.forbidden_imports(root, STANDARD) == []


def test_a_circle_inside_a_layer_is_found(tmp_path: Path) -> None:
    root = package(
        tmp_path,
        {
            "store/protocols.py": "from concil.store.layout.store import LayoutStore",
            "store/layout/store.py": "from concil.store import protocols",
        },
    )

    assert set(import_rules.import_cycle(root)) == {
        "concil.store.protocols",
        "concil.store.layout.store",
    }


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
    root = package(tmp_path, {"dockerhub/client.py": source, "http/requests_session.py": source})

    assert len(import_rules.find_session_construction(root)) == 1


def test_a_session_named_as_a_type_is_let_through(tmp_path: Path) -> None:
    source = """
        import requests

        def send(session: requests.Session) -> requests.Response:
            return session.get("http://localhost")
        """

    assert (
        import_rules.find_session_construction(package(tmp_path, {"dockerhub/client.py": source}))
        == []
    )


def test_long_modules_and_functions_are_found(tmp_path: Path) -> None:
    root = package(tmp_path, {"errors.py": "def long() -> None:\n" + "    pass\n" * 10})

    found = import_rules.find_oversized(root, module_lines=10, function_lines=10)

    assert found == ["concil/errors.py: 11 lines", "concil/errors.py:1 long: 11 lines"]
