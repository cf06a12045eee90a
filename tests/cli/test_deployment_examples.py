"""The units, manifests and image of docs/examples: what runs concil accepts them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_documented_commands import problem

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"
UNITS = sorted((EXAMPLES / "systemd").iterdir())
PROGRAM = "/opt/concil/bin/concil"
ANALYZE = shutil.which("systemd-analyze")


def manifests() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / "kubernetes.yaml").read_text()))


def pod_specs() -> Iterator[dict[str, Any]]:
    """Yield what the Deployment and the CronJob run."""
    for manifest in manifests():
        if manifest["kind"] == "Deployment":
            yield manifest["spec"]["template"]["spec"]
        elif manifest["kind"] == "CronJob":
            yield manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]


def unit_commands() -> Iterator[str]:
    for unit in UNITS:
        yield from re.findall(rf"^ExecStart={PROGRAM} (.*)$", unit.read_text(), re.MULTILINE)


def test_every_command_is_one_that_the_parser_accepts() -> None:
    commands = [shlex.split(line) for line in unit_commands()]
    commands += [spec["containers"][0]["args"] for spec in pod_specs()]

    assert len(commands) == 4
    assert [found for found in map(problem, commands) if found] == []


@pytest.mark.skipif(ANALYZE is None, reason="no systemd")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    assert ANALYZE is not None
    for unit in UNITS:  # the program has to exist
        (tmp_path / unit.name).write_text(unit.read_text().replace(PROGRAM, sys.executable))

    done = subprocess.run(
        [ANALYZE, "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    ours = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "concil" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_page_shows_the_units_as_they_are() -> None:
    page = (ROOT / "docs" / "how-to" / "systemd.md").read_text()

    assert [unit.name for unit in UNITS if unit.read_text() not in page] == []


def test_pods_have_no_rights_and_write_only_to_their_volumes() -> None:
    for spec in pod_specs():
        (container,) = spec["containers"]
        rights = container["securityContext"]
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}

        assert spec["securityContext"]["runAsNonRoot"] is True
        assert rights["readOnlyRootFilesystem"] is True
        assert rights["allowPrivilegeEscalation"] is False
        assert rights["capabilities"] == {"drop": ["ALL"]}
        assert set(mounts) == {volume["name"] for volume in spec["volumes"]}
        assert {name for name in mounts if not mounts[name].get("readOnly")} == {"state", "tmp"}
        assert mounts["state"]["mountPath"] == dockerfile_environment()["HOME"]


def test_files_that_a_command_names_are_mounted() -> None:
    plans = {key for each in manifests() if each["kind"] == "ConfigMap" for key in each["data"]}
    for spec in pod_specs():
        (container,) = spec["containers"]
        paths = [word.rpartition("=")[2] for word in container["args"]]
        mounted = [mount["mountPath"] for mount in container["volumeMounts"]]

        for path in filter(lambda word: word.startswith("/"), paths):
            assert any(path.startswith(f"{directory}/") for directory in mounted), path
        assert any(path == f"/etc/concil/{plan}" for path in paths for plan in plans)


def test_the_plan_of_the_manifest_is_one() -> None:
    (data,) = (each["data"] for each in manifests() if each["kind"] == "ConfigMap")

    assert tomllib.loads(data["plan.toml"])["mirror"]


def test_probes_ask_the_port_and_the_pages_that_there_are() -> None:
    (spec,) = (each for each in pod_specs() if "ports" in each["containers"][0])
    (container,) = spec["containers"]
    (address,) = (word for word in container["args"] if word.startswith("--http="))
    (port,) = container["ports"]

    assert address.endswith(f":{port['containerPort']}")
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("liveness", "readiness")}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    assert {probe["port"] for probe in probes.values()} == {port["name"]}


def dockerfile() -> list[tuple[str, str]]:
    """Return the instructions of the last stage."""
    text = (EXAMPLES / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.partition(" ") for line in text.splitlines() if line and line[0] != "#"]
    last = max(number for number, line in enumerate(lines) if line[0] == "FROM")
    return [(name, value.strip()) for name, _, value in lines[last:]]


def dockerfile_environment() -> dict[str, str]:
    pairs = (
        word.partition("=")
        for name, value in dockerfile()
        if name == "ENV"
        for word in value.split()
    )
    return {name: value for name, _, value in pairs}


def test_the_image_runs_concil_itself_as_an_ordinary_user_with_extras_that_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = re.search(r"'\.\[([\w,]+)\]'", (EXAMPLES / "Dockerfile").read_text())
    instructions = dict(dockerfile())

    assert installed is not None
    assert set(installed[1].split(",")) <= set(extras["optional-dependencies"])
    # A shell as process 1 would not pass SIGTERM on.
    assert instructions["ENTRYPOINT"] == '["concil"]'
    users = {str(spec["securityContext"]["runAsUser"]) for spec in pod_specs()}
    assert {instructions["USER"].partition(":")[0]} == users
