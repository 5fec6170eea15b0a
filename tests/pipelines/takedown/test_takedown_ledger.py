"""The ledger of take-downs: what it keeps, what it refuses, and that damage is never passed over."""

import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import ConfigError, IntegrityError
from pipelines.takedown.documents import Takedown, url_test
from pipelines.takedown.ledger import add_request, lift_request, read_ledger, requests_naming, takedown_of

SECRET = "My neighbour at number nine owes the bank a great deal of money."


@pytest.fixture
def path(tmp_path):
    return tmp_path / "workspace" / "takedowns.jsonl"


def add(path, scope, value, reason="a court order"):
    return add_request(path, scope, value, by="alice", reason=reason)


def test_it_keeps_who_when_why_and_what(path):
    assert read_ledger(path) == []
    added = add(path, "url", "https://a.example/1")
    assert read_ledger(path) == [added]
    assert (added.by, added.reason, added.scope, added.value, added.is_active) == (
        *("alice", "a court order", "url", "https://a.example/1"),
        True,
    )
    assert added.added_at.endswith("+00:00")
    lifted = lift_request(path, added.id, by="bob", reason="appeal")
    assert (lifted.lifted_by, lifted.lifted_because, lifted.is_active) == ("bob", "appeal", False)
    assert takedown_of(read_ledger(path)) == Takedown()
    again = add(path, "url", "https://a.example/1")
    assert again.id != added.id
    assert takedown_of(read_ledger(path)) == again.takedown()


def test_a_quotation_is_never_written_down(path):
    add(path, "text", SECRET)
    written = path.read_text()
    assert not any(word in written for word in ("neighbour", "bank", "money"))
    assert read_ledger(path)[0].quote.num_chars == 51


@pytest.mark.parametrize(
    ("scope", "value"),
    [
        ("url", " "),
        ("url", "a\nb"),
        ("domain", "a b"),
        ("domain", ""),
        ("doc_id", "12"),
        ("doc_id", "Z" * 32),
        ("text", "x"),
    ],
)
def test_what_names_nothing_is_refused(path, scope, value):
    with pytest.raises(ConfigError):
        add(path, scope, value)
    assert read_ledger(path) == []


def test_a_reason_is_required_and_only_what_is_in_force_is_lifted(path):
    with pytest.raises(ConfigError, match="--reason"):
        add(path, "domain", "a.example", reason=" ")
    added = add(path, "domain", "https://A.example/x")
    assert added.value == "a.example"
    with pytest.raises(ConfigError, match="unknown take-down"):
        lift_request(path, "0" * 12, by="bob", reason="r")
    lift_request(path, added.id, by="bob", reason="r")
    with pytest.raises(ConfigError, match="lifted already"):
        lift_request(path, added.id, by="bob", reason="r")


def test_the_takedown_does_not_say_who_asked(tmp_path):
    first, second = tmp_path / "1", tmp_path / "2"
    for path, order in ((first, (1, 2)), (second, (2, 1))):
        for number in order:
            add_request(path, "url", f"https://a.example/{number}", by=f"{path}", reason=f"{path}")
    assert takedown_of(read_ledger(first)) == takedown_of(read_ledger(second))


def test_a_url_is_found_in_the_crawlers_spelling_and_without_its_scheme(path):
    added = add(path, "url", "a.example/p?sid=d41d8cd98f00b204e9800998ecf8427e&b=1&a=2")
    is_named = url_test(added.takedown())
    assert is_named("https://a.example/p?a=2&b=1")
    assert is_named("a.example/p?sid=d41d8cd98f00b204e9800998ecf8427e&b=1&a=2")
    assert requests_naming([added], "https://a.example/p?a=2&b=1") == [added]


def test_requests_that_name_a_page(path):
    url, domain = add(path, "url", "https://a.example/1"), add(path, "domain", "a.example")
    doc_id = add(path, "doc_id", "ab" * 16)
    requests = read_ledger(path)
    assert requests_naming(requests, "http://A.example:80/1#x") == [url, domain]
    assert requests_naming(requests, "http://sub.a.example/2") == [domain]
    assert requests_naming(requests, "ab" * 16) == [doc_id]
    assert requests_naming(requests, "http://b.example/") == []


def test_two_commands_at_once_lose_nothing(path):
    threads = [threading.Thread(target=add, args=(path, "url", f"https://a.example/{n}")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(request.value for request in read_ledger(path)) == [f"https://a.example/{n}" for n in range(8)]


@given(place=st.floats(0, 1, exclude_max=True), how=st.sampled_from(["flip", "cut", "line", "swap", "forge"]))
def test_damage_stops_whoever_reads(tmp_path_factory, place, how):
    path = tmp_path_factory.mktemp("ledger") / "takedowns.jsonl"
    for number in range(3):
        add(path, "url", f"https://a.example/{number}")
    data = path.read_bytes()
    at, lines = int(place * len(data)), data.splitlines(keepends=True)
    number = int(place * 2)  # the last line may be lost without a trace: nothing follows it
    if how == "flip":
        data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    elif how == "cut":
        data = data[:at]
    elif how == "line":
        data = b"".join(lines[:number] + lines[number + 1 :])
    elif how == "swap":
        data = b"".join([lines[1 - number], lines[number], lines[2]] if number == 0 else [lines[0], lines[2], lines[1]])
    else:
        entry = json.loads(lines[number]) | {"value": "https://b.example/"}
        data = b"".join([*lines[:number], json.dumps(entry).encode() + b"\n", *lines[number + 1 :]])
    path.write_bytes(data)
    if how == "cut" and (not data or data.endswith(b"\n")):
        return
    with pytest.raises(IntegrityError, match="put back a copy of the file"):
        read_ledger(path)
    with pytest.raises(IntegrityError):
        add(path, "url", "https://a.example/9")
    assert path.read_bytes() == data
