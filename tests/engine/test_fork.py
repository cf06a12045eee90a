"""A forked child has nothing of its parent's: no worker, connection, lock, nor journal."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.engine.engine_setup import Registry
from tests.engine.user_programs import run_program
from tests.support.images import digest_of, make_image, put_blob, put_image
from tests.support.scale import FULL

# A rare fault is what these tests look for: one failure is enough.
pytestmark = [pytest.mark.process, pytest.mark.flaky(reruns=0)]

BIG = 6_000_000 if FULL else 2_000_000  # bytes
ROUNDS = 60 if FULL else 20  # of questions that each process asks


@pytest.fixture
def where(registry: Registry, tmp_path: Path, workers: int) -> tuple[str, Path, int]:
    """What a program gets: a registry of either kind, a directory, how many workers."""
    return registry.url, tmp_path, workers


Where = tuple[str, Path, int]


def test_engine_made_before_the_fork_works_in_the_child_and_in_the_parent(where: Where) -> None:
    program = """
engine = Engine(CONFIG)
with engine:
    engine.push_blob(file_of("first", b"first"), f"{URL}/fork/a")  # has workers and connections
    def child():
        engine.push_blob(file_of("child", b"child" * 400_000), f"{URL}/fork/a")
    assert in_child(child) == 0
    assert in_child(lambda: engine.close()) == 0
    engine.push_blob(file_of("parent", b"parent"), f"{URL}/fork/a")
hub = DockerHub(f"{URL.replace('https', 'http')}/fork/a")
for content in (b"first", b"child" * 400_000, b"parent"):
    print(hub.open_blob("sha256:" + hashlib.sha256(content).hexdigest()).content == content)
hub.close()
"""
    assert run_program(program, *where) == "True\n" * 3


@pytest.mark.threads_only
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_either_works_or_says_that_an_engine_cannot_travel(
    where: Where, method: str
) -> None:
    program = f"""
engine = Engine(CONFIG)
context = multiprocessing.get_context({method!r})
path = file_of("x", b"x")
try:
    child = context.Process(target=engine.push_blob, args=(path, f"{{URL}}/fork/b"))
    child.start()
    child.join(40)
    print(child.exitcode)
except TypeError as error:
    print(error)
engine.close()
"""
    told = run_program(program, *where)

    if method == "fork":
        assert told == "0\n"
    else:
        assert told == "an Engine cannot be pickled: create one in the process that uses it\n"


def test_a_hub_cannot_travel_either_and_does_not_show_its_password() -> None:
    program = """
import pickle
hub = DockerHub("http://someone:secret@127.0.0.1:1/a")
try:
    pickle.dumps(hub)
except TypeError as error:
    print(error)
"""
    told = run_program(program, "-", "-", 0)

    assert (
        told
        == "a DockerHub cannot be pickled: create one from its URL in the process that uses it\n"
    )


@pytest.mark.threads_only
@pytest.mark.parametrize("session", ["", "hub.session = requests.Session()"])
def test_children_and_parent_get_their_own_answers(where: Where, session: str) -> None:
    """On a shared connection each would read what another one has asked for."""
    url = where[0]
    contents = [f"blob {number}".encode() * 1000 for number in range(8)]
    for content in contents:
        put_blob(url, "fork/c", content)
    program = f"""
import requests
hub = DockerHub(f"{{URL}}/fork/c")
{session}
contents = [f"blob {{number}}".encode() * 1000 for number in range(8)]
digests = ["sha256:" + hashlib.sha256(content).hexdigest() for content in contents]
hub.has_blob(digests[0])

def ask(number):
    for _ in range({ROUNDS}):
        content, digest = contents[number], digests[number]
        assert hub.has_blob(digest)
        assert not hub.has_blob("sha256:" + f"{{number}}" * 64)
        assert hub.open_blob(digest).content == content

pids = []
for number in range(4):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            ask(number)
            code = 0
        finally:
            os._exit(code)
    pids.append(pid)
ask(7)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
hub.close()
"""
    assert run_program(program, *where) == "[0, 0, 0, 0]\n"


@pytest.mark.threads_only
def test_body_that_is_being_read_continues_in_parent_and_child(where: Where) -> None:
    content = bytes(range(256)) * 40_000
    put_blob(where[0], "fork/d", content)
    program = f"""
import logging
logging.disable()  # the child says that its connection was closed
content = bytes(range(256)) * 40_000
hub = DockerHub(f"{{URL}}/fork/d")
with hub.open_blob("{digest_of(content)}") as response:
    begun = response.raw.read(100_000)
    def child():
        assert begun + response.raw.read() == content
    print(in_child(child))
    print(begun + response.raw.read() == content)
hub.close()
"""
    assert run_program(program, *where) == "0\nTrue\n"


@pytest.mark.parametrize("leave", ["os._exit", "sys.exit"])
def test_forks_under_transfers_disturb_neither_them_nor_what_they_write(
    where: Where, leave: str
) -> None:
    """The children end as they like: finalizers run, buffers are flushed, locks are let go."""
    for number in range(6):
        put_image(where[0], f"fork/e{number}", "v1", make_image(number, (BIG, 50_000)))
    back = leave.replace(".", "").strip("_")  # one of the registries is shared
    program = f"""
from contextlib import closing
from concil import MirrorItem
names = [("oci", "layout"), ("oci-archive", "a.tar"), ("docker-archive", "d.tar")]
items = [MirrorItem(f"{{URL}}/fork/e{{n}}:v1", f"{{kind}}:{{HERE}}/{{name}}:e{{n}}:v1")
    for kind, name in names for n in range(6)]
codes, over = [], threading.Event()
def fork():
    while not over.is_set():
        codes.append(in_child(lambda: None, leave={leave}))
        over.wait(0.005)

with Engine(CONFIG) as engine:
    thread = threading.Thread(target=fork)
    thread.start()
    try:
        report = engine.mirror(items)
    finally:
        over.set()
        thread.join()
print(len(report.copied), len(report.failed), set(codes))
with Engine(CONFIG) as engine:
    back = [MirrorItem(each.destination, f"{{URL}}/fork/{back}{{n}}:v1")
        for n, each in enumerate(items)]
    print(len(engine.mirror(back).copied))
with closing(Journal(Journal.default_path())) as journal:
    print(journal.is_usable, journal.list_unfinished())
"""
    told = run_program(program, *where)

    assert told == "18 0 {0}\n18\nTrue []\n"
    assert not list(where[1].glob(".*")), "a temporary file is left"


def test_child_does_not_keep_what_the_parent_closes(tmp_path: Path) -> None:
    """The port is free, the locks are free, and the other side sees the end of a connection."""
    program = """
import socket
from concil.fs.file_lock import try_lock
from concil.server import EmbeddedRegistry
with EmbeddedRegistry(HERE / "served") as registry:
    hub = DockerHub(f"{registry.url}/a")
    hub.has_blob("sha256:" + "0" * 64)
    descriptor = os.open(HERE / "lock", os.O_CREAT | os.O_RDWR)
    assert try_lock(descriptor)
    journal = Journal(HERE / "journal.sqlite")
    from concil.fs.resume_state import WriterState
    journal.claim_transfer("place", "blob", 20).save(WriterState("there", 10, 1))
    asked, said = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(asked[1])  # it also ends if the parent fails
        os.write(said[1], b"x")
        os.read(asked[0], 1)  # lives on while the parent closes everything
        registry.close()
        os._exit(0)
    os.read(said[0], 1)  # its copies are closed when it runs, which may be later
    assert hub.has_blob("sha256:" + "1" * 64) is False  # the parent's server still serves
    host, port = registry.host.split(":")
hub.close()
os.close(descriptor)
journal._owner._lock_file.close()  # as a kill would
with EmbeddedRegistry(HERE / "served", address=(host, int(port))):
    pass
again = os.open(HERE / "lock", os.O_RDWR)
print(try_lock(again))
print([one.is_running for one in journal.list_unfinished()])
journal.close()
os.write(asked[1], b"x")
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    assert run_program(program, "-", tmp_path, 2) == "True\n[False]\n0\n"


@pytest.mark.parametrize("images", [1, 4])
def test_fork_within_a_call_ends_that_call_in_the_child(where: Where, images: int) -> None:
    """Nobody there would do its work: it must not wait for ever.

    With several images at once the thread that forks may be one of the engine's: the child then
    ends with it.
    """
    put_image(where[0], "fork/f", "v1", make_image(9, (1000,)))
    program = (
        f"""
from dataclasses import replace
CONFIG = replace(CONFIG, concurrent_images={images})
"""
        """
from concil import MirrorItem
from concil.errors import Cancelled
me = os.getpid()
pids = []
def items():
    yield MirrorItem(f"{URL}/fork/f:v1", f"oci:{HERE}/layout:a")
    pids.append(os.fork())
    yield MirrorItem(f"{URL}/fork/f:v1", f"oci:{HERE}/layout:b")
with Engine(CONFIG) as engine:
    try:
        print(len(engine.mirror(items()).failed), flush=True)
    except Cancelled:
        os._exit(7 if os.getpid() != me else 1)
    if os.getpid() != me:
        os._exit(8)
print(os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]))
"""
    )
    assert run_program(program, *where) in (["0\n7\n"] if images == 1 else ["0\n7\n", "0\n0\n"])


def test_credentials_of_a_helper_come_although_a_child_lives_on(tmp_path: Path) -> None:
    """The helper waits for the end of its input, which a child must not hold open."""
    helper = tmp_path / "docker-credential-slow"
    helper.write_text(
        '#!/bin/sh\ntouch begun\ncat > /dev/null\nprintf \'{"Username":"me","Secret":"it"}\'\n'
    )
    helper.chmod(0o755)
    program = """
from concil.auth.credentials.helper import CredentialHelper
import concil.auth.credentials.helper as module
os.environ["PATH"] = f"{HERE}:{os.environ['PATH']}"
os.chdir(HERE)
written, pids = module._write_available, []
def fork_first(pipe, content):
    pid = os.fork()
    if pid == 0:
        signal.pause()
    pids.append(pid)
    return written(pipe, content)
module._write_available = fork_first
print(CredentialHelper("slow", timeout=20).get("somewhere").username)
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
    assert run_program(program, "-", tmp_path, 2) == "me\n"


@pytest.mark.skipif(
    subprocess.run(
        [sys.executable, "-c", "import gunicorn"], check=False, capture_output=True
    ).returncode
    != 0,
    reason="gunicorn is not installed",
)
@pytest.mark.threads_only
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_gunicorn_with_preload(where: Where, kind: str, tmp_path: Path) -> None:
    put_image(where[0], "fork/g", "v1", make_image(1, (1000,)))
    (tmp_path / "app.py").write_text(
        "import os\n"
        "from concil import DockerHub, Engine, TransferConfig\n"
        f"engine = Engine(TransferConfig(workers={where[2]}))\n"
        f"hub = DockerHub('{where[0]}/fork/g:v1')\n"
        "hub.has_blob('sha256:' + '0' * 64)\n"
        f"tags = list(engine.list_tags('{where[0]}/fork/g'))\n"
        "def app(environ, start_response):\n"
        f"    engine.copy('{where[0]}/fork/g:v1', f'{where[0]}/fork/g{{os.getpid()}}:v1')\n"
        "    there = hub.has_blob('sha256:' + '0' * 64)\n"
        f"    tags = list(engine.list_tags('{where[0]}/fork/g'))\n"
        '    body = f"{os.getpid()} {there} {tags}"\n'
        "    start_response('200 OK', [('Content-Length', str(len(body)))])\n"
        "    return [body.encode()]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    argv = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "3", "--threads", "2"]
    server = subprocess.Popen(
        [*argv, "--worker-class", kind, "--bind", f"127.0.0.1:{port}", "app:app"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    )
    with server:
        try:
            assert server.stderr is not None
            booted = 0
            while booted < 3:
                line = server.stderr.readline()
                assert line, "gunicorn has ended"
                booted += "Booting worker" in line
            seen = set()
            for _ in range(30):
                pid, _, rest = requests.get(f"http://127.0.0.1:{port}/", timeout=30).text.partition(
                    " "
                )
                assert rest == "False ['v1']"
                seen.add(pid)
            assert str(server.pid) not in seen
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()
