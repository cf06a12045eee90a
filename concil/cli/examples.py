"""Examples that begin the help of each verb."""

from __future__ import annotations

# By verb; the words after the program's name.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "copy": (
        "copy docker.io/library/alpine:3 registry.example/library/alpine:3",
        "copy --platform linux/arm64 quay.io/team/app:1 oci:images:app",
        "copy oci:images:app eu.example/team/app:1 us.example/team/app:1",
        "copy --all oci:images registry.example/team",
    ),
    "mirror": (
        "mirror images.txt registry.example/mirror --report report.html",
        "mirror plan.toml oci:images --dry-run",
        "mirror images.txt registry.example/mirror --retry-failed report.json",
        "mirror images.txt --dest north.example/mirror --dest south.example/mirror",
    ),
    "push": (
        "push model.bin registry.example/team/model:1 --artifact-type application/vnd.team.model",
        "push README.md:text/markdown data registry.example/team/data:1",
        "push - registry.example/team/backup:1",
    ),
    "pull": ("pull registry.example/team/model:1 -o models",),
    "attach": (
        "attach sbom.json --to registry.example/team/app:1 --artifact-type application/spdx+json",
    ),
    "referrers": (
        "referrers registry.example/team/app:1",
        "referrers --artifact-type application/spdx+json registry.example/team/app:1",
    ),
    "check": (
        "check images.txt registry.example/mirror",
        "check images.txt registry.example/mirror --deep --repair",
        "check oci:images --deep",
    ),
    "gc": ("gc oci:images", "gc oci:images --yes"),
    "blob": (
        "blob push model.bin registry.example/team/model",
        f"blob pull registry.example/team/model@sha256:{'4' * 64} -o model.bin",
        f"blob head registry.example/team/model@sha256:{'4' * 64}",
    ),
    "blob push": ("blob push model.bin registry.example/team/model",),
    "blob pull": (f"blob pull registry.example/team/model@sha256:{'4' * 64} -o model.bin",),
    "blob head": (f"blob head registry.example/team/model@sha256:{'4' * 64}",),
    "blob mount": (
        f"blob mount registry.example/team/model@sha256:{'4' * 64} registry.example/team/copy",
    ),
    "blob delete": (f"blob delete registry.example/team/model@sha256:{'4' * 64}",),
    "tags": ("tags registry.example/team/app", "tags oci:images"),
    "ls": ("ls registry.example", "ls registry.example/team/app", "ls -l oci:images"),
    "tag": ("tag registry.example/team/app:1.4.2 1.4 1 latest",),
    "tree": ("tree registry.example/team/app:1", "tree --format json oci:images:app"),
    "config": (
        "config docker.io/library/alpine:3",
        "config --platform linux/arm64 --format json docker.io/library/alpine:3",
        "config show",
    ),
    "diff": ("diff registry.example/team/app:1 mirror.example/team/app:1",),
    "du": ("du registry.example/team/app:1 registry.example/team/app:2", "du plan.toml"),
    "digest": (
        "digest docker.io/library/alpine:3",
        "digest --platform linux/arm64 docker.io/library/alpine:3",
    ),
    "manifest": (
        "manifest --platform linux/arm64 docker.io/library/alpine:3",
        "manifest push manifest.json registry.example/team/app:1",
    ),
    "inspect": (
        "inspect docker.io/library/alpine:3",
        "inspect --platform linux/arm64 docker.io/library/alpine:3",
    ),
    "delete": (
        "delete registry.example/team/app:old",
        "delete --tag-only registry.example/team/app:old",
    ),
    "login": (
        "login registry.example",
        "login -u alice --password-stdin registry.example/team",
    ),
    "logout": ("logout registry.example", "logout --all"),
    "transfers": ("transfers", "transfers forget --older-than 7d"),
    "transfers list": ("transfers list",),
    "transfers forget": ("transfers forget 3", "transfers forget --older-than 7d"),
    "serve": ("serve images", "serve images --addr 0.0.0.0:5000 --read-only"),
    "completion": ("completion bash",),
    "demo": ("demo",),
}


def format_examples(program: str) -> str:
    """Return the examples of a verb as the beginning of its help; "" if there are none.

    Args:
        program: the program and the verb, for example "concil copy".
    """
    examples = EXAMPLES.get(program.partition(" ")[2], ())
    if not examples:
        return ""
    return "".join(["examples:\n", *(f"  concil {example}\n" for example in examples), "\n"])
