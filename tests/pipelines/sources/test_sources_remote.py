"""Remote objects over loopback: hang-ups, servers without ranges, objects that change, kills, S3."""

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from warc_files import page

from pipelines.digest import digest_file
from pipelines.errors import FetchError, InputError
from pipelines.sources import remote
from pipelines.sources.files import is_listing, is_remote, listed_urls
from pipelines.sources.record_ends import RecordEnds
from pipelines.sources.remote import fetch_file, held_file, remote_path
from pipelines.sources.remote_streams import RemoteAccess
from pipelines.sources.warc import read_pages

RECORDS = [page(number, 20_000) for number in range(60)]
MEMBERS = [gzip.compress(record, mtime=0) for record in RECORDS]
WARC = b"".join(MEMBERS)
PLAIN = b"".join(RECORDS)


class Objects:
    """A server of objects by path, as good or bad as its fields say."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.etag: str | None = '"1"'
        self.last_modified: str | None = None
        self.knows_ranges = True
        self.knows_length = True
        self.hang_ups: list[int] = []
        """Bytes after which each of the next answers ends; then they are whole."""
        self.answers: list[tuple[int, dict[str, str]]] = []
        """Status and headers of the next answers, without a body; then objects are served."""
        self.requests: list[tuple[str, str | None, str | None]] = []
        """Method and path, Range and If-Range."""
        self.on_hang_up: Callable[[], None] = lambda: None
        objects = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                objects.answer(self)

            do_HEAD = do_GET  # noqa: N815  the name http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *_: None
        self.port = self.server.server_address[1]
        self.access = RemoteAccess(
            allow_addresses=(f"127.0.0.1:{self.port}",), anonymous=True, endpoint_url=f"http://127.0.0.1:{self.port}"
        )

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for method, asked, _ in self.requests if method.startswith("GET")]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.requests.append((f"{handler.command} {handler.path}", asked, condition))
        status, headers, body = self.found(handler.path, asked, condition)
        handler.send_response(status)
        if not self.knows_length:
            handler.send_header("Connection", "close")
        elif "Content-Length" not in headers:
            handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        if handler.command == "HEAD":
            return
        num_bytes = self.hang_ups.pop(0) if self.hang_ups and status in (200, 206) else None
        handler.wfile.write(body[:num_bytes])
        if num_bytes is not None:
            handler.wfile.flush()
            self.on_hang_up()
            handler.close_connection = True

    def found(self, path: str, asked: str | None, condition: str | None) -> tuple[int, dict[str, str], bytes]:
        if self.answers:
            status, headers = self.answers.pop(0)
            return status, headers, b""
        body = self.objects.get(path)
        if body is None:
            return 404, {}, b""
        headers = {"ETag": self.etag, "Last-Modified": self.last_modified}
        headers = {name: value for name, value in headers.items() if value}
        if asked is None or not self.knows_ranges or condition not in (None, self.etag, self.last_modified):
            return 200, headers, body
        first, _, last = asked.removeprefix("bytes=").partition("-")
        part = body[int(first) : int(last) + 1 if last else None]
        if not part:
            return 416, {"Content-Range": f"bytes */{len(body)}"}, b""
        span = f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}"
        return 206, headers | {"Content-Range": span}, part


@pytest.fixture
def server():
    objects = Objects()
    objects.objects = {"/crawl/a.warc.gz": WARC}
    thread = threading.Thread(target=objects.server.serve_forever, args=(0.01,))
    thread.start()
    yield objects
    objects.server.shutdown()
    thread.join()
    objects.server.server_close()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """What would have been waited for, in seconds."""
    waited: list[float] = []
    monkeypatch.setattr(remote, "sleep", waited.append)
    return waited


def fetch(server, folder, path="/crawl/a.warc.gz", **options) -> bytes:
    url = path if "://" in path else server.url(path)
    known = fetch_file(url, folder, server.access, **options)
    made = remote_path(url, folder, options.get("max_records"))
    assert known == held_file(url, folder, max_records=options.get("max_records"))
    assert (known.digest, known.num_bytes) == (digest_file(made), made.stat().st_size)
    assert {item.name for item in folder.iterdir()} == {made.name, f"{made.name}.json"}
    return made.read_bytes()


def test_a_whole_object_and_what_is_known_of_it(server, tmp_path):
    seen = []
    server.last_modified = "Wed, 21 Oct 2015 07:28:00 GMT"
    assert fetch(server, tmp_path, on_bytes=lambda num_bytes, size: seen.append((num_bytes, size))) == WARC
    assert seen[-1] == (len(WARC), len(WARC))
    known = held_file(server.url("/crawl/a.warc.gz"), tmp_path)
    assert (known.etag, known.last_modified, known.size) == ('"1"', server.last_modified, len(WARC))
    assert known.num_records == len(MEMBERS)
    assert known.fetched_at.endswith("+00:00")
    assert remote_path(known.url, tmp_path).name.endswith("-a.warc.gz")


def test_a_finished_file_makes_no_request(server, tmp_path):
    fetch(server, tmp_path)
    server.etag = '"2"'
    assert fetch(server, tmp_path) == WARC
    assert len(server.requests) == 1


@pytest.mark.parametrize("lost", ["", ".json"])
def test_a_file_that_was_taken_away_is_fetched_again(server, tmp_path, lost):
    fetch(server, tmp_path)
    path = remote_path(server.url("/crawl/a.warc.gz"), tmp_path)
    path.with_name(path.name + lost).unlink()
    assert held_file(server.url("/crawl/a.warc.gz"), tmp_path) is None
    assert fetch(server, tmp_path) == WARC


@pytest.mark.parametrize("hang_ups", [[0], [1], [100, 0, 70_000], [len(WARC) - 1], [100_000] * 4])
def test_a_connection_that_ends_early_is_gone_on_with(server, tmp_path, hang_ups, pauses):
    server.hang_ups = list(hang_ups)
    assert fetch(server, tmp_path) == WARC
    starts = [sum(hang_ups[:number]) for number in range(len(hang_ups) + 1)]
    assert server.ranges == [f"bytes={start}-" if start else None for start in starts]
    assert all(condition == '"1"' for _, asked, condition in server.requests if asked)
    assert pauses == [0.5 * 2**number for number in range(len(hang_ups))]


@pytest.mark.parametrize("etag", ['"1"', None, 'W/"1"'])
def test_a_date_will_do_where_there_is_no_strong_etag(server, tmp_path, etag):
    server.etag, server.last_modified = etag, "Wed, 21 Oct 2015 07:28:00 GMT"
    server.hang_ups = [100_000]
    assert fetch(server, tmp_path) == WARC
    assert server.requests[-1][1:] == ("bytes=100000-", '"1"' if etag == '"1"' else server.last_modified)


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_without_a_validator_nothing_is_gone_on_with(server, tmp_path, etag):
    server.etag, server.hang_ups = etag, [100_000, 5]
    assert fetch(server, tmp_path) == WARC
    assert server.ranges == [None] * 3


def test_a_server_without_ranges_is_read_from_the_start(server, tmp_path):
    server.knows_ranges, server.hang_ups = False, [100_000, 200_000]
    assert fetch(server, tmp_path) == WARC
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]


@pytest.mark.parametrize("size", [len(WARC), 50_000, 10**6])
def test_an_object_that_changes_is_never_mixed(server, tmp_path, size):
    other = b"".join(gzip.compress(page(number, 7000), mtime=0) for number in range(200))[:size]

    def change():
        server.etag, server.objects["/crawl/a.warc.gz"] = '"2"', other

    server.hang_ups, server.on_hang_up = [100_000], change
    assert fetch(server, tmp_path) == other
    assert held_file(server.url("/crawl/a.warc.gz"), tmp_path).etag == '"2"'


@pytest.mark.parametrize(
    "lie",
    [
        (206, {"Content-Range": f"bytes 99999-{len(WARC) - 1}/{len(WARC)}", "ETag": '"1"'}),
        (206, {"Content-Range": f"bytes 100000-{len(WARC)}/{len(WARC) + 1}", "ETag": '"1"'}),
        (206, {"Content-Range": f"bytes 100000-{len(WARC) - 1}/{len(WARC)}", "ETag": '"2"'}),
        (206, {"Content-Range": "bytes", "ETag": '"1"'}),
        (206, {}),
        (412, {}),
        (416, {}),
    ],
)
def test_a_range_that_is_not_the_one_asked_for_is_not_taken(server, tmp_path, lie):
    server.hang_ups, server.on_hang_up = [100_000], lambda: server.answers.append(lie)
    assert fetch(server, tmp_path) == WARC
    assert server.ranges == [None, "bytes=100000-", None]


def test_an_object_that_never_rests_is_given_up(server, tmp_path):
    server.hang_ups = [100_000] * 10
    server.on_hang_up = lambda: setattr(server, "etag", f'"{len(server.requests)}"')
    with pytest.raises(FetchError, match=r"a\.warc\.gz"):
        fetch(server, tmp_path)
    assert len(server.requests) == 5


def test_an_end_that_cannot_be_trusted_is_looked_at(server, tmp_path):
    """Without a length, a body that is cut off ends like a whole one; its last record does not."""
    server.knows_length, server.hang_ups = False, [100_000]
    assert fetch(server, tmp_path) == WARC
    assert server.ranges == [None, None]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(server, tmp_path, status, pauses):
    server.answers = [(status, {"Retry-After": "7"}), (status, {}), (status, {"Retry-After": "soon"})]
    assert fetch(server, tmp_path) == WARC
    assert pauses == [7.0, 1.0, 2.0]


def test_a_server_that_stays_busy_is_left_for_later(server, tmp_path, pauses):
    server.answers = [(503, {})] * 5
    with pytest.raises(FetchError, match=r"a\.warc\.gz \(HTTP status 503\)"):
        fetch(server, tmp_path)
    server.answers = [(429, {"Retry-After": "3600"})]
    with pytest.raises(FetchError, match="again in 3600 s"):
        fetch(server, tmp_path)
    assert (len(pauses), len(server.requests)) == (4, 6)


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 410, 451])
def test_what_cannot_be_had_is_named(server, tmp_path, status):
    server.answers = [(status, {})]
    with pytest.raises(InputError, match=rf"HTTP status {status} for http://127.*a\.warc\.gz"):
        fetch(server, tmp_path)
    assert len(server.requests) == 1


def test_a_closed_port_may_open(server, tmp_path):
    access = RemoteAccess(allow_addresses=("127.0.0.0/8",))
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:9/"):
        fetch_file("http://127.0.0.1:9/a.warc.gz", tmp_path, access)


def test_addresses_are_judged_also_after_a_redirect(server, tmp_path):
    with pytest.raises(InputError, match="allow_addresses"):
        fetch_file(server.url("/crawl/a.warc.gz"), tmp_path, RemoteAccess())
    assert not server.requests
    server.answers = [(302, {"Location": "/crawl/a.warc.gz"})]
    assert fetch(server, tmp_path) == WARC
    for target in ("http://127.0.0.1:9/x", "http://169.254.169.254/latest/", f"http://[::1]:{server.port}/"):
        server.answers = [(302, {"Location": target})]
        with pytest.raises(InputError, match="not public"):
            fetch_file(server.url("/b.warc.gz"), tmp_path, server.access)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a.example/", "http://[", "s3://b/k"])
def test_redirects_lead_to_web_servers_only(server, tmp_path, target):
    server.answers = [(301, {"Location": target})]
    with pytest.raises(InputError, match=r"redirect|wanted a URL"):
        fetch(server, tmp_path)


def test_redirects_end(server, tmp_path):
    server.answers = [(302, {"Location": "/again"})] * 9
    with pytest.raises(InputError, match="5 redirects"):
        fetch(server, tmp_path)


@pytest.mark.parametrize("packed", [True, False], ids=["gzip", "plain"])
@pytest.mark.parametrize("limit", [1, 7, 59, 60, 61])
def test_max_records_takes_a_prefix_of_whole_records(server, tmp_path, packed, limit):
    records = MEMBERS if packed else RECORDS
    server.objects["/b.warc"] = b"".join(records)
    server.hang_ups = [1, 20_000]
    assert fetch(server, tmp_path, "/b.warc", max_records=limit) == b"".join(records[:limit])
    assert held_file(server.url("/b.warc"), tmp_path, max_records=limit).num_records == min(limit, 60)
    assert held_file(server.url("/b.warc"), tmp_path) is None


def test_a_packing_without_known_ends_is_taken_whole(server, tmp_path):
    for name, data in {
        "/z": zstandard.compress(PLAIN),
        "/one": gzip.compress(PLAIN, mtime=0),
        "/none": b"<html>" * 99,
    }.items():
        server.objects[name] = data
        server.hang_ups = [50]
        assert fetch(server, tmp_path / name[1:], name, max_records=2) == data


def test_what_is_too_large_is_refused(server, tmp_path):
    for server.knows_length in (True, False):
        with pytest.raises(InputError, match="more than 1,000 bytes"):
            fetch(server, tmp_path, max_bytes=1000)
    assert max(path.stat().st_size for path in tmp_path.iterdir()) < len(WARC)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_part_that_a_run_left_becomes_the_object(tmp_path_factory, data):
    """Cut anywhere, with anything after it that a lost disk cache may leave."""
    folder = tmp_path_factory.mktemp("left")
    num_left = data.draw(st.integers(0, len(WARC)))
    limit, num_step_bytes = data.draw(st.sampled_from([None, 1, 30])), data.draw(st.sampled_from([9_999, 1 << 20]))
    url = "http://127.0.0.1:9/a.warc.gz"
    path = remote_path(url, folder, limit)
    known = remote.RemoteFile(url=url, etag='"1"', last_modified=None, size=len(WARC), max_records=limit)
    remote._save(path, known)
    part = path.with_name(path.name + ".part")
    part.write_bytes(WARC[:num_left] + data.draw(st.sampled_from([b"", bytes(5000), b"\x1f\x8b\x08 not gzip"])))
    with part.open("r+b") as file:
        left = remote._Part(file, path, known, 1 << 30)
        left.take_up()
        whole = [len(b"".join(MEMBERS[:number])) for number in range((limit or len(MEMBERS)) + 1)]
        assert left.num_bytes == max(end for end in whole if end <= num_left)
        while not left.is_whole:
            left.append(WARC[left.num_bytes :][:num_step_bytes])
        sealed = left.seal()
    assert part.read_bytes() == WARC[: whole[-1]]
    assert (sealed.digest, sealed.num_records) == (digest_file(part), limit or len(MEMBERS))


@pytest.mark.parametrize("knows_checksums", [True, False])
def test_a_later_run_asks_from_the_last_whole_record(server, tmp_path, monkeypatch, knows_checksums):
    monkeypatch.setattr(remote, "_MAX_FAILURES", 1)
    server.objects["/b"] = WARC if knows_checksums else PLAIN
    server.hang_ups = [100_000]
    with pytest.raises(FetchError):
        fetch(server, tmp_path, "/b")
    assert fetch(server, tmp_path, "/b") == server.objects["/b"]
    ends = RecordEnds()
    ends.feed(WARC[:100_000])
    assert server.ranges == [None, f"bytes={ends.end}-" if knows_checksums else None]


def test_a_run_that_was_stopped_before_the_new_name_makes_no_request(server, tmp_path):
    fetch(server, tmp_path)
    path = remote_path(server.url("/crawl/a.warc.gz"), tmp_path)
    path.rename(path.with_name(path.name + ".part"))
    assert fetch(server, tmp_path) == WARC
    assert len(server.requests) == 1


def test_what_another_run_noted_in_a_broken_way_is_not_believed(server, tmp_path):
    path = remote_path(server.url("/crawl/a.warc.gz"), tmp_path)
    for note in (b"", b"{", b"[]", b"null", b'{"url": 1}', b"\xff"):
        path.with_name(path.name + ".json").write_bytes(note)
        path.with_name(path.name + ".part").write_bytes(b"left")
        assert fetch(server, tmp_path) == WARC
        path.unlink()


CHILD = """
import sys
from pathlib import Path
from pipelines.sources.remote import fetch_file
from pipelines.sources.remote_streams import RemoteAccess
fetch_file(sys.argv[1], Path(sys.argv[2]), RemoteAccess(allow_addresses=("127.0.0.0/8",)),
           on_bytes=lambda num_bytes, size: print(num_bytes, flush=True))
"""


def test_killed_again_and_again_the_file_is_the_object(server, tmp_path):
    """Each child is killed in the middle of a body that does not go on before it is dead."""
    url = server.url("/crawl/a.warc.gz")
    for wanted in (1, 90_000, len(WARC) // 3):
        dead = threading.Event()
        server.hang_ups, server.on_hang_up = [wanted], lambda dead=dead: dead.wait(30)
        asked = len(server.requests)
        child = subprocess.Popen([sys.executable, "-c", CHILD, url, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        start = None
        for line in child.stdout:
            start = int((server.ranges[asked] or "bytes=0-")[6:-1]) if start is None else start
            if int(line) == start + wanted:
                child.kill()
                break
        child.wait()
        child.stdout.close()
        dead.set()
        assert held_file(url, tmp_path) is None
    server.on_hang_up = lambda: None
    assert fetch(server, tmp_path) == WARC
    asked = [int(span[6:-1]) if span else 0 for span in server.ranges]
    assert asked == sorted(asked)
    assert asked[-1] > 90_000


class TestS3:
    """Arrow's client against a server that answers HEAD and ranges, path-style."""

    URL = "s3://bucket/crawl/a b.warc.gz"

    @pytest.fixture(autouse=True)
    def bucket(self, server):
        pytest.importorskip("pyarrow._s3fs")
        server.objects = {"/bucket/crawl/a%20b.warc.gz": WARC}
        server.last_modified = "Wed, 21 Oct 2015 07:28:00 GMT"

    def test_a_whole_object(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.sources.remote_streams._S3_RANGE_BYTES", 100_000)
        assert fetch(server, tmp_path, self.URL) == WARC
        assert held_file(self.URL, tmp_path).etag == '"1"'
        num_requests = len(server.requests)
        assert num_requests == 2 + -(-len(WARC) // 100_000)
        assert fetch(server, tmp_path, self.URL) == WARC
        assert len(server.requests) == num_requests

    def test_what_a_run_left_is_gone_on_with_unless_it_changed(self, server, tmp_path):
        path = remote_path(self.URL, tmp_path)
        for etag, first in (('"1"', len(MEMBERS[0])), ('"0"', 0)):
            date = "2015-10-21T07:28:00Z"
            known = remote.RemoteFile(url=self.URL, etag=etag, last_modified=date, size=len(WARC), max_records=None)
            remote._save(path, known)
            path.with_name(path.name + ".part").write_bytes(WARC[: len(MEMBERS[0]) + 99])
            server.requests.clear()
            assert fetch(server, tmp_path, self.URL) == WARC
            assert server.ranges[0].startswith(f"bytes={first}-")
            path.unlink()

    def test_max_records(self, server, tmp_path):
        assert fetch(server, tmp_path, self.URL, max_records=3) == b"".join(MEMBERS[:3])

    def test_an_object_that_changes_meanwhile_is_read_anew(self, server, tmp_path, monkeypatch):
        monkeypatch.setattr("pipelines.sources.remote_streams._S3_RANGE_BYTES", 100_000)
        other = PLAIN

        def change(num_bytes, size):
            server.etag, server.objects["/bucket/crawl/a%20b.warc.gz"] = '"2"', other

        # The ranges that follow are of the other version.
        assert fetch(server, tmp_path, self.URL, on_bytes=change) == other

    @pytest.mark.parametrize("status", [403, 404])
    def test_what_cannot_be_had_is_named(self, server, tmp_path, status):
        server.answers = [(status, {})]
        with pytest.raises(InputError, match="s3://bucket/crawl"):
            fetch(server, tmp_path, self.URL)

    @pytest.mark.parametrize("url", ["s3://bucket", "s3://BUCKET/x", "s3:///x", "s3://a@b/x"])
    def test_what_is_no_object_is_named(self, server, tmp_path, url):
        with pytest.raises(InputError, match="s3://bucket/key"):
            fetch(server, tmp_path, url)


@settings(max_examples=60)
@given(data=st.data())
def test_record_ends_do_not_depend_on_how_the_bytes_come(data):
    records = data.draw(st.sampled_from([MEMBERS[:9], RECORDS[:9]]))
    whole = b"".join(records)
    cut = data.draw(st.integers(0, len(whole)))
    ends = RecordEnds()
    position = 0
    step = data.draw(st.sampled_from([7, 1000, 65_536, len(whole)]))
    while position < cut:
        ends.feed(whole[position : min(position + step, cut)])
        position += step
    expected = [len(b"".join(records[:number])) for number in range(len(records) + 1)]
    assert ends.end == max(end for end in expected if end <= cut)
    assert ends.num_records == expected.index(ends.end)


@given(data=st.binary(max_size=300), head=st.sampled_from([b"", b"WARC/1.0\r\nContent-Length: 5\r\n\r\n", MEMBERS[0]]))
def test_record_ends_of_anything(data, head):
    ends = RecordEnds()
    ends.feed(head + data)
    ends.feed(data)
    assert 0 <= ends.end <= len(head) + 2 * len(data)


class TestListings:
    LINES = b"crawl-data/a.warc.gz\n\r\n/crawl-data/b.warc.gz\r\ncrawl-data/a.warc.gz\ns3://bucket/c.warc.gz"

    @pytest.mark.parametrize(
        "pack",
        [bytes, gzip.compress, lambda data: gzip.compress(data[:30], mtime=0) + gzip.compress(data[30:], mtime=0)],
    )
    @pytest.mark.parametrize("base_url", ["https://data.example", "s3://commoncrawl/"])
    def test_lines_become_urls_in_their_order_each_once(self, tmp_path, pack, base_url):
        path = tmp_path / "warc.paths.gz"
        path.write_bytes(pack(self.LINES))
        base = base_url.rstrip("/")
        expected = [f"{base}/crawl-data/a.warc.gz", f"{base}/crawl-data/b.warc.gz", "s3://bucket/c.warc.gz"]
        assert listed_urls(path, base_url) == expected
        assert listed_urls(path, base_url, 2) == expected[:2]

    @pytest.mark.parametrize(
        ("data", "base_url", "sentence"),
        [
            (b"", "https://a/", "without a line"),
            (b"\n\n", "https://a/", "without a line"),
            (b"a.warc.gz", None, "set base_url"),
            (b"file:///etc/passwd", "https://a/", "file 1 of"),
            (b"a\nHTTP://x/\x00", "https://a/", "file 2 of"),
            (b"a" * 5000, "https://a/", "file 1 of"),
            (gzip.compress(b"a\n" * 9, mtime=0)[:-9], "https://a/", "damaged"),
            (gzip.compress(b"a\n", mtime=0)[:-8] + b"\0" * 8, "https://a/", "damaged"),
        ],
    )
    def test_what_is_no_listing_is_named(self, tmp_path, data, base_url, sentence):
        path = tmp_path / "warc.paths"
        path.write_bytes(data)
        with pytest.raises(InputError, match=sentence):
            listed_urls(path, base_url)

    def test_names(self):
        assert [is_remote(path) for path in ("a/b.warc.gz", "https://a/b", "s3://a/b", "C:/x")] == [0, 1, 1, 0]
        names = ("warc.paths.gz", "x/wet.paths", "https://a/warc.paths.gz?sig=1", "https://a/paths.warc.gz", "paths")
        assert [is_listing(name) for name in names] == [1, 1, 1, 0, 0]


def test_the_reader_takes_a_prefix_for_a_whole_file(server, tmp_path):
    fetch(server, tmp_path, max_records=5)
    rows = [
        row
        for batch in read_pages(remote_path(server.url("/crawl/a.warc.gz"), tmp_path, 5))
        for row in batch.to_pylist()
    ]
    assert [row["problem"] for row in rows] == [None] * 5
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["num_records"] == 5
