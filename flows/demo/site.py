"""The sample site: pages written for this project, rendered as a magazine would publish them.

Pages lie in `content/en` and `content/zh`, one UTF-8 file `NAME.md` each: `key: value` lines, an empty line, then the
body. Keys: title, section, kind (article, forum, list, spam, abuse, private or optout), url (a path) and, if wanted,
date, author, tags, language, charset (of the rendered page) and plant: the page's ground truth, labels separated by
commas. The body is light Markdown: paragraphs separated by empty lines, `## heading`, `- item` lists, code between
lines of three backticks. In a forum thread a line `--- author | date` opens each post.

Labels: near_duplicate_of:/path, exact_duplicate_of:/path, pii:email (ip, phone, card, cn_id; `pii:email=2` for two of
them), abuse, spam, optout_meta, optout_header, optout_tdm, robots_disallowed, boilerplate_only, too_short,
special_token, traditional (Chinese in traditional characters), language:fr (any code), lorem. Addresses that the
renderer adds are labelled index, robots, image, redirect:/path and missing. A good pipeline keeps the pages without a
label and those whose labels are among pii (redacted), special_token and traditional.

Rendering is a pure function of the content: no clock, no randomness.
"""

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from string import Template
from typing import Any
from urllib.parse import quote

import yaml

from pipelines.errors import ConfigError

KINDS = frozenset({"article", "forum", "list", "spam", "abuse", "private", "optout"})
LABELS = frozenset(
    {
        "near_duplicate_of", "exact_duplicate_of", "pii", "abuse", "spam", "optout_meta", "optout_header", "optout_tdm",
        "robots_disallowed", "boilerplate_only", "too_short", "special_token", "language", "lorem", "traditional",
    }
)  # fmt: skip
CHARSETS = frozenset({"utf-8", "gb18030", "gbk", "gb2312"})
_KEYS = frozenset({"title", "section", "kind", "url", "date", "author", "tags", "plant", "language", "charset"})
_NUM_PAGES_LISTED = 8
_NUM_CHARS_TEASER = 110
_PRIVATE_FOLDER = "/private/"
# An 8 by 8 square of sea blue: something that is not a page.
_PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mPQSerHihiGlgQAvp1HQaZzzHwAAAAASUVORK5CYII="
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SitePage:
    """One page that someone wrote."""

    host: str
    path: str
    title: str
    section: str
    kind: str
    body: str
    """Light Markdown, see the module."""
    language: str
    """ISO 639 code."""
    charset: str = "utf-8"
    """Of the rendered page, not of the file."""
    date: str = ""
    author: str = ""
    tags: tuple[str, ...] = ()
    plant: frozenset[str] = frozenset()
    """The ground truth: labels, see the module."""

    @property
    def url(self) -> str:
        return f"http://{self.host}{self.path}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What a server answers: status, headers in order, body bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Magazine:
    """One host: its name and the words of its furniture, from site.yaml."""

    host: str
    folder: str
    language: str
    name: str
    strap: str
    words: Mapping[str, str]
    redirect_from: str
    redirect_to: str
    missing: str
    image: str = "/images/front.png"
    license_url: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    """Footer links: path or address -> words."""


@cache
def load_pages() -> tuple[SitePage, ...]:
    """Every written page of both magazines, by host and path.

    Raises ConfigError for a file that does not follow the format, naming the file.
    """
    pages = [
        _parse_page(file, magazine)
        for magazine in _magazines()
        for file in (_content() / magazine.folder).iterdir()
        if file.name.endswith(".md")
    ]
    seen: set[str] = set()
    for page in pages:
        if page.url in seen:
            raise ConfigError(f"got two sample pages for {page.url}, wanted one: change the url of one of them.")
        seen.add(page.url)
    return tuple(sorted(pages, key=lambda page: (page.host, page.path)))


def hosts() -> tuple[str, ...]:
    """The names of the sample hosts; their front pages are the seeds of the demo crawl."""
    return tuple(magazine.host for magazine in _magazines())


def ground_truth() -> Mapping[str, frozenset[str]]:
    """URL -> labels for every address of the site, the renderer's own pages included (index, robots, image, ...)."""
    truth = {page.url: page.plant for page in load_pages()}
    for magazine in _magazines():
        base = f"http://{magazine.host}"
        truth |= {base + path: frozenset({"index"}) for path, _, _ in _indexes(magazine, load_pages())}
        truth[f"{base}/robots.txt"] = frozenset({"robots"})
        truth[base + magazine.image] = frozenset({"image"})
        truth[base + magazine.redirect_from] = frozenset({f"redirect:{magazine.redirect_to}"})
        truth[base + magazine.missing] = frozenset({"missing"})
    return truth


def render(page: SitePage, pages: Sequence[SitePage]) -> Response:
    """The page as its magazine publishes it: its text, and around it what every site has too much of."""
    magazine = next(each for each in _magazines() if each.host == page.host)
    own = [each for each in pages if each.host == page.host]
    article = _body_html(page) if "boilerplate_only" not in page.plant else _link_list(own)
    byline = " · ".join(part for part in (page.author, page.date) if part)
    main = (
        f'<article class="{page.kind}">\n<h1>{escape(page.title)}</h1>\n'
        + (f'<p class="byline">{escape(byline)}</p>\n' if byline else "")
        + f"{article}\n</article>"
    )
    meta = []
    if "optout_meta" in page.plant:
        meta.append('<meta name="robots" content="noai, noimageai">')
    if "optout_tdm" in page.plant:
        meta.append('<meta name="tdm-reservation" content="1">')
    if page.tags:
        meta.append(f'<meta name="keywords" content="{escape(", ".join(page.tags))}">')
    html = _document(
        magazine, own, path=page.path, title=page.title, main=main, meta=meta, language=page.language,
        charset=page.charset, related=_related(page, own),
    )  # fmt: skip
    headers = {"X-Robots-Tag": "noai"} if "optout_header" in page.plant else {}
    return _html_response(html, page.charset, headers)


@cache
def render_site() -> Mapping[str, Response]:
    """URL -> answer, for every address that answers anything but 404."""
    pages = load_pages()
    responses = {page.url: render(page, pages) for page in pages}
    for magazine in _magazines():
        own = [page for page in pages if page.host == magazine.host]
        base = f"http://{magazine.host}"
        for path, title, main in _indexes(magazine, pages):
            html = _document(magazine, own, path=path, title=title, main=main, language=magazine.language)
            responses[base + path] = _html_response(html, "utf-8", {})
        responses[f"{base}/robots.txt"] = _response(
            200, "text/plain; charset=utf-8", f"User-agent: *\nDisallow: {_PRIVATE_FOLDER}\n".encode()
        )
        responses[base + magazine.image] = _response(200, "image/png", _PNG)
        responses[base + magazine.redirect_from] = Response(
            status=301, headers={"Location": magazine.redirect_to}, body=b""
        )
    return responses


# Reading


def _content() -> Traversable:
    return resources.files("flows.demo") / "content"


@cache
def _magazines() -> tuple[_Magazine, ...]:
    loaded: list[dict[str, Any]] = yaml.safe_load((_content() / "site.yaml").read_text(encoding="utf-8"))
    return tuple(_Magazine(**each) for each in loaded)


@cache
def _template() -> Template:
    return Template((_content() / "page.html").read_text(encoding="utf-8"))


def _parse_page(file: Traversable, magazine: _Magazine) -> SitePage:
    text = file.read_text(encoding="utf-8").replace("\r\n", "\n").strip()
    header, _, body = text.partition("\n\n")
    values: dict[str, str] = {}
    for line in header.split("\n"):
        key, colon, value = line.partition(":")
        if not colon or key.strip() not in _KEYS:
            raise ConfigError(
                f"got {line!r} in the header of {file.name}, wanted `key: value`: see flows/demo/site.py."
            )
        values[key.strip()] = value.strip()
    for key in ("title", "section", "kind", "url"):
        if not values.get(key):
            raise ConfigError(f"got no {key} in the header of {file.name}, wanted one: add `{key}: ...`.")
    page = SitePage(
        host=magazine.host,
        path=quote(values["url"], safe="/%"),
        title=values["title"],
        section=values["section"],
        kind=values["kind"],
        body=body.strip(),
        language=values.get("language") or _planted_language(values.get("plant", "")) or magazine.language,
        charset=values.get("charset", "utf-8").lower(),
        date=values.get("date", ""),
        author=values.get("author", ""),
        tags=tuple(_listed(values.get("tags", ""))),
        plant=frozenset(_listed(values.get("plant", ""))),
    )
    _check_page(page, file.name)
    return page


def _check_page(page: SitePage, name: str) -> None:
    if page.kind not in KINDS:
        raise ConfigError(f"got kind {page.kind!r} in {name}, wanted one of {', '.join(sorted(KINDS))}: change it.")
    if page.charset not in CHARSETS:
        raise ConfigError(
            f"got charset {page.charset!r} in {name}, wanted one of {', '.join(sorted(CHARSETS))}: change it."
        )
    if not page.path.startswith("/"):
        raise ConfigError(f"got url {page.path!r} in {name}, wanted a path that starts with a slash: change it.")
    if unknown := sorted(label for label in page.plant if label.partition(":")[0] not in LABELS):
        raise ConfigError(f"got plant label {unknown[0]!r} in {name}, wanted one of LABELS: change it.")
    if page.path.startswith(_PRIVATE_FOLDER) != ("robots_disallowed" in page.plant):
        raise ConfigError(f"got {page.path} in {name}, wanted robots_disallowed just below {_PRIVATE_FOLDER}: move it.")


def _listed(value: str) -> Iterator[str]:
    return (part for part in (piece.strip() for piece in re.split("[,，、]", value)) if part)


def _planted_language(plant: str) -> str:
    return next((label.partition(":")[2] for label in _listed(plant) if label.startswith("language:")), "")


# Rendering


def _body_html(page: SitePage) -> str:
    if page.kind != "forum":
        return _markdown(page.body, page.language)
    opening, *posts = re.split(r"(?m)^--- *(.+)$", page.body)
    parts = [_markdown(opening, page.language)] if opening.strip() else []
    for byline, text in zip(posts[::2], posts[1::2], strict=True):
        author, _, date = (part.strip() for part in byline.partition("|"))
        parts.append(
            f'<section class="post">\n<p class="poster"><b>{escape(author)}</b> <time>{escape(date)}</time></p>\n'
            f"{_markdown(text, page.language)}\n</section>"
        )
    return "\n".join(parts)


def _markdown(body: str, language: str) -> str:
    """HTML of light Markdown. A code block may hold empty lines, so it is cut out first."""
    parts = []
    for index, piece in enumerate(re.split(r"(?ms)^```[^\n]*\n(.*?)^```[^\n]*$", body)):
        if index % 2:
            parts.append(f"<pre><code>{escape(piece.rstrip())}</code></pre>")
            continue
        parts += [_block(block.strip(), language) for block in re.split(r"\n\s*\n", piece) if block.strip()]
    return "\n".join(parts)


def _block(block: str, language: str) -> str:
    lines = [line.strip() for line in block.split("\n")]
    if block.startswith("## "):
        heading, *rest = lines
        return f"<h2>{escape(heading[3:])}</h2>" + ("\n" + _block("\n".join(rest), language) if rest else "")
    if all(line.startswith("- ") for line in lines):
        return "<ul>\n" + "\n".join(f"<li>{escape(line[2:])}</li>" for line in lines) + "\n</ul>"
    # Chinese has no spaces between words: a line break inside a paragraph must not become one.
    return f"<p>{escape(('' if language == 'zh' else ' ').join(lines))}</p>"


def _teaser(page: SitePage) -> str:
    if page.kind == "optout":
        return ""  # the words that were reserved must not leak out through an index page that is not
    paragraph = next((part for part in page.body.split("\n\n") if not part.startswith(("#", "-", "`"))), "")
    line = " ".join(paragraph.split())
    return line if len(line) <= _NUM_CHARS_TEASER else line[:_NUM_CHARS_TEASER].rsplit(" ", 1)[0] + " …"


def _anchor(page: SitePage) -> str:
    return f'<a href="{page.path}">{escape(page.title)}</a>'


def _newest_first(pages: Sequence[SitePage]) -> list[SitePage]:
    return sorted(sorted(pages, key=lambda page: page.path), key=lambda page: page.date, reverse=True)


def _public(pages: Sequence[SitePage]) -> list[SitePage]:
    return _newest_first([page for page in pages if page.kind != "private"])


def _related(page: SitePage, own: Sequence[SitePage]) -> list[SitePage]:
    """The four pages that follow this one in its section, round and round."""
    section = [each for each in _public(own) if each.section == page.section]
    if page not in section:
        return []
    place = section.index(page)
    return (section[place + 1 :] + section[:place])[:4]


def _sections(pages: Sequence[SitePage]) -> list[str]:
    return sorted({page.section for page in _public(pages)})


def _section_path(section: str, number: int = 1) -> str:
    slug = quote(section.lower().replace(" ", "-"))
    return f"/sections/{slug}/" + (f"page-{number}.html" if number > 1 else "")


def _indexes(magazine: _Magazine, pages: Sequence[SitePage]) -> Iterator[tuple[str, str, str]]:
    """Path, title and main HTML of the front page and of each page of each section."""
    own = _public([page for page in pages if page.host == magazine.host])
    words = magazine.words
    extra = (
        f'<p class="more"><a href="{magazine.image}">{escape(words["photograph"])}</a> '
        f'<a href="{magazine.redirect_from}">{escape(words["old_front"])}</a> '
        f'<a href="{magazine.missing}">{escape(words["lost"])}</a></p>'
    )
    front = f"<h1>{escape(magazine.name)}</h1>\n<p>{escape(magazine.strap)}</p>\n"
    yield "/", magazine.name, front + _teaser_list(own[:_NUM_PAGES_LISTED]) + extra
    for section in _sections(own):
        listed = [page for page in own if page.section == section]
        num_indexes = -(-len(listed) // _NUM_PAGES_LISTED)
        for number in range(1, num_indexes + 1):
            shown = listed[(number - 1) * _NUM_PAGES_LISTED : number * _NUM_PAGES_LISTED]
            pager = "".join(
                f' <a rel="{rel}" href="{_section_path(section, other)}">{escape(words[rel])}</a>'
                for rel, other in (("prev", number - 1), ("next", number + 1))
                if 1 <= other <= num_indexes
            )
            main = f'<h1>{escape(section)}</h1>\n{_teaser_list(shown)}<p class="pager">{pager}</p>'
            yield _section_path(section, number), f"{section} · {magazine.name}", main


def _teaser_list(pages: Sequence[SitePage]) -> str:
    items = "".join(f"<li>{_anchor(page)}<span>{escape(_teaser(page))}</span></li>\n" for page in pages)
    return f'<ul class="teasers">\n{items}</ul>\n'


def _link_list(pages: Sequence[SitePage]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{_anchor(page)}</li>" for page in _public(pages)) + "\n</ul>"


def _document(
    magazine: _Magazine,
    own: Sequence[SitePage],
    *,
    path: str,
    title: str,
    main: str,
    language: str,
    meta: Sequence[str] = (),
    charset: str = "utf-8",
    related: Sequence[SitePage] = (),
) -> str:
    words = {key: escape(value) for key, value in magazine.words.items()}
    links = dict(magazine.links) | {page.path: page.title for page in own if page.kind == "private"}
    footer = " | ".join(f'<a href="{escape(to)}">{escape(text)}</a>' for to, text in links.items())
    if magazine.license_url:
        footer += f' | <a rel="license" href="{magazine.license_url}">{words["license"]}</a>'
    sections = " ".join(f'<a href="{_section_path(name)}">{escape(name)}</a>' for name in _sections(own))
    popular = [page for page in _public(own) if page.kind == "article" and not page.plant][::7][:4]
    return _template().substitute(
        words,
        language=language,
        charset=charset,
        title=escape(title),
        meta="\n".join(meta),
        canonical=f"http://{magazine.host}{path}",
        name=escape(magazine.name),
        strap=escape(magazine.strap),
        sections=sections,
        main=main,
        related_list=_teaser_list(related),
        popular_list=_teaser_list(popular),
        image=magazine.image,
        footer=footer,
    )


def _html_response(html: str, charset: str, headers: Mapping[str, str]) -> Response:
    # As on the real Web, a page in an older encoding says so in its own head only.
    content_type = "text/html; charset=utf-8" if charset == "utf-8" else "text/html"
    return _response(200, content_type, html.encode(charset, "xmlcharrefreplace"), headers)


def _response(status: int, content_type: str, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    return Response(status=status, headers={"Content-Type": content_type, "ETag": etag, **(headers or {})}, body=body)
