"""Reads annotation files: JSON with the annotations of a manifest, its config and its files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from concil.errors import ConcilError, UsageError, safe_repr
from concil.fs.local_file import disk_error
from concil.oci.artifact import check_annotations
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.dataclass import dataclass
from concil.runtime.suggestions import did_you_mean

_MANIFEST, _CONFIG = "$manifest", "$config"
_MAX_SIZE = 4 << 20  # bytes; no manifest may be larger
_REMEDY = 'write {"$manifest": {"key": "value"}, "$config": {...}, "FILE": {...}}'


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """The annotations of an artifact, as `oras push --annotation-file` reads them.

    Source: oras, "How to use annotations", https://oras.land/docs/how_to_guides/manifest_annotations
    """

    manifest: Mapping[str, str]
    config: Mapping[str, str]
    files: Mapping[str, Mapping[str, str]]  # by the path of the file as given, or its title

    @classmethod
    def read(cls, path: Path) -> AnnotationFile:
        """Read a file.

        Raises:
            UsageError: it is not JSON of this form; the message names the key.
            StoreError: it cannot be read.
        """
        try:
            with path.open("rb") as file:
                content = file.read(_MAX_SIZE + 1)
        except OSError as error:
            raise disk_error("cannot read", path, error) from error
        if len(content) > _MAX_SIZE:
            raise UsageError(f"the annotation file {path} is larger than 4 MiB", remedy=_REMEDY)
        try:
            document = parse_json(content)
        except InvalidJSON as error:
            raise UsageError(f"{path}: {error}", remedy=_REMEDY) from error
        if not isinstance(document, dict):
            raise UsageError(f"{path} is not an annotation file", remedy=_REMEDY)
        tables = {key: _parse_table(path, key, value) for key, value in document.items()}
        manifest, config = tables.pop(_MANIFEST, {}), tables.pop(_CONFIG, {})
        return cls(manifest, config, tables)

    def check_names(self, names: Iterable[str]) -> str:
        """Return a warning about entries that belong to no file; "" if there are none."""
        known = set(names)
        unused = [name for name in self.files if name not in known]
        if not unused:
            return ""
        question = did_you_mean(unused[0], [*known, _MANIFEST, _CONFIG])
        listed = ", ".join(safe_repr(name) for name in unused[:3])
        return f"annotations that belong to no file are not used: {listed}; {question}".rstrip("; ")


def _parse_table(path: Path, key: str, value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {safe_repr(key)}: not an object", remedy=_REMEDY)
    try:
        return check_annotations(value)
    except ConcilError as error:
        raise UsageError(f"{path}: {safe_repr(key)}: {error}", remedy=error.remedy) from error
