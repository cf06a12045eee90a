"""Reports a request that was sent to an observer."""

from __future__ import annotations

import time

import requests

from concil.oci.reference import display_host
from concil.progress.request_observer import Exchange, RequestObserver


def report_request(
    observer: RequestObserver,
    prepared: requests.PreparedRequest,
    host: str,
    response: requests.Response | None,
    start_time: float,
) -> None:
    """Report a request.

    Args:
        response: None if there was none.
        start_time: monotonic seconds.
    """
    status = None if response is None else response.status_code
    seconds = time.monotonic() - start_time
    method, url = prepared.method or "", prepared.url or ""
    observer.record_request(Exchange(method, url, display_host(host), status, start_time, seconds))
