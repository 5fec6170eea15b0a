"""What our static pages share: one HTML file that needs no server and no network, and shows what strangers wrote as text.

A page is a template whose `{{name}}` places are filled once; its policy lets no style and no script in but those whose
digests it names, and no `style` attribute.
"""

import base64
import hashlib
import html
import re
import unicodedata
import uuid
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from pipelines.store import storage_errors

_MAX_SPELLED_OUT = 30
"""Control characters spelled out in one stretch of text; a page of nothing else stays small."""
_MAX_COMBINING = 3
_STYLE, _FRAME = (Path(__file__).with_suffix(suffix) for suffix in (".css", ".html"))
_LANGUAGE = re.compile(r"[a-z]{2,3}")
_SCRIPT = re.compile(r"[A-Z][a-z]{3}")


def policy(style: str, script: str) -> str:
    """The page's Content-Security-Policy: this style and this script, and nothing from anywhere."""
    return (
        f"default-src 'none'; style-src '{_source(style)}'; script-src '{_source(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def style_of(path: Path) -> str:
    """The style of all pages, and after it that of one: a path to CSS."""
    return "\n".join(each.read_text(encoding="utf-8").strip() for each in (_STYLE, path))


def filled(body: str, parts: Mapping[str, str]) -> str:
    """A page: the frame of all of them around a template of its body, with the parts of both (policy, title, style).

    One pass: nothing that was put in is looked at again.
    """
    template = _frame().replace("{{body}}", body)
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


@cache
def _frame() -> str:
    return _FRAME.read_text(encoding="utf-8").strip()


def write_whole(path: Path, page: str) -> Path:
    """Write a page, whole or not at all. Raises StorageError for the disk."""
    with storage_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{uuid.uuid4().hex}"
        try:
            temporary.write_text(page, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path


def escaped(text: str) -> str:
    """A stranger's text as HTML that reads as it was written: hidden characters spelled out, marks not piled up."""
    return "".join(_safe(text))


def attribute(text: str) -> str:
    """A text inside quotes, or where there can be no markup."""
    return html.escape("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text))


def lang(language: str | None, script: str | None = None) -> str:
    """A `lang` attribute: with it the browser breaks Chinese lines and picks Chinese glyphs as it should."""
    if not language or not _LANGUAGE.fullmatch(language):
        return ""
    named = f"-{script}" if script and _SCRIPT.fullmatch(script) and language in ("zh", "yue", "wuu") else ""
    return f' lang="{language}{named}"'


def _source(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _safe(text: str) -> Iterator[str]:
    num_spelled = num_combining = 0
    start = 0
    for idx, char in enumerate(text):
        if char.isascii() and (char.isprintable() or char in "\n\t"):
            num_combining = 0
            continue
        category = unicodedata.category(char)
        num_combining = num_combining + 1 if category in ("Mn", "Me") else 0
        is_hidden = category in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and char not in "\u200c\u200d"
        if is_hidden or num_combining > _MAX_COMBINING:
            yield html.escape(text[start:idx])
            start = idx + 1
            num_spelled += is_hidden
            if is_hidden and num_spelled <= _MAX_SPELLED_OUT:
                yield f'<span class="ctl">U+{ord(char):04X}</span>'
    yield html.escape(text[start:])
