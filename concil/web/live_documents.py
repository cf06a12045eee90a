"""Builds what the live page gets: the whole state, and what has changed since."""

from __future__ import annotations

from collections.abc import Sequence

from concil import __version__
from concil.progress.snapshot import BlobProgress
from concil.service.service_status import ImageStatus, Run, ServiceSnapshot
from concil.web.live_mirror import LiveMirror

MAX_ACTIVE = 50  # running transfers that are listed
MAX_PAUSES = 50  # hosts that are listed

Document = dict[str, object]


def service_document(live: LiveMirror, snapshot: ServiceSnapshot) -> Document:
    """Return the state of the service and of its run. Times are in milliseconds of one clock."""
    return {
        "concil": __version__,
        "title": live.names.title,
        "now": _ms(snapshot.now),
        "clock": round(snapshot.now_at * 1000),  # since the epoch
        "state": state_of(snapshot),
        "planProblem": snapshot.plan_problem,
        "nextRun": _ms(snapshot.next_run),
        "nextRetry": _ms(snapshot.next_retry),
        "run": None if snapshot.run is None else _run_document(snapshot.run),
        "runs": [_run_document(run) for run in snapshot.runs],
        "failedListings": [[f.source, f.error, f.remedy] for f in snapshot.failed_listings],
    }


def state_of(snapshot: ServiceSnapshot) -> str:
    """Return what the service does: it runs, waits for a run, or stops."""
    if snapshot.is_stopping:
        return "stopping"
    return "waiting" if snapshot.run is None else "running"


def progress_document(live: LiveMirror) -> Document:
    """Return the running transfers, pauses and totals of the run."""
    observed = live.observed
    totals = observed.totals.snapshot()
    return {
        "number": observed.number,
        "active": [_blob_row(blob) for blob in totals.active_blobs[:MAX_ACTIVE]],
        "activeCount": len(totals.active_blobs),
        "waiting": observed.timeline.waiting_count,
        "pauses": [
            [pause.host, pause.reason, _ms(pause.seconds_left)]
            for pause in totals.paused_hosts[:MAX_PAUSES]
        ],
        "rate": totals.rate,
        "bytesDone": totals.bytes_done,
        "bytesTotal": totals.bytes_total,
        "isTotalKnown": totals.is_total_known,
    }


def image_columns(images: Sequence[ImageStatus]) -> Document:
    """Return the images of the plan as columns."""
    return {
        "number": [image.number for image in images],
        "source": [image.source for image in images],
        "target": [image.target for image in images],
        "outcome": [image.outcome for image in images],
        "checked": [_ms(image.checked) for image in images],
        "confirmed": [_ms(image.confirmed) for image in images],
        # By index in the columns: most images have none.
        "failure": {
            n: [image.error, image.remedy, image.failures, _ms(image.failed_since)]
            for n, image in enumerate(images)
            if image.error
        },
    }


def _run_document(run: Run) -> Document:
    return {
        "number": run.number,
        "kind": run.kind,
        "began": _ms(run.began),
        "started": round(run.started_at * 1000),  # since the epoch
        "took": _ms(run.seconds),
        "result": run.result,
        "copied": run.copied,
        "upToDate": run.up_to_date,
        "failed": run.failed,
        "bytesSent": run.bytes_sent,
        "detail": run.detail,
    }


def _blob_row(blob: BlobProgress) -> list[object]:
    return [
        blob.subject,
        blob.target,
        blob.image,
        blob.state,
        blob.position,
        blob.total,
        None if blob.rate is None else round(blob.rate),
        _ms(blob.elapsed),
        blob.resumed_at,
        _ms(blob.stalled_seconds),
        blob.detail[:300],
    ]


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
