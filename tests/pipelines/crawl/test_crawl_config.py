"""A config that cannot be meant is refused, naming the field."""

from dataclasses import replace

import pytest

from pipelines.crawl import CrawlConfig
from pipelines.digest import digest_value
from pipelines.errors import ConfigError


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seeds", ()),
        ("seeds", "http://a.example/"),
        ("seeds", ("ftp://a.example/",)),
        ("seeds", ("a.example",)),
        ("seeds", ("http://",)),
        ("seeds", ("http://[bad/",)),
        ("seeds", ("http://a.example:99999/",)),
        ("seeds", ("http://user:secret@a.example/",)),
        ("seeds", ("http://a.example/" + "x" * 3000,)),
        ("scope", "planet"),
        ("include", ("(",)),
        ("exclude", ".*"),
        ("max_pages", 0),
        ("max_pages", True),
        ("max_depth", -1),
        ("delay_seconds", -0.1),
        ("delay_seconds", float("nan")),
        ("timeout_seconds", float("inf")),
        ("max_attempts", 0),
        ("warc_max_records", 0),
        ("user_agent", "corpus mill/1.0"),
        ("contact", "a\r\nX-Evil: 1"),
        ("contact", "王"),
        ("allow_addresses", ("nowhere",)),
        ("allow_addresses", "127.0.0.1:80"),
        ("recrawl_after_hours", -1),
    ],
)
def test_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: got") as caught:
        CrawlConfig(**{"seeds": ("http://a.example/",), field: value})
    assert "secret" not in str(caught.value)


def test_identity_is_what_shapes_the_crawl() -> None:
    config = CrawlConfig(seeds=("http://a.example/",))
    for change in ({"concurrency": 3}, {"timeout_seconds": 5.0}, {"delay_seconds": 9.0}, {"concurrency_per_host": 2}):
        assert digest_value(replace(config, **change)) == digest_value(config)
    for change in ({"max_pages": 3}, {"scope": "domain"}, {"exclude": ("x",)}, {"seeds": ("http://b.example/",)}):
        assert digest_value(replace(config, **change)) != digest_value(config)


def test_user_agent_header() -> None:
    config = CrawlConfig(seeds=("http://a.example/",), contact="https://op.example/bot")
    assert config.user_agent_header == "corpusmill (+https://op.example/bot)"
