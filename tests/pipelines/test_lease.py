"""At most one machine writes a bucket, whatever clocks and networks do."""

import contextlib
import hashlib
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from test_store import SCHEMA, batch

import pipelines.storage.lease
from pipelines.errors import StorageError
from pipelines.storage.bucket import Bucket
from pipelines.storage.copies import Copies
from pipelines.storage.lease import LEASE, Lease, Terms, holding
from pipelines.store import Manifest, Place, Store

SECONDS = 60.0


@dataclass
class Memory:
    """Objects with conditions and a clock of their own, reached over a network that may fail."""

    now: Callable[[], float]
    url: str = "memory"
    objects: dict[str, tuple[bytes, str, float]] = field(default_factory=dict)
    fails: str = ""
    """`asks`: nothing arrives; `answers`: what arrives is done, and done again when it is asked again."""

    def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        written = self._write_if(name, data, version)
        return self._write_if(name, data, version) if self.fails == "answers" else written

    def _write_if(self, name: str, data: bytes, version: str | None) -> str | None:
        self._expect_network()
        if (name in self.objects and self.objects[name][1]) != (version or False):
            return None
        self.objects[name] = (data, hashlib.md5(data).hexdigest(), float(int(self.now())))
        return self.objects[name][1]

    def read_version(self, name: str) -> tuple[bytes, str, float] | None:
        self._expect_network()
        return self.objects.get(name)

    def remove(self, name: str) -> None:
        self.objects.pop(name, None)

    def _expect_network(self) -> None:
        if self.fails == "asks":
            raise StorageError("got no answer")


class Machines(RuleBasedStateMachine):
    """Three machines that want to write, renew late or not at all, and see the network fail."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock
        self.memory = Memory(now=lambda: clock[0] + 1_000_000)  # another clock than any machine's
        self.leases: list[Lease | None] = [None, None, None]
        self.num_tokens = 0
        self.last_taker = -1

    @initialize(fails=st.sampled_from(["", "answers"]))
    def begin(self, fails: str) -> None:
        self.memory.fails = fails

    @rule(seconds=st.sampled_from([0.4, 14.0, 29.0, 31.0, 61.0, 63.0, 500.0]))
    def wait(self, seconds: float) -> None:
        self.clock[0] += seconds

    @rule(fails=st.sampled_from(["", "asks", "answers"]))
    def change_network(self, fails: str) -> None:
        self.memory.fails = fails

    @rule(machine=st.integers(0, 2), others_write_at_once=st.booleans())
    def take(self, machine: int, *, others_write_at_once: bool) -> None:
        self.num_tokens += 1
        lease = Lease(self.memory, Terms(owner=f"machine {machine}", token=str(self.num_tokens), seconds=SECONDS))
        try:
            lease.take()
        except StorageError:
            return
        self.leases[machine], self.last_taker = lease, machine
        for other in range(3) if others_write_at_once else ():
            self.write(other)

    @rule(machine=st.integers(0, 2))
    def renew(self, machine: int) -> None:
        if (lease := self.leases[machine]) is not None:
            try:
                lease.renew()
            except StorageError:
                assert self.memory.fails == "asks"

    @rule(machine=st.integers(0, 2))
    def release(self, machine: int) -> None:
        if (lease := self.leases[machine]) is not None:
            lease.release()
            self.leases[machine] = None

    @precondition(lambda self: self.memory.fails != "asks" and not any(self.leases))
    @rule()
    def somebody_gets_it(self) -> None:
        self.clock[0] += SECONDS + 4
        self.take(0, others_write_at_once=True)
        assert self.leases[0] is not None

    @rule(machine=st.integers(0, 2))
    def write(self, machine: int) -> None:
        if (lease := self.leases[machine]) is not None and may_write(lease):
            assert machine == self.last_taker


def may_write(lease: Lease) -> bool:
    try:
        lease.check()
    except StorageError:
        return False
    return True


def test_at_most_one_of_three_machines_may_write(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(pipelines.storage.lease, "_steady_seconds", lambda: clock[0])
    run_machine(lambda: Machines(clock), settings=settings(max_examples=200, stateful_step_count=30, deadline=None))


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_conditions_is_refused(ignored):
    class Careless(Memory):
        def write_if(self, name: str, data: bytes, version: str | None) -> str | None:
            is_ignored = (version is None) == (ignored == "If-None-Match")
            return super().write_if(name, data, self.objects.get(name, (b"", None))[1] if is_ignored else version)

    memory = Careless(now=time.time)
    with pytest.raises(StorageError, match="writes whatever the condition"):
        Lease(memory, Terms(token="a")).take()
    assert memory.objects == {}


# at a real server


@pytest.fixture
def open_bucket(bucket, tmp_path):
    return lambda: Bucket(bucket.url, Copies(tmp_path, 1 << 20))


def test_the_second_is_told_who_holds_it_and_gets_it_afterwards(bucket, tmp_path):
    first, second = (Store(Place(root=tmp_path / name, bucket=bucket.url)) for name in "ab")
    with first.exclusive("process 7 on host-a", tmp_path / "lock-a"):
        with (
            pytest.raises(StorageError, match=r"in use by process 7 on host-a \(s3://.* wait for that run"),
            second.exclusive("b", tmp_path / "lock-b"),
        ):
            pass
        first.write(SCHEMA, [batch("a")])
    with second.exclusive("b", tmp_path / "lock-b"):
        second.write(SCHEMA, [batch("a")])
    assert [name for name in bucket.names() if not name.startswith("objects/")] == [LEASE]


@pytest.mark.parametrize("before", [None, {"seconds": 0.0}, {"seconds": 60.0, "lock": "theirs"}])
def test_of_many_that_try_at_once_one_gets_it(open_bucket, bucket, before):
    """Where there is no lease, a free one, and one whose holder was killed with the lock that they share."""
    if before is not None:
        bucket.put(LEASE, json.dumps(before).encode())
    start, taken = threading.Barrier(8), []

    def compete(number: int) -> None:
        lease = Lease(open_bucket(), Terms(token=str(number), lock="theirs" if number == 3 else ""))
        start.wait()
        try:
            lease.take()
        except StorageError:
            return
        taken.append(number)

    threads = [threading.Thread(target=compete, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 1
    assert json.loads(bucket.get(LEASE))["token"] == str(taken[0])


def test_an_expired_lease_is_taken_over_and_who_lost_it_writes_no_more(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(pipelines.storage.lease, "_SLACK_SECONDS", 0.0)
    store, other = (Store(Place(root=tmp_path / name, bucket=bucket.url)) for name in "ab")
    stopped = Lease(store._storage, Terms(owner="stopped", token="1", seconds=1.0))
    store._storage._lease = stopped
    stopped.take()
    shard = store.write(SCHEMA, [batch("a")])
    taker = Lease(other._storage, Terms(owner="taker", token="2", seconds=60.0))
    end = time.monotonic() + 20
    while not taker._version and time.monotonic() < end:
        with contextlib.suppress(StorageError):
            taker.take()
    before = bucket.contents()
    manifest = Manifest("toy", ())
    for write in (
        lambda: store.write(SCHEMA, [batch("b")]),
        lambda: store.set_ref("recipe", manifest),
        lambda: store.remove_object(shard.digest),
    ):
        with pytest.raises(StorageError, match="another run took over"):
            write()
    stopped.release()
    assert bucket.contents() == before
    taker.check()


def test_a_lease_is_renewed_while_it_is_held_though_answers_are_lost(bucket, proxy, tmp_path):
    renewals: list[int] = []
    is_renewed = threading.Event()

    def lose(method: str, path: str) -> str | None:
        if method == "PUT" and path.endswith(LEASE):
            renewals.append(len(renewals))
            if len(renewals) > 6:
                is_renewed.set()
            return "unanswered" if len(renewals) % 2 == 0 else None
        return None

    proxy.broken = lose
    with holding(Bucket(bucket.url, Copies(tmp_path, 1)), "me", tmp_path / "lock", seconds=1.0) as lease:
        assert is_renewed.wait(20)
        lease.check()
    assert json.loads(bucket.get(LEASE))["seconds"] == 0


def hold(pipe, place: Place, lock: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    with Store(place).exclusive("the killed one", lock):
        pipe.send("held")
        signal.pause()


@pytest.mark.skipif(not Path("/proc/sys/kernel/random/boot_id").exists(), reason="names no kernel")
def test_who_holds_the_lock_of_a_killed_run_need_not_wait(bucket, tmp_path):
    context = multiprocessing.get_context("spawn")
    place, lock = Place(root=tmp_path / "a", bucket=bucket.url), tmp_path / "lock"
    lock.touch()
    (tmp_path / "other-lock").touch()
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(theirs, place, lock, dict(os.environ)))
    process.start()
    assert ours.recv() == "held"
    process.kill()
    process.join()
    with (
        pytest.raises(StorageError, match="in use by the killed one"),
        Store(place).exclusive("elsewhere", tmp_path / "other-lock"),
    ):
        pass
    with Store(place).exclusive("the next", lock):
        Store(place).write(SCHEMA, [batch("a")])
