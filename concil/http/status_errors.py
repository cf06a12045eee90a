"""Creates exceptions from error responses of registries and proxies."""

from __future__ import annotations

import http

import requests

from concil.errors import (
    RegistryDenied,
    RegistryNotFound,
    RegistryQuotaExceeded,
    StatusError,
)
from concil.http import proxies
from concil.http.errors import proxy_password_remedy
from concil.http.sanitize import (
    clean_response,
    clean_text,
    register_request,
)
from concil.http.throttle.ratelimit_headers import parse_throttling
from concil.http.urls import describe_request, find_repository, host_of
from concil.http.web_page import WEB_PAGE_REMEDY, describe_web_page, is_web_page
from concil.oci.reference import display_host
from concil.oci.strict_json import InvalidJSON, parse_json
from concil.runtime.redaction import SECRETS

__all__ = ["create_status_error", "error_codes"]

_REASONS = {int(status): status.phrase for status in http.HTTPStatus}


_PROXY_STATUSES = frozenset({407, 502, 503, 504})  # statuses that a proxy may send itself


def _proxy_remedy(response: requests.Response) -> str:
    """Return the remedy for an http response that may come from a proxy, or ""."""
    proxy = proxies.find_proxy(response.url)
    if proxy is None or response.url.startswith("https:"):
        return ""
    if response.status_code == requests.codes.proxy_authentication_required:
        return proxy_password_remedy(proxy.setting)
    return (
        f"the request was sent through the proxy in {proxy.setting}, which may not reach the host"
    )


def create_status_error(
    response: requests.Response, content: bytes, operation: str = ""
) -> StatusError:
    """Return the exception for an error response whose body was read already.

    The message begins with the status code, followed by the registry's error codes and messages.

    Args:
        operation: what failed; "": that of the request.
    """
    register_request(response.request)
    status = response.status_code
    throttling = parse_throttling(status, response.headers, content)
    reason = clean_text(response.reason or _REASONS.get(status, ""))[:100]
    details = _format_errors(response, content)
    reason = f"{status} {': '.join(filter(None, [reason, details]))}".rstrip()
    if not operation:
        operation = describe_request(getattr(response.request, "method", "GET"), response.url)
    kind: type[StatusError] = StatusError
    remedy = ""
    codes = tuple(error_codes(content))
    if status == 404:
        kind, remedy = RegistryNotFound, _not_found_remedy(response, codes)
    elif status in (401, 403):
        kind = RegistryDenied
        remedy = (
            f"give credentials, or log in with: concil login {_host(response)}; or check the name "
            "and your rights"
        )
    elif throttling.is_quota_exhausted:
        kind, remedy = (
            RegistryQuotaExceeded,
            "log in for a higher quota, or try again when it renews",
        )
    elif status == 413:
        remedy = "a proxy in front of the registry limits the size of request bodies"
    elif status in _PROXY_STATUSES:
        remedy = _proxy_remedy(response)
    if is_web_page(_content_type(response), content):
        remedy = WEB_PAGE_REMEDY
    error = kind(
        f"{reason} ({operation})", response=clean_response(response, content), remedy=remedy
    )
    error.operation, error.reason, error.codes = operation, SECRETS.redact(reason), codes
    error.host = _host(response)
    error.retry_after = throttling.retry_after
    # Distribution 2.8 answers 500 to a manifest whose foreign layers it does not accept.
    error.is_permanent = status == 500 and "MANIFEST_BLOB_UNKNOWN" in codes
    return error


def _content_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "")


def _host(response: requests.Response) -> str:
    return display_host(host_of(response.url))


def _not_found_remedy(response: requests.Response, codes: tuple[str, ...]) -> str:
    """Say how to find out what there is."""
    name = find_repository(response.url)
    if not name:
        return "check the host and the name"
    if "NAME_UNKNOWN" in codes:
        return f"check the name of the repository, with: concil ls {_host(response)}"
    return f"check the tag or digest, with: concil ls {name}"


def error_codes(content: bytes) -> list[str]:
    """Return the registry's error codes; empty if the body is not an error document.

    Source: distribution-spec, "Error Codes".
    """
    return [code for code, _ in _parse_errors(content) if code]


def _format_errors(response: requests.Response, content: bytes) -> str:
    entries = _parse_errors(content)
    if entries:
        return "; ".join(clean_text(": ".join(filter(None, entry))) for entry in entries)[:500]
    if is_web_page(_content_type(response), content):
        return describe_web_page(content)
    text = content.decode("utf-8", "replace").strip()
    if not text or text.startswith("<"):  # XML of a storage service
        return ""
    return clean_text(text)[:200]


def _parse_errors(content: bytes) -> list[tuple[str, str]]:
    try:
        document = parse_json(content)
    except InvalidJSON:
        return []
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return []
    parsed = []
    for entry in errors[:10]:
        if isinstance(entry, dict):
            message, detail = entry.get("message"), entry.get("detail")
            details = message if isinstance(message, str) else ""
            if isinstance(detail, str) and detail and detail not in details:
                details = f"{details} ({detail})" if details else detail
            code = entry.get("code")
            parsed.append((code if isinstance(code, str) else "", details))
    return parsed
