"""A wrong type is told by the name of the argument, before anything is asked or moved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from concil.auth.credentials.credentials import Credentials
from concil.config import HostLimits, RetryPolicy, Timeouts, TransferConfig
from concil.engine.engine import Engine
from concil.engine.image_resolver import Endpoints
from concil.engine.store_factory import EndpointOptions
from concil.errors import UsageError
from concil.http.requests_session import TLSSettings
from concil.transfer.mirror.report import MirrorItem

_LISTS = frozenset({"list_tags", "tags", "list_images", "list_repositories", "repositories"})
A, B = "http://127.0.0.1:9/a:1", "http://127.0.0.1:9/b:1"


def made(kind: Any, /, **given: Any) -> Callable[[Engine], object]:  # noqa: ANN401 - wrong ones
    return lambda _: kind(**given)


def asked(method: str, /, *given: Any, **more: Any) -> Callable[[Engine], object]:  # noqa: ANN401
    def ask(engine: Engine) -> object:
        found = getattr(engine, method)(*given, **more)
        return list(found) if method in _LISTS else found

    return ask


WRONG: dict[str, tuple[Callable[[Engine], object], str]] = {
    "push_blob of None": (asked("push_blob", None, A), "content"),
    "push_blob of a number": (asked("push_blob", 5, A), "content"),
    "push_blob to a path": (asked("push_blob", __file__, Path("x")), "repository"),
    "push_blob by bytes": (asked("push_blob", __file__, "x/y", digest=b"sha256:"), "digest"),
    "pull_blob": (asked("pull_blob", Path("x"), "y"), "address"),
    "pull_blob to None": (asked("pull_blob", f"{A}@sha256:{'0' * 64}", None), "target"),
    "open_blob": (asked("open_blob", 5), "address"),
    "mount_blob": (asked("mount_blob", Path("x"), B), "address"),
    "delete_blob": (asked("delete_blob", None), "address"),
    "push_files of a number": (asked("push_files", 5, A), "files"),
    "push_files of numbers": (asked("push_files", [5], A), "files"),
    "push_files to None": (asked("push_files", [__file__], None), "destination"),
    "attach to a path": (asked("attach", [__file__], Path("x"), "a/b"), "subject"),
    "attach without a type": (asked("attach", [__file__], A, None), "artifact_type"),
    "pull_files": (asked("pull_files", Path("x"), "y"), "address"),
    "pull_files to None": (asked("pull_files", A, None), "output"),
    "referrers": (asked("referrers", 5), "address"),
    "push_manifest": (asked("push_manifest", b"{}", 5), "destination"),
    "open_layer": (asked("open_layer", 5), "address"),
    "copy of a path": (asked("copy", Path("x"), B), "source"),
    "copy to None": (asked("copy", A, None), "destination"),
    "one platform": (asked("copy", A, B, platforms="linux/amd64"), "platforms"),
    "platforms of bytes": (asked("copy", A, B, platforms=b"linux"), "platforms"),
    "a number of platforms": (asked("copy", A, B, platforms=3), "platforms"),
    "platforms that are none": (asked("copy", A, B, platforms=[1]), "platforms"),
    "foreign_layers": (asked("copy", A, B, foreign_layers=True), "foreign_layers"),
    "mirror of a text": (asked("mirror", A), "items"),
    "mirror of one": (asked("mirror", MirrorItem(A, B)), "items"),
    "mirror of texts": (asked("mirror", [A]), "items"),
    "on_image": (asked("mirror", [], on_image="x"), "on_image"),
    "prune": (asked("prune", None, None), "repository"),
    "pruning": (asked("prune", A, {}), "pruning"),
    "tags": (asked("tags", None), "address"),
    "repositories": (asked("repositories", None), "registry"),
    "list_tags": (asked("list_tags", None), "address"),
    "listing": (asked("list_images", b"x"), "address"),
    "list_repositories": (asked("list_repositories", None), "registry"),
    "config": (made(Engine, config={}), "config"),
    "progress": (made(Engine, progress=True), "progress"),
    "sides": (made(Engine, endpoints=EndpointOptions()), "endpoints"),
    "timeouts": (made(Engine, timeouts=5), "timeouts"),
    "journal": (made(Engine, journal="x"), "journal"),
    "workers": (made(TransferConfig, workers="8"), "workers"),
    "workers of a bool": (made(TransferConfig, workers=True), "workers"),
    "chunk_size": (made(TransferConfig, chunk_size=1.5), "chunk_size"),
    "requests": (made(TransferConfig, requests="20/s"), "requests"),
    "hosts": (made(TransferConfig, host_limits=["x"]), "host_limits"),
    "retry": (made(TransferConfig, retry=3), "retry"),
    "attempts": (made(RetryPolicy, max_attempts="3"), "max_attempts"),
    "base": (made(RetryPolicy, backoff_base=None), "backoff_base"),
    "jobs": (made(HostLimits, jobs="1"), "jobs"),
    "idle": (made(Timeouts, idle="60"), "idle"),
    "source of an item": (made(MirrorItem, source=Path("x"), destination=B), "source"),
    "platforms of an item": (
        made(MirrorItem, source=A, destination=B, platforms="linux/amd64"),
        "platforms",
    ),
    "tls of an access": (made(EndpointOptions, tls={"verify": False}), "tls"),
    "credentials": (made(EndpointOptions, credentials="me:secret"), "credentials"),
    "authfile": (made(EndpointOptions, authfile=5), "authfile"),
    "a side": (made(Endpoints, source=TLSSettings()), "source"),
    "password": (made(Credentials, username="me", password=b"x"), "password"),
    "username": (made(Credentials, username=None, password="x"), "username"),
    "verify": (made(TLSSettings, verify=None.__class__), "verify"),
    "cert": (made(TLSSettings, cert=5), "cert"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_wrong_type_is_an_error_that_names_the_argument(engine: Engine, name: str) -> None:
    call, argument = WRONG[name]

    with pytest.raises(TypeError, match=rf"^{argument} must be .*, not ") as excinfo:
        call(engine)

    assert "secret" not in str(excinfo.value)


def test_another_choice_of_foreign_layers_names_the_choices(engine: Engine) -> None:
    with pytest.raises(UsageError, match="foreign_layers: not one of skip, source, urls: 'all'"):
        engine.copy(A, B, foreign_layers="all")


def test_what_may_be_given_in_several_forms_is_the_same() -> None:
    path = Path("/etc/ca.pem")
    assert TLSSettings(verify=path, cert=(path, path)) == TLSSettings(  # type: ignore[arg-type]
        verify=str(path), cert=(str(path), str(path))
    )
    assert EndpointOptions(authfile=path).authfile == str(path)  # type: ignore[arg-type]
    given: Any = ["linux/amd64"]
    assert MirrorItem(A, B, given).platforms == ("linux/amd64",)
