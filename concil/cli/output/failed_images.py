"""Formats failures of many images: equal causes at one host are one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from concil.cli.output.errors import describe_error, replace_parameters, single_line
from concil.errors import ConcilError, NotFound, NotTried, StatusError
from concil.oci.address import parse_address
from concil.plan.expand import PlanExpansion
from concil.runtime.quantities import count_of
from concil.transfer.mirror.report import MirrorItem, MirrorReport

_MAX_NAMES = 3  # names of images in the line of a group


def failure_lines(
    report: MirrorReport,
    probes: Sequence[MirrorItem],
    hint: str = "",
    *,
    are_listed: bool = False,
) -> Iterator[str]:
    """Yield the lines of the failed images of a mirror, in the order of the plan.

    Images that failed for the same reason at the same host are one line. Images that do not exist
    are one line each, unless each image had a line before.

    Args:
        hint: how to copy them once the cause is gone.
        are_listed: each failed image had a line when it failed.
    """
    order = {item: position for position, item in enumerate(probes)}
    failed = sorted(report.failed, key=lambda o: order.get(o.item, len(order)))
    yield from group_lines(
        (
            (outcome.item, outcome.error)
            for outcome in failed
            if outcome.error is not None and not isinstance(outcome.error, NotTried)
        ),
        hint,
        are_listed=are_listed,
    )
    untried = Counter(o.error for o in report.skipped if o.error)
    for error, count in untried.items():
        yield single_line(
            f"concil: failed: {_were(count, 'more image')} not tried: {describe_error(error)}"
        )


def listing_failure_lines(expansion: PlanExpansion) -> Iterator[str]:
    """Yield a line for each repository that could not be listed."""
    for rule, error in expansion.failures:
        if not isinstance(error, NotTried):
            yield single_line(f"concil: failed: {rule.location}: {describe_error(error)}")
    untried = Counter(error for _, error in expansion.failures if isinstance(error, NotTried))
    for error, count in untried.items():
        yield single_line(
            f"concil: failed: {_were(count, 'more repository')} not tried: {describe_error(error)}"
        )


def group_lines(
    failures: Iterable[tuple[MirrorItem, ConcilError]], hint: str = "", *, are_listed: bool = False
) -> Iterator[str]:
    """Yield a line for each group of equal failures, in the order of the first of each group.

    Args:
        hint, are_listed: as for `failure_lines`.
    """
    groups: dict[object, list[tuple[MirrorItem, ConcilError]]] = {}
    for item, error in failures:
        groups.setdefault(_group_key(item, error, are_listed=are_listed), []).append((item, error))
    for group in groups.values():
        item, error = group[0]
        if len(group) == 1:
            names = str(parse_address(item.source))
            if item.source != item.destination:  # they are equal in a check without a source
                names += f" -> {parse_address(item.destination)}"
            yield single_line(f"concil: failed: {names}: {describe_error(error)}")
        else:
            # An image that fails at several destinations is named once.
            sources = dict.fromkeys(str(parse_address(item.source)) for item, _ in group)
            names = _join_names(list(sources))
            cause = _describe_cause([error for _, error in group])
            line = f"concil: failed: {len(group)} images ({names}): {cause}"
            yield single_line(f"{line}; {hint}" if hint else line)


def retry_hint(reports: Sequence[str]) -> str:
    """Return how to copy the failed images of a mirror.

    Args:
        reports: the JSON reports of the run.
    """
    by_report = f", or with --retry-failed {reports[0]}" if reports else ""
    return f"then run the same command again{by_report}"


def _group_key(item: MirrorItem, error: ConcilError, *, are_listed: bool) -> object:
    """Return a key that is equal for failures with one cause.

    An image that does not exist is a cause of its own, unless its name was written before.
    """
    if isinstance(error, NotFound) and not are_listed:
        return item
    if isinstance(error, StatusError):
        return type(error), error.host, error.status, error.codes
    return type(error), error.host, error.reason or error.summary


def _describe_cause(errors: Sequence[ConcilError]) -> str:
    """Return what the failures of a group have in common, and what helps."""
    error = errors[0]
    if not error.host or not error.reason:
        return describe_error(error)
    remedy = replace_parameters(error.remedy)
    if len({each.remedy for each in errors}) > 1:  # it names the image after "with:"
        remedy = remedy.partition(", with: ")[0]
    return f"{error.host}: {_common_reason(errors)}{'; ' if remedy else ''}{remedy}"


def _common_reason(errors: Sequence[ConcilError]) -> str:
    """Return the reason of a group; what a registry says of one missing image is left out."""
    error = errors[0]
    is_common = len({each.reason for each in errors}) == 1
    if is_common or not (isinstance(error, StatusError) and isinstance(error, NotFound)):
        return error.reason
    return ": ".join(filter(None, [error.reason.partition(": ")[0], ", ".join(error.codes)]))


def _were(count: int, noun: str) -> str:
    """Return a count with its noun and verb: ``1 more image was``."""
    return f"{count_of(count, noun)} {'was' if count == 1 else 'were'}"


def _join_names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"{', '.join(names[:_MAX_NAMES])}{more}"
