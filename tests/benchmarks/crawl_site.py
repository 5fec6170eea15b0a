"""A web of loopback addresses for the crawl benchmark: 50 hosts of 100 pages, the same from the same seed.

    python tests/benchmarks/crawl_site.py --num-hosts 50 --num-pages 100 --encoding gzip

Host i is 127.0.0.(i + 1); all listen on one port, which is printed once the pages are made. Ends when its input does.
Every answer is made before it is asked for, so that the machine's time goes to the crawlers. Pages are what sites have:
8 to 25 kB of HTML around English or Chinese paragraphs, some sixty links of which half are the same on each page, a few
of them to the other hosts, to hosts that nobody crawls, to fragments and to mailboxes. Every other host has a robots.txt.
"""

import argparse
import asyncio
import gzip
import json
import random
import sys
from typing import cast

SEED = 7
MIN_PAGE_NUM_BYTES, MAX_PAGE_NUM_BYTES = 8_000, 25_000
NUM_ROUTED_LINKS = 14
"""Links of a page that only it has."""

_WORDS = (
    "river council winter market garden station morning library harbour engine painter village letter summer theatre "
    "mountain teacher paper window kitchen railway border chapter island doctor bridge forest number question answer "
    "the of and to in that it was for on with as his they be at one have this from or had by but what some we can out "
    "other were all there when up use your how said an each she which their time if will way about many then them would"
)
_ENGLISH = tuple(_WORDS.split())
_CHINESE = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经"
_SECTIONS = ("news", "culture", "science", "sport", "travel", "archive")

_ROBOTS = b"User-agent: *\nDisallow: /private/\nDisallow: /*?sort=\nAllow: /private/help\n"


def page_path(page: int) -> str:
    """Where a page of a host is; 0 is its front page."""
    if page == 0:
        return "/"
    section = _SECTIONS[page % len(_SECTIONS)]
    if page < len(_SECTIONS) + 1:
        return f"/{section}/"
    if page % 9 == 0:
        return f"/{section}/?page={page // 9}"
    return f"/{section}/2026/{page % 12 + 1:02d}/story-{page * 7919 % 100_003}-of-the-{_ENGLISH[page % 40]}.html"


def page_html(host: int, page: int, num_hosts: int, num_pages: int) -> bytes:
    """One page, UTF-8."""
    rng = random.Random(f"{SEED} {host} {page}")
    language = "zh" if host % 3 == 0 else "en"
    title = _sentence(random.Random(f"{SEED} {host} {page} title"), language)
    ahead = [(page + 1) % num_pages, *rng.choices(range(num_pages), k=NUM_ROUTED_LINKS)]
    stories = "\n".join(
        f'<li class="teaser teaser--small"><a class="teaser__link" href="{page_path(to)}">'
        f'<span class="teaser__title">{_sentence(rng, language)}</span></a></li>'
        for to in ahead
    )
    neighbour = (host + 1 + rng.randrange(3)) % num_hosts
    outward = (
        f'<a href="//127.0.0.{neighbour + 1}:PORT/">{_sentence(rng, language)}</a> '
        f'<a rel="noopener" href="https://www.example.org/item/{rng.randrange(500)}">example.org</a> '
        f'<a href="https://social.example/share?u={host}">share</a> <a href="#top">top</a> '
        f'<a href="mailto:desk@host{host}.example">mail</a>'
    )
    num_bytes = rng.randint(MIN_PAGE_NUM_BYTES, MAX_PAGE_NUM_BYTES)
    frame = _FRAME.format(
        language=language, title=title, host=host, path=page_path(page), navigation=_navigation(host, num_pages),
        stories=stories, outward=outward, text="{text}",
    )  # fmt: skip
    paragraphs: list[str] = []
    room = num_bytes - len(frame.encode())
    while room > 0:
        text = " ".join(_sentence(rng, language) for _ in range(rng.randint(3, 8)))
        paragraphs.append(f'<p class="article__text">{text}</p>')
        room -= len(paragraphs[-1].encode()) + 1
    return frame.replace("{text}", "\n".join(paragraphs)).encode()


def site_answers(num_hosts: int, num_pages: int, port: int, encoding: str) -> list[dict[bytes, bytes]]:
    """For each host the whole answer to each request target."""
    hosts = []
    for host in range(num_hosts):
        answers = {}
        for page in range(num_pages):
            body = page_html(host, page, num_hosts, num_pages).replace(b"PORT", str(port).encode())
            answers[page_path(page).encode()] = _answer("200 OK", "text/html; charset=utf-8", body, encoding)
        assert len(answers) == num_pages
        if host % 2:
            answers[b"/robots.txt"] = _answer("200 OK", "text/plain", _ROBOTS, "identity")
        hosts.append(answers)
    return hosts


class _Site(asyncio.Protocol):
    """HTTP/1.1 with keep-alive for requests without a body."""

    def __init__(self, hosts: list[dict[bytes, bytes]]) -> None:
        self._hosts = hosts
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("sockname")[0]
        self._answers = self._hosts[int(address.rpartition(".")[2]) - 1]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            target = self._buffer.split(b" ", 2)[1]
            self._transport.write(self._answers.get(target, _NOT_FOUND))
            self._buffer = self._buffer[end + 4 :]


async def serve(num_hosts: int, num_pages: int, encoding: str) -> None:
    """Serve until standard input ends. Prints a JSON line with the port."""
    loop = asyncio.get_running_loop()
    hosts: list[dict[bytes, bytes]] = []
    first = await loop.create_server(lambda: _Site(hosts), "127.0.0.1", 0, backlog=1024)
    port = first.sockets[0].getsockname()[1]
    others = [f"127.0.0.{host + 1}" for host in range(1, num_hosts)]
    hosts += site_answers(num_hosts, num_pages, port, encoding)
    if others:
        await loop.create_server(lambda: _Site(hosts), others, port, backlog=1024)
    print(json.dumps({"port": port}), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def _sentence(rng: random.Random, language: str) -> str:
    # Sentences come again, as phrases do in real text: a page compresses to a quarter, not to a half.
    sentence = random.Random(f"{SEED} {language} {rng.randrange(1500)}")
    if language == "zh":
        chars = "".join(sentence.choices(_CHINESE, k=sentence.randint(14, 32)))
        return f"{chars[:7]}，{chars[7:]}。"
    return " ".join(sentence.choices(_ENGLISH, k=sentence.randint(7, 16))).capitalize() + "."


def _navigation(host: int, num_pages: int) -> str:
    return "\n".join(
        f'<li class="menu__item"><a class="menu__link" href="{page_path(page)}" title="{host}-{page}">{_ENGLISH[page]}</a></li>'
        for page in range(min(40, num_pages))
    )


def _answer(status: str, content_type: str, body: bytes, encoding: str) -> bytes:
    encoded = gzip.compress(body, 6, mtime=0) if encoding == "gzip" else body
    fields = {
        "Server": "nginx",
        "Date": "Thu, 14 May 2026 09:30:00 GMT",
        "Content-Type": content_type,
        "Content-Length": str(len(encoded)),
        **({"Content-Encoding": "gzip"} if encoding == "gzip" else {}),
        "Connection": "keep-alive",
        "Vary": "Accept-Encoding",
        "Last-Modified": "Wed, 13 May 2026 21:04:11 GMT",
        "ETag": f'"{len(body):x}-{sum(body[::97]):x}"',
        "Cache-Control": "max-age=300, public",
        "X-Content-Type-Options": "nosniff",
        "Strict-Transport-Security": "max-age=63072000",
    }
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    return head.encode("latin-1") + encoded


_NOT_FOUND = _answer("404 Not Found", "text/html", b"<html><title>404</title><h1>Not Found</h1></html>", "identity")

_FRAME = """<!DOCTYPE html>
<html lang="{language}" class="no-js">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{title}">
<meta property="og:title" content="{title}">
<meta property="og:type" content="article">
<link rel="stylesheet" href="/assets/site.css?v=311">
<link rel="canonical" href="{path}">
<link rel="icon" href="/favicon.ico">
<script>window.site = {{"host": {host}, "path": "{path}", "ads": false}}; document.documentElement.className = "js";</script>
<script type="application/ld+json">{{"@context": "https://schema.org", "@type": "NewsArticle", "headline": "{title}"}}</script>
</head>
<body class="page page--article" id="top">
<header class="header"><div class="header__inner"><a class="header__logo" href="/">Host {host}</a></div>
<nav class="menu" aria-label="Main"><ul class="menu__list">
{navigation}
</ul></nav></header>
<main class="main"><article class="article">
<h1 class="article__title">{title}</h1>
<figure class="article__figure"><img src="/img/{host}.jpg" alt="{title}" width="1200" height="675" loading="lazy"></figure>
{text}
</article>
<aside class="related"><h2 class="related__title">More</h2><ul class="related__list">
{stories}
</ul></aside></main>
<footer class="footer"><p class="footer__text">{outward}</p></footer>
<script src="/assets/site.js?v=311" defer></script>
</body>
</html>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-hosts", type=int, default=50)
    parser.add_argument("--num-pages", type=int, default=100, help="of each host")
    parser.add_argument("--encoding", choices=("identity", "gzip"), default="gzip")
    options = parser.parse_args()
    asyncio.run(serve(options.num_hosts, options.num_pages, options.encoding))


if __name__ == "__main__":
    main()
