"""A build that is killed again and again, with damage done in between, until it ends: whole, and equal to an undisturbed one.

Each round runs the build in a process group of its own, with a pool of two workers, and kills the group or one worker at a
random moment. A *trip* is a list of states: source files and a config. The first is built in an empty store, each other one
on top of it. What the parent sees between two rounds is what a person would find after a crash.
"""

import contextlib
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from pathlib import Path

import psutil
from corpora import Page, config, content, run, source, write_file

from pipelines.corpus import CorpusConfig
from pipelines.digest import digest_bytes, digest_value
from pipelines.errors import CorpusmillError
from pipelines.executor import open_executor
from pipelines.integrity import check_store
from pipelines.store import Shard, Store, object_name, record_name
from pipelines.work import SourceFile

DEADLINE_SECONDS = 240.0
NUM_WORKERS = 2

Digest = str
Build = tuple[list[SourceFile], CorpusConfig]


def states(folder: Path) -> list[Build]:
    """A corpus, and three changes on top of it: a file more, a threshold, a file less and another rule of dedup."""
    parts = {
        "a.warc.gz": [Page(text=text, url=text, day=text) for text in range(6)],
        "b.jsonl": [Page(text=2, url=12, day=9), Page(text=7, url=7, day=9), Page(text=1, url=11, day=9)],
        "c.warc.gz": [Page(text=8, url=0, day=20), Page(text=9, url=9, day=20, fate="opt_out"), Page(text=10, url=10)],
        "d.jsonl": [Page(text=4, url=24, day=21, variant=1), Page(text=3, url=23, day=21, variant=1)],
        "e.warc.gz": [Page(text=13, url=33, day=30), Page(text=7, url=34, day=30, variant=1), Page(text=0, url=35)],
    }
    files = {name: source(write_file(folder / name, pages)) for name, pages in parts.items()}
    first = [files[name] for name in ("a.warc.gz", "b.jsonl", "c.warc.gz", "d.jsonl")]
    wanted = config()
    stricter = config(min_words=150)
    near_off = replace(stricter, dedup=replace(stricter.dedup, near=False))
    return [
        (first, wanted),
        ([*first, files["e.warc.gz"]], wanted),
        ([*first, files["e.warc.gz"]], stricter),
        ([*first[1:], files["e.warc.gz"]], near_off),
    ]


def essence(store: Store, results: dict) -> Digest:  # type: ignore[type-arg]
    """Digest of all that a build left, bytes of shards included."""
    left = content(store, results)
    return digest_value(
        {
            stage: [
                [entry.unit, entry.key, entry.shard.digest, dict(entry.counts), digest_bytes(data)]
                for entry, data in rows
            ]
            for stage, rows in left.items()
        }
    )


def undisturbed(folder: Path, trip: Sequence[Build]) -> list[Digest]:
    """What a first build of each state leaves."""
    found = []
    for number, (sources, wanted) in enumerate(trip):
        store = Store(folder / f"fresh{number}")
        found.append(essence(store, run(store, sources, wanted)))
    return found


def build_once(pipe: Connection, store: Store, sources: list[SourceFile], wanted: CorpusConfig) -> None:
    """The build, in a process group of its own; tells which stage it is in, then what it computed and left."""
    os.setsid()
    pipe.send("ready")
    pipe.recv()
    with open_executor(NUM_WORKERS) as pool:
        try:
            results = run(store, sources, wanted, pool, on_progress=lambda progress: pipe.send(progress.stage))
        except CorpusmillError as error:
            pipe.send((None, str(error)))
        else:
            pipe.send((essence(store, results), ""))


@dataclass
class Log:
    """What happened."""

    num_group_kills: int = 0
    num_worker_kills: int = 0
    num_completions: int = 0
    num_rounds: int = 0
    stages: Counter[str] = field(default_factory=Counter)
    """Where kills hit."""
    damages: Counter[str] = field(default_factory=Counter)
    num_refusals: int = 0
    """Runs that met rot in what they read, and said so."""
    num_found: int = 0
    """Damaged files that the check was asked to find, and found."""
    seconds: list[float] = field(default_factory=list)
    """Of completed rounds."""

    @property
    def num_kills(self) -> int:
        return self.num_group_kills + self.num_worker_kills


class Killer:
    """Drives the rounds. Every broken promise is an AssertionError."""

    def __init__(self, context: ForkServerContext, folder: Path, caches: Path, seed: int) -> None:
        self.context, self.folder, self.caches = context, folder, caches
        self.rng = random.Random(seed)
        self.log = Log()
        self.store = Store(folder / "store")
        self.finished: dict[str, int] = {}
        """Records that are whole and whose shards are, with their inodes: they must stay."""
        self.named: set[str] = set()
        """Shards and records that a whole record or manifest names."""
        self.suspects: set[str] = set()
        """What was damaged since the last end."""

    def travel(
        self, trip: Sequence[Build], ends: Sequence[Digest], num_kills: int, *, only_changes: bool = False
    ) -> None:
        """Go through the states over and over, until that many kills have hit and the state at hand is built."""
        typical = [4.0] * len(trip)
        while self.log.num_kills < num_kills:
            shutil.rmtree(self.store.root)
            self.store, self.finished, self.named, self.suspects = Store(self.store.root), {}, set(), set()
            for number, ((sources, wanted), end) in enumerate(zip(trip, ends, strict=True)):
                is_spared = only_changes and number == 0
                while (left := self.round(sources, wanted, 0.0 if is_spared else typical[number], num_kills)) is None:
                    pass
                assert left == end, "the end differs from that of an undisturbed build"
                self.log.num_completions += 1

    def round(
        self, sources: list[SourceFile], wanted: CorpusConfig, typical_seconds: float, num_kills: int
    ) -> Digest | None:
        """Build once. What it left, if it came to its end whole."""
        self.log.num_rounds += 1
        is_spared = typical_seconds == 0.0 or self.log.num_kills >= num_kills
        if not is_spared:
            self.damage()
        left = self._run(sources, wanted, None if is_spared else typical_seconds)
        self.store.clear_temporary()  # as whoever holds the workspace's lock does
        assert not list((self.store.root / "tmp").iterdir())
        self._check_kept()
        if left is None:
            self._take_stock()
            return None
        check = check_store(self.store)
        if found := check.damaged.keys():  # rot that kept its time, in a shard that nobody had to read
            assert found <= self.suspects, f"damage that nobody did: {found - self.suspects}"
            self.suspects |= check.records_moved
            self._take_stock()
            return None
        self.suspects = set()
        self._take_stock()
        return left

    # kills

    def _run(self, sources: list[SourceFile], wanted: CorpusConfig, typical_seconds: float | None) -> Digest | None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(target=build_once, args=(theirs, self.store, sources, wanted))
        process.start()
        theirs.close()
        stage, left, workers = "", None, []
        try:
            assert ours.recv() == "ready"
            started = time.monotonic()
            ours.send(None)
            plan = self._plan(typical_seconds)
            while True:
                wait = (
                    DEADLINE_SECONDS
                    if plan is None or plan.at is None
                    else max(0.0, started + plan.at - time.monotonic())
                )
                if not ours.poll(wait):
                    if plan is None or plan.at is None:
                        raise AssertionError("the build hangs")
                    workers = _workers(process.pid)
                    plan = self._strike(plan, process.pid, workers, stage, time.monotonic() - started)
                    continue
                try:
                    message = ours.recv()
                except (EOFError, OSError):
                    break
                if not isinstance(message, str):
                    left, refusal = message
                    assert left is not None or (self.suspects and "run" in refusal), refusal
                    self.log.num_refusals += left is None
                    self.log.seconds.append(time.monotonic() - started)
                    process.join(DEADLINE_SECONDS)
                    break
                stage = message
                if plan is not None and plan.at is None and plan.stage == stage:
                    plan = replace(plan, at=time.monotonic() - started + plan.delay)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join(DEADLINE_SECONDS)
            ours.close()
            _wait_until_gone(workers)
        return left

    def _plan(self, typical_seconds: float | None) -> "Plan | None":
        if typical_seconds is None:
            return None
        is_worker = self.rng.random() < 0.2
        if self.rng.random() < 0.5:
            return Plan(is_worker=is_worker, at=self.rng.random() * typical_seconds)
        return Plan(is_worker=is_worker, stage=self.rng.choice(STAGES), delay=self.rng.random() ** 2 * 0.3)

    def _strike(self, plan: "Plan", group: int, workers: list[psutil.Process], stage: str, now: float) -> "Plan | None":
        if not plan.is_worker:
            os.killpg(group, signal.SIGKILL)
            self.log.num_group_kills += 1
            self.log.stages[stage or "before"] += 1
            return None
        if not workers:
            return replace(plan, at=now + 0.05)
        with contextlib.suppress(psutil.NoSuchProcess):
            self.rng.choice(workers).kill()
            self.log.num_worker_kills += 1
            self.log.stages[stage] += 1
        return None

    # damage

    def damage(self) -> None:
        """Damage some files, in some rounds; in some of those, let the check find them before the next run."""
        roll = self.rng.random()
        if roll < 0.5:
            return
        if roll < 0.58:
            self._damage_cache()
            return
        if roll < 0.66:
            (self.store.root / "tmp" / f"{self.rng.getrandbits(64):x}.arrow").write_bytes(self.rng.randbytes(5000))
            self.log.damages["half-written file"] += 1
            return
        paths = sorted(path for kind in KINDS for path in (self.store.root / kind).rglob("*") if path.is_file())
        planted = {self._damage(path) for path in self.rng.sample(paths, min(len(paths), self.rng.randrange(1, 4)))}
        self.suspects |= planted
        self._take_stock()
        if self.rng.random() < 0.5:
            lost = {name for name in planted if not (self.store.root / name).exists()}
            check = check_store(self.store)
            found = check.damaged.keys()
            assert found <= self.suspects, f"found damage that nobody did: {found - self.suspects}"
            assert planted - lost <= found, f"did not find {planted - lost - found}"
            assert lost & self.named <= found, "a lost file that another one names was not found"
            self.log.num_found += len(found & planted)
            self.suspects |= check.records_moved

    def _damage(self, path: Path) -> str:
        name = path.relative_to(self.store.root).as_posix()
        kind, act = self.rng.choice(list(DAMAGES.items()))
        before = path.stat().st_mtime_ns
        path.chmod(0o644)
        act(path, self.rng)
        is_rot = kind == "flipped byte" and self.rng.random() < 0.5
        if is_rot:
            os.utime(path, ns=(before, before))
        self.log.damages[f"{kind} in {name.partition('/')[0]}" + (", time kept" if is_rot else "")] += 1
        return name

    def _damage_cache(self) -> None:
        files = sorted(path for path in self.caches.rglob("*") if path.is_file())
        if not files:
            return
        path = self.rng.choice(files)
        kind, act = self.rng.choice(list(DAMAGES.items()))
        act(path, self.rng)
        self.log.damages[f"{kind} in a cache of code"] += 1

    # what must stay

    def _take_stock(self) -> None:
        """Note which records are whole, with all their shards, and were not damaged; and what is named by what is whole."""
        self.finished, self.named = {}, set()
        digests = {name.rpartition("/")[2] for name in self.suspects}
        for name, record in self.store.records():
            assert record is not None or name in self.suspects, f"{name} is half-written"
            if record is None:
                continue
            self.named |= {object_name(shard.digest) for shard in record.shards}
            if name not in self.suspects and not digests & {shard.digest for shard in record.shards}:
                assert all(self._is_there(shard) for shard in record.shards), f"{name} names a shard that is not whole"
                self.finished[name] = (self.store.root / name).stat().st_ino
        for recipe, stage in self.store.refs():
            manifest = self.store.ref(recipe, stage)
            assert manifest is not None or f"refs/{recipe}/{stage}" in self.suspects, "a manifest is half-written"
            for entry in manifest.entries if manifest is not None else ():
                self.named |= {object_name(entry.shard.digest), record_name(stage, entry.key)}

    def _is_there(self, shard: Shard) -> bool:
        path = self.store.root / object_name(shard.digest)
        return path.exists() and path.stat().st_size == shard.num_bytes

    def _check_kept(self) -> None:
        for name, inode in self.finished.items():
            path = self.store.root / name
            assert path.exists(), f"{name} was finished and is lost"
            assert path.stat().st_ino == inode, f"{name} was finished and was made again"


@dataclass(frozen=True)
class Plan:
    """When to strike whom."""

    is_worker: bool
    at: float | None = None
    """Seconds after the start."""
    stage: str = ""
    """Else: so long after this stage was first heard of."""
    delay: float = 0.0


KINDS = ("objects", "records", "refs")
STAGES = (
    "extract", "signals", "toxicity", "policy", "sources", "bands", "index", "near", "lines", "dedup", "sample", "tokenizer", "tokenize",
)  # fmt: skip


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b"x")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(data))


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(max(len(data), 1))])


DAMAGES: dict[str, Callable[[Path, random.Random], object]] = {
    "flipped byte": _flip,
    "cut": _cut,
    "lost": lambda path, _: path.unlink(),
}


def _workers(group: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [
            each
            for each in psutil.Process(group).children(recursive=True)
            if "pipelines.worker" in " ".join(each.cmdline())
        ]
    return []


def _wait_until_gone(processes: list[psutil.Process]) -> None:
    """Until no killed process writes any more."""
    end = time.monotonic() + DEADLINE_SECONDS
    while any(map(_runs, processes)):
        assert time.monotonic() < end, "a worker outlives the kill of its group"
        psutil.wait_procs(processes, timeout=0.01)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
