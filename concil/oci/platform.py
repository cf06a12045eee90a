"""Platforms: operating system, architecture and variant."""

from __future__ import annotations

from dataclasses import dataclass

from concil.errors import InvalidManifest, safe_repr

__all__ = ["Platform"]


@dataclass(frozen=True, slots=True)
class Platform:
    """The platform that an image in an index runs on.

    Source: image-spec, image-index, "platform".
    """

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Parse ``os/architecture[/variant]``, as on the command line.

        Raises:
            InvalidManifest: it has fewer than two or more than three parts, or an empty one.
        """
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InvalidManifest(
                f"not a platform: {safe_repr(text)}",
                remedy="write OS/ARCHITECTURE[/VARIANT], for example linux/amd64 or linux/arm/v7",
            )
        return cls(*parts)

    def __str__(self) -> str:
        """Return ``os/architecture[/variant]``."""
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def matches(self, requested: Platform) -> bool:
        """Return whether it matches a requested platform; a variant counts only if requested."""
        if (self.os, self.architecture) != (requested.os, requested.architecture):
            return False
        return not requested.variant or self.variant == requested.variant


def _parse_platform(entry: object) -> Platform | None:
    if not isinstance(entry, dict):
        return None
    return Platform(*(str(entry.get(name) or "") for name in ("os", "architecture", "variant")))
