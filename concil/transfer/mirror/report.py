"""Items, outcomes and totals of a mirror."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import field, fields, replace

from concil.errors import ConcilError, NotTried
from concil.progress.destinations import DestinationTotals
from concil.progress.events import State
from concil.runtime import arguments
from concil.runtime.dataclass import dataclass
from concil.runtime.lru_dict import LruDict
from concil.runtime.redaction import without_user
from concil.transfer.blob.transfer import BlobResult
from concil.transfer.findings import Condition
from concil.transfer.image.job import ForeignLayers
from concil.transfer.image.result import ImageResult
from concil.transfer.signatures.verifier import ImageVerifier

_NAME_BY_STATE = {State.DONE: "copied", State.PRESENT: "present", State.WAITING: "would_copy"}

__all__ = ["BlobTotals", "MirrorItem", "MirrorReport", "Outcome", "combine"]

_MAX_BLOBS = 8192  # blobs that are not counted again when another image has them


@dataclass(frozen=True, slots=True)
class MirrorItem:
    """One image of a mirror, as addresses."""

    source: str
    destination: str
    platforms: tuple[str, ...] = ()
    referrers: bool = False  # copy signatures, attestations and SBOMs, too
    foreign_layers: ForeignLayers = ForeignLayers.SKIP
    immutable: bool = False  # once copied, it is never checked again
    recheck: bool = False  # check the content of an image that is up to date, too
    overwrite: bool = True  # False: an image at the destination stays as it is
    verifier: ImageVerifier | None = None  # accepts the image before it is copied
    # It is copied to these as well, and its blobs are read from the source once for all.
    more_destinations: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the types of the fields.

        Raises:
            TypeError: a field has another type; a string is not a sequence of platforms.
            UsageError: ``foreign_layers`` is not one of the choices.
        """
        arguments.check_str("source", self.source)
        arguments.check_str("destination", self.destination)
        object.__setattr__(self, "platforms", arguments.to_str_tuple("platforms", self.platforms))
        more = arguments.to_str_tuple("more_destinations", self.more_destinations)
        object.__setattr__(self, "more_destinations", more)
        foreign = ForeignLayers.parse("foreign_layers", self.foreign_layers)
        object.__setattr__(self, "foreign_layers", foreign)
        if self.verifier is not None and not callable(getattr(self.verifier, "verify", None)):
            raise arguments.type_error("verifier", "a TrustPolicy", self.verifier)

    def __str__(self) -> str:
        """Return the addresses, without users and passwords."""
        destinations = (self.destination, *self.more_destinations)
        return f"{without_user(self.source)} -> {', '.join(map(without_user, destinations))}"

    def split(self) -> list[MirrorItem]:
        """Return an item for each destination."""
        if not self.more_destinations:
            return [self]
        return [
            replace(self, destination=destination, more_destinations=())
            for destination in (self.destination, *self.more_destinations)
        ]

    def __repr__(self) -> str:
        """Return all fields, with addresses without users and passwords."""
        values = {item_field.name: getattr(self, item_field.name) for item_field in fields(self)}
        values |= {name: without_user(values[name]) for name in ("source", "destination")}
        values["more_destinations"] = tuple(map(without_user, self.more_destinations))
        return f"MirrorItem({', '.join(f'{name}={value!r}' for name, value in values.items())})"


def combine(items: Sequence[MirrorItem]) -> MirrorItem:
    """Return one item for several that differ in their destinations only."""
    return (
        items[0]
        if len(items) == 1
        else replace(items[0], more_destinations=tuple(item.destination for item in items[1:]))
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One image of a mirror with its result or error."""

    item: MirrorItem
    result: ImageResult | None = None
    error: ConcilError | None = None

    @property
    def name(self) -> str:
        """The outcome in one word, as in a report."""
        if isinstance(self.error, NotTried):
            return "not_tried"
        if self.error is not None or self.result is None:
            return "failed"
        if self.result.condition is not None:
            return str(self.result.condition)
        return _NAME_BY_STATE[self.result.state]


class BlobTotals:
    """Counts of blobs by state.

    Each blob counts once per destination, unless thousands of others came between two images
    that have it: only the most recent blobs are remembered.
    """

    def __init__(self, blobs: Iterable[BlobResult] = ()) -> None:
        """Start with the results in ``blobs``."""
        self.bytes_sent = 0  # bytes
        # By hash, because names would take ten times the memory.
        self._state_by_hash: LruDict[int, State] = LruDict(_MAX_BLOBS)
        self._forgotten: Counter[State] = Counter()
        self.add(blobs)

    def add(self, blobs: Iterable[BlobResult]) -> None:
        """Add the blobs of an image; one that was sent before does not count as present, too."""
        for result in blobs:
            self.bytes_sent += result.bytes_sent
            key = hash((result.destination, result.blob.digest))
            state = self._state_by_hash.use(key)
            if state is None or state is State.PRESENT:
                forgotten = self._state_by_hash.store(key, result.state)
                if forgotten is not None:
                    self._forgotten[forgotten[1]] += 1

    def count_by_state(self) -> Counter[State]:
        """Return the number of blobs in each state."""
        return self._forgotten + Counter(self._state_by_hash.values())


@dataclass(slots=True)
class MirrorReport:
    """The outcomes of a mirror or of its check, in the order in which images finished."""

    outcomes: list[Outcome] = field(default_factory=list)  # those that are kept
    image_count: int = 0  # finished images
    up_to_date_count: int = 0  # of the finished ones
    copied_count: int = 0  # of the finished ones; in a dry run: that would be copied
    missing_bytes: int = 0  # bytes that a dry run found missing at the destination
    blob_totals: BlobTotals = field(default_factory=BlobTotals)
    count_by_condition: Counter[Condition] = field(default_factory=Counter)  # of checked images
    destination_totals: DestinationTotals = field(default_factory=DestinationTotals)
    bytes_verified: int = 0  # bytes of blobs that a deep check has read
    bytes_verified_before: int = 0  # bytes that an interrupted check had read, and this one did not

    def add(self, outcome: Outcome, *, keep_outcome: bool) -> None:
        """Count an image, and keep its outcome if it failed.

        Args:
            keep_outcome: keep it in any case; memory then grows with every image.
        """
        self.image_count += 1
        result = outcome.result
        bytes_sent = 0 if result is None else result.bytes_sent
        self.destination_totals.add(outcome.item.destination, outcome.name, bytes_sent)
        if result is not None:
            is_present = result.state is State.PRESENT
            self.up_to_date_count += is_present
            self.copied_count += not is_present
            self.missing_bytes += result.missing_bytes
            self.blob_totals.add(result.blobs)
            if result.condition is not None:
                self.count_by_condition[result.condition] += 1
        if keep_outcome or result is None:
            self.outcomes.append(outcome)

    def results_in_state(self, state: State) -> list[ImageResult]:
        """Return the kept results in one state."""
        return [o.result for o in self.outcomes if o.result and o.result.state is state]

    @property
    def destinations(self) -> dict[str, Counter[str]]:
        """Numbers of images by outcome, and ``bytes_sent``, for each registry or local store."""
        return self.destination_totals.by_name()

    @property
    def copied(self) -> list[ImageResult]:
        """Images that were copied."""
        return self.results_in_state(State.DONE)

    @property
    def drift_count(self) -> int:
        """Number of checked images that are behind, missing or damaged, and were not repaired."""
        return self.count_by_condition.total() - self.count_by_condition[Condition.OK]

    @property
    def pending(self) -> list[ImageResult]:
        """Images that a dry run or check found to be out of date."""
        return self.results_in_state(State.WAITING)

    @property
    def present(self) -> list[ImageResult]:
        """Images that were up to date."""
        return self.results_in_state(State.PRESENT)

    @property
    def failed(self) -> list[Outcome]:
        """Images that could not be copied, or were not tried."""
        return [outcome for outcome in self.outcomes if outcome.error is not None]

    @property
    def skipped(self) -> list[Outcome]:
        """Failed images that were not tried because their host had denied access before."""
        return [outcome for outcome in self.failed if isinstance(outcome.error, NotTried)]

    @property
    def bytes_sent(self) -> int:
        """Bytes of blobs that were transferred."""
        return self.blob_totals.bytes_sent
