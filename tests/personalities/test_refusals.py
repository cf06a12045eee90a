"""What one odd answer costs: never the upload, and a session only if it is spoilt."""

from __future__ import annotations

from pathlib import Path

import pytest

from concil.server import Chunk, ErrorResponse, RegistryBehavior, Request, Response, Upload
from tests.personalities.cases import QUICK, Case
from tests.personalities.distribution import Distribution3, of_session
from tests.personalities.matrix_cell import MatrixHarness, Outcome, Trouble
from tests.personalities.self_hosted import Gitea

CHUNK = QUICK.chunk
SIZE = 3 * CHUNK


class Odd(Distribution3):
    """Answers some requests of one method with a status of its own."""

    def __init__(self, method: str, status: int, *numbers: int) -> None:
        """Args: numbers: which of those requests, from 1."""
        self._odd = method, status
        self._numbers = numbers
        self._seen = 0

    def check_chunk(self, chunk: Chunk) -> None:
        method, status = self._odd
        self._seen += chunk.method == method
        if chunk.method == method and self._seen in self._numbers:
            raise ErrorResponse("UNKNOWN", "not this time", status=status)
        super().check_chunk(chunk)


class GiteaWithStatus(Gitea):
    """As Gitea, but it tells where the spoilt session stands in its database."""

    def __init__(self) -> None:
        super().__init__()
        self._counted: dict[str, int] = {}

    def before_request(self, request: Request) -> Response | None:
        return None

    def on_incomplete_body(self, upload: Upload, before: int) -> None:
        super().on_incomplete_body(upload, before)
        self._counted[upload.session_id] = before

    def after_response(self, request: Request, reply: Response) -> Response:
        session = request.path.rpartition("/")[2]
        if request.method == "GET" and session in self._counted:
            reply.headers["Range"] = self.session_range(self._counted[session])
        return super().after_response(request, reply)


class Spoilt(Distribution3):
    """Answers 500 to every GET of a session, as zot and Gitea do of one that is spoilt."""

    def before_request(self, request: Request) -> Response | None:
        if request.method == "GET" and of_session(request):
            raise ErrorResponse("UNKNOWN", "offset mismatch", status=500)
        return None


def push(directory: Path, personality: RegistryBehavior, trouble: Trouble) -> tuple[Outcome, int]:
    """Push a blob of three chunks; return what became of it, and the number of sessions."""
    case = Case("odd", lambda _: personality)
    with MatrixHarness(directory, case, QUICK).open() as bench:
        outcome = bench.run_case(SIZE, trouble, known=True)
        return outcome, bench.asked("POST", 202)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("status", [409, 416, 500, 502])
def test_one_odd_answer_costs_no_session(tmp_path: Path, method: str, status: int) -> None:
    number = 2 if method == "PATCH" else 1

    outcome, sessions = push(tmp_path, Odd(method, status, number), Trouble.NOTHING)

    assert outcome.failure in ("", f"{SIZE + CHUNK} bytes sent, at most {SIZE} expected")
    assert sessions == 1 or (method, status) == ("PATCH", 416)  # that may mean: too large


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_busy_registry_keeps_its_session(tmp_path: Path, status: int) -> None:
    outcome, sessions = push(tmp_path, Odd("PATCH", status, 2, 3, 4, 5), Trouble.NOTHING)

    assert outcome.sent == SIZE + 4 * CHUNK
    assert sessions == 1


def test_a_spoilt_session_is_not_asked_for_long(tmp_path: Path) -> None:
    case = Case("spoilt", lambda _: Spoilt())
    with MatrixHarness(tmp_path, case, QUICK).open() as bench:
        outcome = bench.run_case(SIZE, Trouble.RESET, known=True)

        assert outcome.failure == ""
        assert bench.asked("GET", 500) == 3


def test_a_session_that_fails_again_and_again_is_given_up(tmp_path: Path) -> None:
    outcome, sessions = push(tmp_path, GiteaWithStatus(), Trouble.RESET)

    assert outcome.has_happened
    assert outcome.failure == "" or "sent" in outcome.failure
    assert outcome.sent <= 2 * SIZE + 3 * CHUNK
    assert sessions == 2
