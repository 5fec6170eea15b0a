"""What counts as a secret, what does not, and that it is hidden wherever it may be told."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.redaction import HIDDEN, Redacting, Redactor, secret_in

REDACTOR = Redactor()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("got https://me:pass@host/a, wanted", "got https://***@host/a, wanted"),
        ("postgresql+asyncpg://user:p@ss@db:5432/x", "postgresql+asyncpg://***@db:5432/x"),
        ("postgresql://user:pa/ss?@db/x", "postgresql://***@db/x"),
        ("http://tokenonly@host/", "http://***@host/"),
        ("HTTPS://ME:PASS@HOST/", "HTTPS://***@HOST/"),
        (
            "https://b.s3.test/k?X-Amz-Credential=AK%2F1&X-Amz-Signature=abc&list-type=2",
            "https://b.s3.test/k?X-Amz-Credential=***&X-Amz-Signature=***&list-type=2",
        ),
        ("https://host/a?page=2&token=abc#top", "https://host/a?page=2&token=***#top"),
        ("https://host/a?sv=1&amp;sig=abc%3D", "https://host/a?sv=1&amp;sig=***"),
        ("https://host/?next=%2Fa%3Fapi_key%3Dabc", "https://host/?next=%2Fa%3Fapi_key%3D***"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("{'Authorization': 'Basic dTpw'}", "{'Authorization': '***'}"),
        ("proxy-authorization=Basic dTpw;", "proxy-authorization=***;"),
        ("sent bearer abcdefghijklmnopqrst", "sent bearer ***"),
        ("PREFECT_API_AUTH_STRING=user:pass", "PREFECT_API_AUTH_STRING=***"),
        ('{"password": "abc123", "n": 1}', '{"password": "***", "n": 1}'),
        ("HF_TOKEN=abc123 other", "HF_TOKEN=*** other"),
        ("hf_abcdefghijklmnopqrstuvwx", HIDDEN),
        ("key AKIAIOSFODNN7EXAMPLE.", f"key {HIDDEN}."),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abc-def", HIDDEN),
        ("a\n-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----\nb", f"a\n{HIDDEN}\nb"),
    ],
)
def test_secrets_are_hidden(text, wanted):
    assert REDACTOR.text(text) == wanted
    assert REDACTOR.text(wanted) == wanted, "to hide twice changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "https://host/@user/post",
        "https://host:8080/@user",
        "https://host/a?page=2&q=tokens",
        "mail me@host.test",
        '{"eot_token": 8191, "tokens": 59823, "num_tokens": 3}',
        "token: 5, tokens/s 3, got token 'x'",
        "s3://bucket/prefix/a@b",
        "git@host:repo",
        "12 basic documents, bearer of news",
        "sha256:0123abcd, key 0123abcd",
        "a password is wanted",
    ],
)
def test_what_is_no_secret_stays(text):
    assert REDACTOR.text(text) == text
    assert secret_in(text) is None


def test_values_of_the_environment_are_hidden_wherever_they_stand():
    redactor = Redactor.of(
        {
            "PREFECT_API_AUTH_STRING": "admin:Tr0ub4dor",
            "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn+FEMI",
            "MLFLOW_TRACKING_URI": "postgresql://me:s3cr%21t9@db/x",
            "HTTPS_PROXY": "http://proxyuser:pr0xyword@proxy.test:3128",
            "GOOGLE_APPLICATION_CREDENTIALS": "/etc/key.json",
            "POSTGRES_PASSWORD": "postgres",
            "HOME": "/home/me",
        }
    )
    text = "Tr0ub4dor wJalr/XUtn+FEMI s3cr%21t9 s3cr!t9 pr0xyword /etc/key.json postgres /home/me"
    assert redactor.text(text) == "*** *** *** *** *** /etc/key.json postgres /home/me"


def test_values_in_mappings_and_lists_are_hidden_too():
    told = {"a": ["https://u:p@h/", {"b": ("hf_abcdefghijklmnopqrstuvwx", 3, None)}], "https://u:p@h/": 1.5}
    assert REDACTOR.value(told) == {"a": ["https://***@h/", {"b": ["***", 3, None]}], "https://***@h/": 1.5}


def test_an_error_and_what_caused_it_are_hidden():
    def fail() -> None:
        try:
            raise OSError(5, "no route to https://me:hunter2@host/", "https://me:hunter2@host/f")  # noqa: TRY301
        except OSError as error:
            raise ValueError(f"got {error}") from error

    with pytest.raises(ValueError, match="got") as caught:
        fail()
    error = caught.value
    safe = REDACTOR.error(error)
    assert safe is error, "its type says whether to try again"
    assert "hunter2" not in str(error)
    assert "hunter2" not in str(error.__cause__)
    assert "***@host" in str(error)


def test_an_error_whose_words_cannot_be_changed_is_another_one():
    class StubbornError(Exception):
        def __str__(self) -> str:
            return "at https://me:hunter2@host/"

    safe = REDACTOR.error(StubbornError())
    assert isinstance(safe, RuntimeError)
    assert str(safe) == "StubbornError: at https://***@host/"


def test_records_are_hidden_with_their_tracebacks():
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "to %s", ("https://me:hunter2@host/",), None)
    try:
        raise ValueError("https://me:hunter2@host/")  # noqa: TRY301
    except ValueError as error:
        record.exc_info = (type(error), error, error.__traceback__)
    assert Redacting(REDACTOR).filter(record)
    told = logging.Formatter("%(message)s").format(record)
    assert "hunter2" not in told
    assert told.count("***@host") >= 2


@given(st.text(max_size=300))
def test_any_text_is_hidden_quickly_and_once(text):
    once = REDACTOR.text(text)
    assert REDACTOR.text(once) == once


@pytest.mark.parametrize(
    "text", ["http://" * 3000, "a" * 20_000 + "@", "://" + ":" * 20_000, "?key" * 5000, "-----BEGIN " * 2000]
)
def test_a_long_text_takes_no_long_time(text):
    import time

    started = time.process_time()
    REDACTOR.text(text)
    secret_in(text)
    assert time.process_time() - started < 2
