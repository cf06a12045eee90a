"""A large blob is one worker's at a time, and nobody's when that worker is gone."""

from __future__ import annotations

import asyncio

from concil.cluster.blob_locks import BlobLocks

SOON, LONG = 0.01, 30.0  # seconds


async def take(
    turns: BlobLocks, worker: str, wait: float = SOON, run: str = "r"
) -> list[str] | None:
    answer = await turns.acquire(run, "blob", worker, wait)
    return list(answer["repositories"]) if answer["mine"] else None


def test_the_second_waits_until_the_first_has_done_and_learns_where_it_is() -> None:
    async def play() -> None:
        turns = BlobLocks()
        assert await take(turns, "a") == []
        assert await take(turns, "b") is None
        waiting = asyncio.create_task(take(turns, "b", LONG))
        await asyncio.sleep(0)

        await turns.release("r", "blob", "a", "team/app")

        assert await waiting == ["team/app"]
        assert await take(turns, "c") is None

    asyncio.run(play())


def test_of_many_that_wait_one_is_next() -> None:
    async def play() -> None:
        turns = BlobLocks()
        await take(turns, "a")
        waiting = [asyncio.create_task(take(turns, name, 0.2)) for name in "bcd"]
        await asyncio.sleep(0)

        await turns.release("r", "blob", "a", "")

        answers = await asyncio.gather(*waiting)
        assert answers.count(None) == 2
        assert [] in answers

    asyncio.run(play())


def test_a_worker_that_is_gone_holds_nothing() -> None:
    async def play() -> None:
        turns = BlobLocks()
        await take(turns, "a")
        waiting = asyncio.create_task(take(turns, "b", LONG))
        await asyncio.sleep(0)

        turns.remove_worker(None, "a")

        assert await waiting == []
        # Its answer may come late, when the turn is another's.
        await turns.release("r", "blob", "a", "late")
        assert await take(turns, "c") is None

    asyncio.run(play())


def test_runs_know_nothing_of_each_other() -> None:
    async def play() -> None:
        turns = BlobLocks()
        await take(turns, "a", run="one")
        assert await take(turns, "a", run="two") == []

        await turns.drop_run("one")

        assert await take(turns, "b", run="one") == []
        assert await take(turns, "b", run="two") is None

    asyncio.run(play())
