"""Errors travel to other processes, whole but for the answer of a registry."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest
import requests

from concil import errors
from concil.errors import ConcilError, RegistryDenied, StatusError


def kinds(kind: type[ConcilError] = ConcilError) -> Iterator[type[ConcilError]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from kinds(below)


def made(kind: type[ConcilError]) -> ConcilError:
    if issubclass(kind, StatusError):
        response = requests.Response()
        response.status_code = 403
        return kind("403 Client Error: no", response=response, remedy="ask")
    return kind("went wrong", remedy="ask")


KINDS = {kind.__name__: kind for kind in kinds()}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_an_error_comes_out_of_a_pickle_as_it_went_in(name: str) -> None:
    kind = KINDS[name]
    error = made(kind)

    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is kind
        assert (str(again), again.args, again.remedy) == (str(error), error.args, "ask")


def test_the_answer_stays_where_it_came() -> None:
    error = pickle.loads(pickle.dumps(made(RegistryDenied)))

    assert error.status == 403
    assert error.response is None
