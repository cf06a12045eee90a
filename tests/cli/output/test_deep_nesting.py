"""Documents that nest deep, from files and registries: one line that names them, no traceback."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from concil.cli.output.errors import ACCESS_DENIED, NOT_FOUND
from concil.errors import UsageError
from concil.oci.media_types import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from concil.plan.formats.go_template import render
from concil.plan.formats.toml_document import parse_document
from concil.plan.formats.yaml_nodes import load
from concil.plan.tag_filter import compile_pattern
from concil.server import EmbeddedRegistry, RegistryBehavior, Request, Response
from tests.cli.runner import Cli, assert_fails, assert_one_line
from tests.support.images import digest_of, make_image, put_image
from tests.support.scale import FULL
from tests.support.scripted_server import ScriptedResponse, ScriptedServer, reply

pytestmark = pytest.mark.slow

DEPTHS = (201, 490, 950, 100_000)  # beyond our limit; what Python reads and cannot write; beyond it
LISTS = [pytest.param(depth, id=str(depth)) for depth in DEPTHS]
TOO_DEEP = "nested too deeply"


def lists(depth: int) -> str:
    return "[" * depth + "]" * depth


def objects(depth: int) -> str:
    return '{"a":' * depth + "1" + "}" * depth


PLANS = {
    "source": "[[mirror]]\nsource = {}",
    "limits": '[hosts."a.example"]\njobs = {}',
    "hosts": "hosts = {}",
    "unknown": "[[mirror]]\nsource = 'a.example/b'\nother = {}",
}


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("part", PLANS)
def test_a_plan_in_toml(cli: Cli, tmp_path: Path, part: str, depth: int) -> None:
    path = tmp_path / "plan.toml"
    for value in (lists(depth), objects(depth).replace(":", "=")):
        path.write_text(PLANS[part].replace("{}", value))

        assert_fails(cli("mirror", path, f"oci:{tmp_path}/out"), 2, "plan.toml")
    if depth == DEPTHS[-1]:
        assert TOO_DEEP in cli("mirror", path, f"oci:{tmp_path}/out").err


@pytest.mark.parametrize(
    "text",
    [
        "[[mirror]]\nsource.{} = 1",
        "[hosts.{}]\njobs = 1",
        "[[mirror]]\nsource = {{} = 1}",
        '[hosts."x".{}]\njobs = 1',
    ],
)
def test_a_key_of_a_plan_in_toml(cli: Cli, tmp_path: Path, text: str) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text.replace("{}", " . ".join(["a"] * 100_000), 1))

    assert_fails(cli("mirror", path, f"oci:{tmp_path}/out"), 2, "plan.toml:", TOO_DEEP)


YAML = {
    "skopeo": "a.example:\n  images: {}\n",
    "skopeo images": "a.example:\n  images:\n    b: {}\n",
    "skopeo credentials": "a.example:\n  credentials: {}\n",
    "regsync": "sync: {}\n",
    "regsync creds": "creds: {}\n",
    "regsync source": "sync:\n- type: image\n  target: a.example/b\n  source: {}\n",
    "key": "? {}\n: 1\n",
}


@pytest.mark.parametrize("depth", [201, *([490] if FULL else []), 1100])  # 1100: beyond Python's
@pytest.mark.parametrize("part", YAML)
def test_a_plan_in_yaml(cli: Cli, tmp_path: Path, part: str, depth: int) -> None:
    path = tmp_path / "plan.yaml"
    for value in (lists(depth), objects(depth).replace(":", ": ")):
        path.write_text(YAML[part].replace("{}", value))

        result = cli("mirror", path, f"oci:{tmp_path}/out")

        assert_fails(result, 2, "plan.yaml:", *([TOO_DEEP] if depth == 1100 else []))


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (lambda text: parse_document(text, "plan.toml", ""), f"key = {lists(100_000)}"),
        (lambda text: load(text, "plan.yaml"), lists(1100)),
        (lambda text: render(text, {}), f"{{{{ {'(' * 5000} }}}}"),
        (compile_pattern, "(" * 5000 + ")" * 5000),
    ],
    ids=["TOML", "YAML", "template", "pattern"],
)
def test_no_finalizer_runs_at_the_limit_of_recursion(
    parse: Callable[[str], object], text: str
) -> None:
    depths: list[int] = []

    def record_depth(phase: str, _information: object) -> None:
        if phase == "start":
            frame, depth = sys._getframe(), 0
            while frame := frame.f_back:  # type: ignore[assignment]
                depth += 1
            depths.append(depth)

    first, *others = gc.get_threshold()
    gc.callbacks.append(record_depth)
    gc.set_threshold(20)
    try:
        gc.collect()
        with pytest.raises((UsageError, re.error)):
            parse(text)
        gc.collect()
    finally:
        gc.set_threshold(first, *others)
        gc.callbacks.remove(record_depth)

    assert depths
    assert max(depths) < min(depths) + 100


def test_a_key_in_yaml_is_a_text(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text("a: 1\n? [b]\n: 1\n")

    assert_fails(
        cli("mirror", path, f"oci:{tmp_path}/out"), 2, "plan.yaml:2: a key is not a string"
    )


PATTERNS = {
    "toml": "[[mirror]]\nsource = 'a.example/b'\nmatch = '{}'",
    "list.toml": "[[mirror]]\nsource = 'a.example/b'\nexclude = ['{}']",
    "yaml": "a.example:\n  images-by-tag-regex:\n    b: '{}'",
    "regsync.yaml": "sync:\n- {type: repository, source: a.example/b, target: b.example/c,"
    " tags: {allow: ['{}']}}",
}


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(" * 5000 + ")" * 5000, TOO_DEEP),
        ("a{99999999999999999999}", "too large"),
        ("(", "regular expression"),
    ],
    ids=["nested", "repeated", "open"],
)
def test_a_regular_expression(
    cli: Cli, tmp_path: Path, name: str, pattern: str, words: str
) -> None:
    path = tmp_path / f"plan.{name}"
    path.write_text(PATTERNS[name].replace("'{}'", f"'{pattern}'"))

    assert_fails(cli("mirror", path, f"oci:{tmp_path}/out"), 2, path.name, words)


def test_a_flag_in_one_of_several_regular_expressions(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(PATTERNS["regsync.yaml"].replace("{}'", "(?i)a', 'b'"))

    assert_fails(cli("mirror", path, f"oci:{tmp_path}/out"), 2, "plan.yaml:2", "flags")


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("option", ["--retry-failed", "--since"])
@pytest.mark.parametrize("part", ["{}", '{"images": [{"outcome": "failed", "source": {}}]}'])
def test_a_report(cli: Cli, tmp_path: Path, option: str, part: str, depth: int) -> None:
    (tmp_path / "list").write_text("a.example/b:1\n")
    report = tmp_path / "report.json"
    report.write_text(part.replace("{}", lists(depth)))

    result = cli("mirror", tmp_path / "list", f"oci:{tmp_path}/out", f"{option}={report}")

    assert_fails(result, 2, "report.json", TOO_DEEP)


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("part", ['{"auths": {"a.example": DEEP}}', '{"auths": {}, "other": DEEP}'])
def test_a_file_of_logins(cli: Cli, tmp_path: Path, part: str, depth: int) -> None:
    path = tmp_path / "auth.json"
    text = part.replace("DEEP", objects(depth))
    path.write_text(text)

    result = cli("tags", "127.0.0.1:1/a", "--authfile", path)
    gone = cli("logout", "a.example", "--authfile", path)

    for each in (result, gone):
        assert_fails(each, ACCESS_DENIED, "auth.json", TOO_DEEP)
    assert path.read_text() == text


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("part", ["oci-layout", "index.json", "manifest", "field", "config"])
def test_a_layout(cli: Cli, tmp_path: Path, part: str, depth: int) -> None:
    layout = tmp_path / "layout"
    digests = {}

    def blob(text: str) -> dict[str, object]:
        digest = hashlib.sha256(text.encode()).hexdigest()
        (layout / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (layout / "blobs/sha256" / digest).write_text(text)
        digests[text] = digest
        return {"digest": f"sha256:{digest}", "size": len(text)}

    deep = lists(depth)
    config = blob(deep if part == "config" else "{}") | {"mediaType": OCI_CONFIG}
    text = json.dumps({"schemaVersion": 2, "config": config, "layers": []})
    text = {"manifest": deep, "field": f'{text[:-1]}, "annotations": {deep}}}'}.get(part, text)
    notes = {"org.opencontainers.image.ref.name": "v1"}
    entry = blob(text) | {"mediaType": OCI_MANIFEST, "annotations": notes}
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]})
    files = {"oci-layout": '{"imageLayoutVersion": "1.0.0"}', "index.json": index}
    for name, content in files.items():
        (layout / name).write_text(deep if name == part else content)

    result = cli("inspect", f"oci:{layout}:v1")

    is_large = part == "oci-layout" and depth > 2000
    assert_fails(result, 1, "is larger than" if is_large else TOO_DEEP)


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("kind", [OCI_MANIFEST, OCI_INDEX])
def test_a_manifest_of_a_registry(
    cli: Cli, tmp_path: Path, scripted: ScriptedServer, kind: str, depth: int
) -> None:
    body = f'{{"schemaVersion": 2, "manifests": [], "layers": [], "x": {lists(depth)}}}'
    answer = reply(200, body, Content_Type=kind, Docker_Content_Digest=digest_of(body.encode()))
    scripted.respond("*", r"/v2/", reply(200, "{}"))
    scripted.respond("*", r"/v2/a/manifests/.*", answer)

    result = cli("copy", f"{scripted.url}/a:v1", f"oci:{tmp_path}/out:v1")

    assert_fails(result, 1, TOO_DEEP, "manifest v1")
    assert not [path for path in (tmp_path / "out/blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("depth", LISTS)
def test_a_list_of_tags(cli: Cli, scripted: ScriptedServer, depth: int) -> None:
    scripted.respond("*", r"/v2/", reply(200, "{}"))
    scripted.respond("GET", r"/v2/a/tags/list.*", reply(200, f'{{"tags": {lists(depth)}}}'))

    assert_fails(cli("tags", f"{scripted.url}/a"), 1, "the list of tags", TOO_DEEP)


@pytest.mark.parametrize("depth", LISTS)
def test_a_list_of_repositories(
    cli: Cli, tmp_path: Path, scripted: ScriptedServer, depth: int
) -> None:
    scripted.respond("*", r"/v2/", reply(200, "{}"))
    scripted.respond("GET", r"/v2/_catalog.*", reply(200, f'{{"repositories": {lists(depth)}}}'))

    host = scripted.url.removeprefix("http://")
    entry = f"{{type: registry, source: '{host}', target: b.example}}"
    plan = tmp_path / "plan.yaml"
    plan.write_text(f"creds: [{{registry: '{host}', tls: disabled}}]\nsync: [{entry}]\n")

    result = cli("mirror", plan)

    assert result.code == 1
    assert_one_line(result.err, "the list of repositories", TOO_DEEP)


class DeepReferrers(RegistryBehavior):
    """Lists referrers that nest."""

    def __init__(self, depth: int) -> None:
        self.depth = depth

    def before_request(self, request: Request) -> Response | None:
        if "/referrers/" not in request.path:
            return None
        body = f'{{"schemaVersion": 2, "manifests": {lists(self.depth)}}}'
        return Response(200, {"Content-Type": OCI_INDEX}, body.encode())


@pytest.mark.parametrize("depth", LISTS)
def test_a_list_of_referrers(cli: Cli, tmp_path: Path, depth: int) -> None:
    with EmbeddedRegistry(tmp_path / "from", behavior=DeepReferrers(depth)) as source:
        put_image(source.url, "a", "v1", make_image(1))
        result = cli("copy", "--referrers", f"{source.url}/a:v1", f"oci:{tmp_path}/out:v1")

    assert_fails(result, 1, "referrers", TOO_DEEP)


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_the_body_of_an_error(cli: Cli, scripted: ScriptedServer, status: int, depth: int) -> None:
    scripted.respond("*", r"/v2/", reply(200, "{}"))
    scripted.respond("GET", r"/v2/a/.*", reply(status, f'{{"errors": {lists(depth)}}}'))

    result = cli("tags", f"{scripted.url}/a", "--retry=0")

    assert_fails(result, {403: ACCESS_DENIED, 404: NOT_FOUND}.get(status, 1), str(status))
    assert len(result.err) < 1000


@pytest.mark.parametrize("depth", LISTS)
@pytest.mark.parametrize("status", [200, 401])
def test_the_answer_of_a_token_service(
    cli: Cli, scripted: ScriptedServer, status: int, depth: int
) -> None:
    challenge = (("WWW-Authenticate", f'Bearer realm="{scripted.url}/token",service="s"'),)
    scripted.respond("*", r"/v2/.*", ScriptedResponse(401, b"", challenge))
    scripted.respond("*", r"/token.*", reply(status, f'{{"token": {lists(depth)}}}'))

    assert_fails(
        cli("tags", f"{scripted.url}/a"),
        1 if depth > 40_000 and status == 200 else ACCESS_DENIED,
        "/token",
    )
