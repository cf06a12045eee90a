"""`Plan` is what programs need of a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from concil import ConcilError, Engine, Journal, MirrorItem, Plan
from concil.errors import NotFound, UsageError
from tests.support.images import make_image, write_layout


class Listing:
    """Lists made-up repositories."""

    tags_by_repository: dict[str, list[str]]

    def __init__(self, **tags: list[str]) -> None:
        self.tags_by_repository = tags

    def list_tags(self, address: str, /) -> Iterator[str]:
        name = address.rpartition("/")[2]
        if name not in self.tags_by_repository:
            raise NotFound(f"there is no {name}")
        return iter(self.tags_by_repository[name])

    def list_repositories(self, registry: str, /) -> Iterator[str]:
        del registry
        return iter(self.tags_by_repository)

    def find_creation_times(
        self, address: str, tags: Sequence[str], platforms: Sequence[str], /
    ) -> list[float | None]:
        del address, platforms
        return [None for _ in tags]


def write(directory: Path, text: str, name: str = "plan.toml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_a_list_is_read(tmp_path: Path) -> None:
    plan = Plan.read(write(tmp_path, "quay.io/x/y:1\nquay.io/x/z:2 -> other:2\n", "list.txt"))

    items = plan.items(Listing(), "registry.example/mirror")

    assert items.is_static
    assert list(items) == [
        MirrorItem("quay.io/x/y:1", "registry.example/mirror/x/y:1"),
        MirrorItem("quay.io/x/z:2", "registry.example/mirror/other:2"),
    ]


def test_tags_are_listed_by_the_engine(tmp_path: Path) -> None:
    text = """
        [[mirror]]
        source = "quay.io/team/app"
        match = "v.*"
        [[mirror]]
        source = "quay.io/team/gone"
        match = ".*"
        """
    items = Plan.read(write(tmp_path, text)).items(
        Listing(app=["v1", "v2", "latest"]), "oci:images", platforms=["linux/amd64"], referrers=True
    )

    found = list(items)

    assert not items.is_static
    assert [item.source for item in found] == ["quay.io/team/app:v1", "quay.io/team/app:v2"]
    assert all(item.platforms == ("linux/amd64",) and item.referrers for item in found)
    ((name, error),) = items.failures
    assert (name, type(error)) == ("quay.io/team/gone", NotFound)


def test_limits_of_hosts_are_those_of_the_plan(tmp_path: Path) -> None:
    text = """
        [hosts."quay.io"]
        jobs = 2
        [[mirror]]
        source = "quay.io/team/app:1"
        """

    assert Plan.read(write(tmp_path, text)).host_limits["quay.io"].jobs == 2


@pytest.mark.parametrize(
    ("text", "name", "part"),
    [
        ("[[mirror]]\nsauce = 1\n", "plan.toml", "plan.toml"),
        ("a -> \n", "list.txt", "list.txt:1"),
        ("a -> x:1\nb -> x:1\n", "list.txt", "would both write"),
        ("quay.io/x\n", "list.txt", None),
    ],
)
def test_an_invalid_plan_is_refused_at_once(
    tmp_path: Path, text: str, name: str, part: str | None
) -> None:
    path = write(tmp_path, text, name)
    if part is None:
        assert len(list(Plan.read(path).items(Listing(), "oci:x"))) == 1
        return

    with pytest.raises(UsageError, match=part):
        Plan.read(path).items(Listing(), "oci:x")


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    plan = Plan.read(write(tmp_path, "quay.io/x/y:1\n", "list.txt"))

    with pytest.raises(TypeError, match="path"):
        Plan.read(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="destination"):
        plan.items(Listing(), 7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="platforms"):
        plan.items(Listing(), "oci:x", platforms="linux/amd64")
    with pytest.raises(ConcilError, match="linux"):
        plan.items(Listing(), "oci:x", platforms=["linux"])
    with pytest.raises(UsageError, match="no such file"):
        Plan.read(tmp_path / "none")


def test_a_plan_is_mirrored_and_checked(tmp_path: Path) -> None:
    write_layout(tmp_path / "source", {"app:1": make_image(1), "app:2": make_image(2)})
    text = f'[[mirror]]\nsource = "oci:{tmp_path}/source"\nmatch = ".*"\n'
    plan = Plan.read(write(tmp_path, text))
    with Engine(journal=Journal(None)) as engine:
        copied = engine.mirror(plan.items(engine, f"oci:{tmp_path}/copy"))
        checked = engine.check(plan.items(engine, f"oci:{tmp_path}/copy"), deep=True)

    assert copied.copied_count == 2
    assert (checked.image_count, checked.drift_count) == (2, 0)
