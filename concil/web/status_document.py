"""Builds the JSON of /api/status, whose schema is docs/reference/status.schema.json."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from concil import __version__
from concil.service.service_status import ImageStatus, Run, ServiceSnapshot
from concil.web.live_documents import MAX_ACTIVE, state_of
from concil.web.live_mirror import LiveMirror

SCHEMA_VERSION = 1
IMAGE_LIMIT = 100  # images that are listed unless the request says how many

Document = dict[str, object]


def status_document(live: LiveMirror, image_limit: int = IMAGE_LIMIT) -> Document:
    """Return what the mirror does, has done, and how current its images are.

    Args:
        image_limit: so many images are listed, those that were not confirmed for longest.
    """
    snapshot = live.status.snapshot()
    images, _ = live.status.images()
    return {
        "schema_version": SCHEMA_VERSION,
        "concil": __version__,
        "time": _timestamp(snapshot.now_at),
        "started": _timestamp(snapshot.started_at),
        "plan": live.names.plan,
        "plan_error": snapshot.plan_problem or None,
        "destination": live.names.destination,
        "state": state_of(snapshot),
        "next_run": _time_of(snapshot, snapshot.next_run),
        "next_retry": _time_of(snapshot, snapshot.next_retry),
        "run": None if snapshot.run is None else _running(live, snapshot.run, snapshot),
        "runs": [_run_entry(run) for run in snapshot.runs],
        "images": _image_totals(snapshot, images),
        "behind": [
            _image_entry(snapshot, image) for image in sorted(images, key=_by_age)[:image_limit]
        ],
        "failed_listings": [
            {"source": failed.source, "error": failed.error, "remedy": failed.remedy}
            for failed in snapshot.failed_listings
        ],
    }


def _running(live: LiveMirror, run: Run, snapshot: ServiceSnapshot) -> Document:
    observed = live.observed
    totals = observed.totals.snapshot()
    entry = _run_entry(run)
    entry["seconds"] = round(snapshot.now - run.began, 3)
    del entry["result"], entry["detail"]
    return entry | {
        "images": totals.images.total,
        "bytes_done": totals.bytes_done,
        "bytes_total": totals.bytes_total if totals.is_total_known else None,
        "rate": _rounded(totals.rate),
        "waiting": observed.timeline.waiting_count,
        "running": len(totals.active_blobs),
        "transfers": [
            {
                "blob": blob.subject,
                "target": blob.target,
                "image": blob.image,
                "state": str(blob.state),
                "position": blob.position,
                "total": blob.total,
                "rate": _rounded(blob.rate),
                "seconds_left": _seconds_left(blob.total, blob.position, blob.rate),
                "detail": blob.detail,
            }
            for blob in totals.active_blobs[:MAX_ACTIVE]
        ],
        "paused_hosts": [
            {
                "host": pause.host,
                "reason": pause.reason,
                "seconds_left": _rounded(pause.seconds_left),
            }
            for pause in totals.paused_hosts
        ],
    }


def _run_entry(run: Run) -> Document:
    return {
        "number": run.number,
        "kind": str(run.kind),
        "started": _timestamp(run.started_at),
        "seconds": _rounded(run.seconds),
        "result": None if run.result is None else str(run.result),
        "copied": run.copied,
        "up_to_date": run.up_to_date,
        "failed": run.failed,
        "bytes_sent": run.bytes_sent,
        "detail": run.detail,
    }


def _image_totals(snapshot: ServiceSnapshot, images: Sequence[ImageStatus]) -> Document:
    confirmed = [image.confirmed for image in images if image.confirmed is not None]
    return {
        "total": len(images),
        "current": sum(not image.error for image in images),
        "failed": sum(bool(image.error) for image in images),
        "unconfirmed": len(images) - len(confirmed),
        "longest_behind_seconds": _rounded(snapshot.now - min(confirmed)) if confirmed else None,
    }


def _image_entry(snapshot: ServiceSnapshot, image: ImageStatus) -> Document:
    behind = None if image.confirmed is None else _rounded(snapshot.now - image.confirmed)
    entry: Document = {
        "source": image.source,
        "target": image.target,
        "outcome": image.outcome,
        "checked": _time_of(snapshot, image.checked),
        "behind_seconds": behind,
    }
    if image.error:
        entry |= {"error": image.error, "remedy": image.remedy, "failures": image.failures}
        entry["failed_since"] = _time_of(snapshot, image.failed_since)
    return entry


def _by_age(image: ImageStatus) -> tuple[bool, float]:
    """Images that were never confirmed come first, then those of which it is longest ago."""
    return image.confirmed is not None, image.confirmed or 0.0


def _seconds_left(total: int | None, position: int, rate: float | None) -> float | None:
    if total is None or not rate:
        return None
    return _rounded(max(0, total - position) / rate)


def _time_of(snapshot: ServiceSnapshot, moment: float | None) -> str | None:
    """Return a monotonic time as a time of day, by the clock as it is set now."""
    return None if moment is None else _timestamp(snapshot.now_at + moment - snapshot.now)


def _timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
