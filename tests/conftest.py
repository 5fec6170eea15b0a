"""What tests of several packages share."""

from collections.abc import Iterator

import pytest
from object_storage import Proxy, TestBucket, s3_server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server for all tests of the session."""
    with s3_server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch) -> TestBucket:
    """A new bucket of it."""
    return TestBucket.made(s3_endpoint, monkeypatch)


@pytest.fixture
def proxy(bucket, monkeypatch) -> Iterator[Proxy]:
    """A proxy before the server, which this process and its children go through."""
    proxy = Proxy(bucket.endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield proxy
    proxy.close()
