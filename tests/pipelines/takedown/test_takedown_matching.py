"""Which documents a take-down names: URLs, domains, document ids, quotations; and what becomes of their rows."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.digest import canonical
from pipelines.errors import ConfigError
from pipelines.extract import ExtractConfig
from pipelines.extract.stage import derive_documents
from pipelines.schemas import DOCUMENT
from pipelines.signals.variants import simplified_characters
from pipelines.store import Store
from pipelines.takedown.documents import TAKEN_DOWN, Takedown, matches, pseudonym, take_down, url_test, urls_test
from pipelines.takedown.names import digest_name, host_of, url_form
from pipelines.takedown.quotes import Quote, fold, holds_any, quote_of

PARAGRAPH = "It was the best of times, it was the worst of times, it was the age of wisdom."
CHINESE = "從前有座山，山裡有座廟，廟裡有個老和尚在講故事。"

# URLs and hosts


@pytest.mark.parametrize(
    "other",
    [
        "http://example.org/a%20b?x=1&y=%E6%96%87",
        "https://EXAMPLE.org:443/a b?y=文&x=1#part",
        "//user@example.org:80/a b?utm_source=mail&x=1&y=文&gclid=7",
        " https://example.org./a%20b?x=1&&y=文 ",
    ],
)
def test_spellings_of_one_url(other):
    assert url_form(other) == url_form("https://example.org/a b?x=1&y=文")


def test_other_urls_stay_other():
    urls = ["https://example.org/a", "https://example.org/A", "https://example.org/a/", "https://www.example.org/a"]
    urls += ["https://example.org:8080/a", "https://example.org/a?x=1", "doc:80", "doc:443", "doc", "row 7"]
    assert len(set(map(url_form, urls))) == len(urls)
    assert url_form("https://例え.中国") == url_form("http://xn--r8jz45g.xn--fiqs8s/")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://News.Example.org:8080/x", "news.example.org"),
        ("example.org/x", "example.org"),
        ("http://[::1]:80/x", "[::1]"),
        ("doc:80", None),
        ("mailto:a@example.org", None),
        ("a text with example.org in it", None),
    ],
)
def test_host_of(url, host):
    assert host_of(url) == host


SOME_URLS = st.lists(
    st.none()
    | st.sampled_from(["https://a.example/x", "http://A.example:80/x#y", "https://b.a.example/", "doc:80", ""]),
    max_size=8,
)


@given(SOME_URLS, st.integers(0, 8), st.sets(st.sampled_from(["https://a.example/x", "doc:80", "none"])), st.booleans())
def test_a_column_of_urls_is_told_as_each_of_them(urls, start, wanted, by_domain):
    domains = (digest_name("domain", "a.example"),) if by_domain else ()
    takedown = Takedown(urls=tuple(digest_name("url", url_form(url)) for url in wanted), domains=domains)
    is_named = url_test(takedown)
    column = pa.array(urls, pa.string()).slice(start)
    expected = [url is not None and is_named(url) for url in urls[start:]]
    for _ in range(2):  # the second time it is remembered
        assert urls_test(takedown)(column).tolist() == expected


def test_a_domain_means_all_below_it_and_nothing_beside():
    is_named = url_test(Takedown(domains=(digest_name("domain", "example.org"),)))
    assert all(map(is_named, ["http://example.org", "https://a.b.example.org/x", "http://EXAMPLE.org.:81/"]))
    assert not any(
        map(is_named, ["http://notexample.org/", "http://example.org.net/", "http://a.example/?example.org"])
    )


# quotations


@pytest.mark.parametrize(
    ("quote", "text"),
    [
        ("It was the BEST of times, it was", PARAGRAPH),
        ("the worst of\n  times —it was the", PARAGRAPH),
        ("ｔｈｅ ｗｏｒｓｔ ｏｆ ｔｉｍｅｓ， ｉｔ ｗａｓ", PARAGRAPH),
        ("从前有座山，山里有座庙", CHINESE),
        ("山裡有\n座廟 廟裡有個老", CHINESE),
        ("CAFÉ in the Rue de l’Odéon", "a cafe\u0301 in the rue de\u00adl'Ode\u0301on"),
    ],
)
def test_a_quotation_is_found_through_its_spellings(quote, text):
    assert holds_any(text, [quote_of(quote)])
    assert holds_any("前文 before. " * 9000 + text + " after 後文", [quote_of(quote)])


@pytest.mark.parametrize("text", ["too short a text", "一二三四五六七", "!!! ... ???" * 9, "", "短 text 混合 mix"])
def test_a_short_quotation_is_refused(text):
    with pytest.raises(ConfigError, match="quote more of the text"):
        quote_of(text)


@given(text=st.text(alphabet="ab ，一二é\n", max_size=80), start=st.integers(0, 60), length=st.integers(1, 30))
def test_holds_any_is_what_a_plain_search_finds(text, start, length):
    piece = fold(text)[start : start + length]
    other = (fold("ab一二ba") if start % 2 else piece)[:length]
    for wanted in (piece, other):
        shown = wanted.tobytes().decode("utf-32-le")
        if not shown:
            continue
        whole = fold(text).tobytes().decode("utf-32-le")
        assert holds_any(text, [made(shown)]) == (shown in whole)


MARKS = st.sampled_from("\u0301\u0340\u0d57\u1161\u11a8\u314f\u3099\u200d\u00ad\ufb03ﬀ①ㅏ가")


@given(text=st.text(st.one_of(st.characters(), MARKS), max_size=12))
def test_fold_is_what_the_whole_text_normalises_to(text):
    normal = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    letters = "".join(filter(str.isalnum, normal)).translate(simplified_characters())
    assert fold(text).tobytes().decode("utf-32-le", "surrogatepass") == letters


def test_fold_of_every_code_point():
    every = [chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000]
    normal = [unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", char).casefold()) for char in every]
    simple = simplified_characters()
    for char, text in zip(every, normal, strict=True):
        assert fold(char).tolist() == [ord(each) for each in "".join(filter(str.isalnum, text)).translate(simple)]


def made(folded: str) -> Quote:
    """The quote of a folded text of any length."""
    from pipelines.takedown.quotes import _digest, _prefixes

    codes = fold(folded)
    return Quote(len(codes), f"{int(_prefixes(codes)[-1]):016x}", _digest(codes))


def test_a_hash_that_collides_is_not_enough():
    quote = quote_of(PARAGRAPH)
    assert not holds_any(PARAGRAPH, [Quote(quote.num_chars, quote.rolling, "0" * 32)])


# rows

URLS = ["https://a.example/1", "http://a.example/1#x", "https://b.example/2", "https://sub.b.example/3", None, "row:5"]
TEXTS = ["", "short", PARAGRAPH, CHINESE, "他说：从前有座山，山里有座庙。", f"before {PARAGRAPH} after"]
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "doc_id": st.integers(0, 5).map(lambda number: f"{number:032x}"),
            "url": st.sampled_from(URLS),
            "title": st.sampled_from([None, "A title", PARAGRAPH]),
            "fetched_at": st.sampled_from([None, 1_700_000_000_000_000]),
            "num_page_bytes": st.integers(0, 9),
            "directives": st.lists(st.sampled_from(["meta: noai", "x"]), max_size=2),
            "problem": st.sampled_from([None, None, "empty"]),
            "text": st.sampled_from(TEXTS),
        }
    ),
    max_size=6,
)
TAKEDOWNS = st.builds(
    Takedown,
    urls=st.sets(st.sampled_from([digest_name("url", url_form(url)) for url in URLS if url])).map(tuple),
    domains=st.sets(st.sampled_from([digest_name("domain", name) for name in ("b.example", "sub.b.example")])).map(
        tuple
    ),
    doc_ids=st.sets(st.integers(0, 5).map(lambda number: digest_name("doc_id", f"{number:032x}"))).map(tuple),
    quotes=st.sets(st.sampled_from([quote_of(PARAGRAPH), quote_of(CHINESE[:12])])).map(tuple),
)


def batch_of(rows: list[dict[str, object]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=DOCUMENT)


@given(rows=ROWS, takedown=TAKEDOWNS)
def test_a_row_keeps_its_place_and_nothing_of_its_page(rows, takedown):
    batch = batch_of(rows)
    after = take_down(batch, takedown)
    for before, row, hit in zip(batch.to_pylist(), after.to_pylist(), matches(batch, takedown), strict=True):
        if not hit:
            assert row == before
            continue
        kept = {name: value for name, value in row.items() if value not in (None, "", 0, [])}
        assert kept == {"doc_id": pseudonym(before["doc_id"]), "problem": TAKEN_DOWN}
    assert not matches(after, takedown).any()
    assert take_down(after, takedown).equals(after)


def test_a_pseudonym_that_somebody_takes_down_changes_nothing():
    first = "0" * 32
    batch = take_down(batch_of([{"doc_id": first, "text": "", "num_page_bytes": 1, "directives": []}]), naming(first))
    assert take_down(batch, naming(first, pseudonym(first))).equals(batch)


def naming(*doc_ids: str) -> Takedown:
    return Takedown(doc_ids=tuple(digest_name("doc_id", doc_id) for doc_id in doc_ids))


@given(shard=st.lists(ROWS, max_size=3), old=TAKEDOWNS, new=TAKEDOWNS, grows=st.booleans())
def test_a_derived_shard_is_the_fresh_one_to_the_byte(tmp_path_factory, shard, old, new, grows):
    new = old | new if grows else new
    store = Store(tmp_path_factory.mktemp("derived"))
    fresh = {
        name: store.write(DOCUMENT, [take_down(batch_of(rows), takedown) for rows in shard])
        for name, takedown in (("old", old), ("new", new))
    }
    old_config = canonical(ExtractConfig(takedown=old))
    found = derive_documents(lambda names: store.read(fresh["old"], names), old_config, ExtractConfig(takedown=new))
    if found is None:
        assert not new.covers(old)
        assert any(TAKEN_DOWN in batch.column("problem").to_pylist() for batch in store.read(fresh["old"]))
    elif found.batches is None:
        assert fresh["old"] == fresh["new"]
    else:
        assert store.write(DOCUMENT, found.batches) == fresh["new"]


def test_another_change_of_the_config_is_not_derived():
    old = canonical(ExtractConfig())
    assert derive_documents(lambda _names: iter(()), old, ExtractConfig(min_text_chars=2)) is None
    assert derive_documents(lambda _names: iter(()), {}, ExtractConfig()) is None
