"""CopyMethods: the methods of Engine that copy one image, to one or several destinations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from concil.engine.components import EngineComponents
from concil.errors import UsageError
from concil.oci.address import parse_address
from concil.plan.target_names import address_key
from concil.runtime import arguments
from concil.runtime.cancellation import SupportsIsSet, call_scope
from concil.transfer.image.job import ForeignLayers
from concil.transfer.image.result import ImageResult
from concil.transfer.mirror.mirror import copy_image
from concil.transfer.mirror.report import MirrorItem, Outcome
from concil.transfer.signatures.verifier import ImageVerifier


class CopyMethods:
    """Copies single images; a base class of `Engine`."""

    _components: EngineComponents

    def copy(  # noqa: PLR0913 - each an option of its own
        self,
        source: str,
        destination: str,
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
        recheck: bool = False,
        overwrite: bool = True,
        verifier: ImageVerifier | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> ImageResult:
        """Copy one image with all or some of its platforms; digests are preserved.

        Args:
            source, destination: store addresses.
            platforms: ``os/architecture[/variant]`` each; empty: all.
            referrers: copy its signatures, attestations and SBOMs, and their own referrers.
            foreign_layers: "skip", "source" or "urls": whether to copy layers that must not
                be distributed, and from where.
            recheck: check the content of an image that is up to date, and copy what is missing.
            overwrite: False: leave a destination that exists as it is, whatever it is.
            verifier: a `TrustPolicy`, which accepts the image by its signatures; None: it is not
                verified.
            cancel: when set, cancels this call only.
        Raises:
            NotFound: the source has no such image or platform.
            UntrustedImage: it has no signature that the verifier accepts; nothing was written.
            Cancelled: the call was cancelled; copy again to resume.
        """
        foreign_choice = ForeignLayers.parse("foreign_layers", foreign_layers)
        platform_names = arguments.to_str_tuple("platforms", platforms)
        item = MirrorItem(
            source,
            destination,
            platform_names,
            referrers,
            foreign_choice,
            recheck=recheck,
            overwrite=overwrite,
            verifier=verifier,
        )
        self._components.store_factory.forget_tags()
        with self._components.archive_call(cancel) as archives:
            result = self._components.copier.copy(self._components.create_job(item, archives))
            archives.commit(strict=True)
            return result

    def copy_to(  # noqa: PLR0913 - each an option of its own
        self,
        source: str,
        destinations: Iterable[str],
        *,
        platforms: Sequence[str] = (),
        referrers: bool = False,
        foreign_layers: ForeignLayers | str = ForeignLayers.SKIP,
        recheck: bool = False,
        overwrite: bool = True,
        verifier: ImageVerifier | None = None,
        cancel: SupportsIsSet | None = None,
    ) -> tuple[Outcome, ...]:
        """Copy one image to several destinations at the same time, reading each blob once.

        Each destination resumes, pauses, retries and fails on its own. One that is slower than
        the others reads from a spool (`TransferConfig.spool_size`); repositories of one registry
        mount the blobs from one another.

        Args: as `copy`.
        Returns:
            An outcome for each destination, in their order: a result, or an error.
        Raises:
            UsageError: there is no destination, or two are the same; nothing was copied.
            Cancelled: the call was cancelled; copy again to resume.
        """
        foreign_choice = ForeignLayers.parse("foreign_layers", foreign_layers)
        platform_names = arguments.to_str_tuple("platforms", platforms)
        items = [
            MirrorItem(
                source,
                destination,
                platform_names,
                referrers,
                foreign_choice,
                recheck=recheck,
                overwrite=overwrite,
                verifier=verifier,
            )
            for destination in arguments.to_str_tuple("destinations", destinations)
        ]
        _check_destinations(items)
        self._components.store_factory.forget_tags()
        from concil.engine.copies.several import copy_to_several  # noqa: PLC0415  # rare

        with call_scope(cancel) as scope:
            return copy_to_several(self._components, items, scope)

    def copy_item(self, item: MirrorItem, *, cancel: SupportsIsSet | None = None) -> ImageResult:
        """Copy one item of a mirror whose list the caller manages. Raises as `copy`.

        Raises:
            UsageError: it has several destinations, which `mirror` copies to.
        """
        if item.more_destinations:
            raise UsageError(
                f"{item} has several destinations", remedy="use mirror, or copy_item for each"
            )
        with call_scope(cancel):
            return copy_image(self._components.copier, self._components.create_job(item))


def _check_destinations(items: Sequence[MirrorItem]) -> None:
    """Raise UsageError unless there are destinations, and all are different."""
    if not items:
        raise UsageError("there is no destination", remedy="give one or more")
    seen: set[tuple[str, ...]] = set()
    for item in items:
        address = parse_address(item.destination)
        key = address_key(address)
        if key in seen:
            raise UsageError(f"{address} is given twice", remedy="omit one of them")
        seen.add(key)
