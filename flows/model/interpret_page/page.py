"""A text as a model reads it, as one HTML file that needs no script, no server, no network and no other file.

The text and the documents are strangers': all is escaped, hidden characters are spelled out, and only addresses of the web
become links. The page with the same facts has the same bytes.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from flows.static_page import attribute, escaped, filled, lang, policy
from flows.static_page import write_whole as _write_whole
from llm.evaluation.interpret import Inspection, inspect, pieces, surprisals
from llm.evaluation.nearest import Stretch
from llm.model import GPT

MAX_SHOWN = 64
"""Tokens whose attention and lens are shown; surprise is shown of all."""
_FOLDER = Path(__file__).parent
_NUM_LEVELS = 10
_BITS_A_LEVEL = 1.5
_NUM_NAMED = 3
"""Tokens named that a token looks at."""
_END_OF_TEXT = "⏎"
"""Stands for the token before the text."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFacts:
    """What the page shows."""

    text: str
    language: str | None
    """ISO 639."""
    pieces: tuple[str, ...]
    """What each token adds to the text."""
    bits: tuple[float, ...]
    """Surprise of each token."""
    inspection: Inspection
    """Of the first MAX_SHOWN tokens."""
    lens_pieces: tuple[tuple[tuple[str, ...], ...], ...]
    """(L + 1, T, k): the tokens that the lens names, as text."""
    nearest: tuple[Stretch, ...]
    """Training documents with a stretch of the text; the longest first."""


def text_facts(
    model: GPT,
    text: str,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str],
    eot_token: int,
    *,
    language: str | None = None,
    nearest: Sequence[Stretch] = (),
) -> TextFacts:
    """Read a text with a model; `nearest` is what `llm.evaluation.nearest` found for its ids."""
    ids = [int(token) for token in encode(text)]
    found = inspect(model, ids[: min(MAX_SHOWN, model.config.block_size - 1)], eot_token)
    named = {token: _token_text(token, decode, eot_token) for token in np.unique(found.lens_ids).tolist()}
    return TextFacts(
        text=text,
        language=language,
        pieces=tuple(pieces(ids, decode)),
        bits=tuple(surprisals(model, ids, eot_token).tolist()),
        inspection=found,
        lens_pieces=tuple(
            tuple(tuple(named[token] for token in top) for top in layer) for layer in found.lens_ids.tolist()
        ),
        nearest=tuple(nearest),
    )


def write_page(path: Path, name: str, facts: TextFacts) -> Path:
    """Write the page of a text, whole or not at all. Raises StorageError for the disk."""
    return _write_whole(path, render_page(name, facts))


def render_page(name: str, facts: TextFacts) -> str:
    """The page; `name` is the model's."""
    style = _part("page.css")
    total, size = sum(facts.bits), len(facts.text.encode())
    shown = len(facts.inspection.ids) - 1
    return filled(
        _part("page.html"),
        {
            "policy": policy(style, ""),
            "title": attribute(f"How {name} reads a text"),
            "style": style,
            "summary": f"{len(facts.bits):,} tokens, {size:,} bytes, {total:,.1f} bits"
            + (f": {total / size:.2f} bits a byte." if size else "."),
            "lang": lang(facts.language),
            "surprise": _surprise(facts),
            "legend": "".join(
                f'<span class="s{level}">{level * _BITS_A_LEVEL:g}{"+" if level == _NUM_LEVELS - 1 else ""}</span>'
                for level in range(_NUM_LEVELS)
            )
            + " bits",
            "nearest": _nearest(facts),
            "lens": _lens(facts),
            "attention": _attention(facts),
            "foot": f"Lens and attention: the first {shown:,} tokens of {len(facts.bits):,}."
            if shown < len(facts.bits)
            else "",
        },
    )


@cache
def _part(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8").strip()


def _surprise(facts: TextFacts) -> str:
    found, pending = [], 0.0
    for piece, bits in zip(facts.pieces, facts.bits, strict=True):
        pending += bits
        if piece:  # a character of several tokens bears what they cost together
            found.append(f'<span class="s{_bits_level(pending)}" title="{pending:.2f} bits">{escaped(piece)}</span>')
            pending = 0.0
    return "".join(found)


def _bits_level(bits: float) -> int:
    return min(_NUM_LEVELS - 1, int(bits / _BITS_A_LEVEL)) if math.isfinite(bits) else _NUM_LEVELS - 1


def _share_level(share: float) -> int:
    return max(0, min(_NUM_LEVELS - 1, round(share * (_NUM_LEVELS - 1))))


def _nearest(facts: TextFacts) -> str:
    if not facts.nearest:
        return '<p class="faint">No training document that is known here shares a longer stretch of it.</p>'
    rows = []
    for each in facts.nearest:
        shared = "".join(facts.pieces[each.start : each.start + each.num_tokens])
        rows.append(
            f'<tr><td class="n">{each.num_tokens:,}</td><td>{_link(each.url)}</td>'
            f"<td><code>{escaped(each.doc_id)}</code></td><td{lang(facts.language)}>{escaped(shared)}</td></tr>"
        )
    head = '<tr><th class="n">Tokens</th><th>Page</th><th>Document</th><th>What both have</th></tr>'
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _link(url: str | None) -> str:
    if not url:
        return ""
    try:
        is_web = urlsplit(url).scheme in ("http", "https")
    except ValueError:
        is_web = False
    return f'<a href="{attribute(url)}" rel="noreferrer nofollow">{escaped(url)}</a>' if is_web else escaped(url)


def _token_text(token: int, decode: Callable[[Sequence[int]], str], eot_token: int) -> str:
    return _END_OF_TEXT if token == eot_token else decode([token])


def _read(facts: TextFacts) -> list[str]:
    return [_END_OF_TEXT, *facts.pieces[: len(facts.inspection.ids) - 1]]


def _cell(text: str) -> str:
    return escaped(text.replace("\n", "↵").replace("\t", "⇥")) or "·"


def _lens(facts: TextFacts) -> str:
    head = "".join(f"<th>{_cell(piece)}</th>" for piece in _read(facts))
    rows = []
    for layer, (named, shares) in enumerate(
        zip(facts.lens_pieces, facts.inspection.lens_probabilities.tolist(), strict=True)
    ):
        cells = []
        for top, own in zip(named, shares, strict=True):
            title = ", ".join(f"{piece!r} {share:.0%}" for piece, share in zip(top, own, strict=True))
            cells.append(f'<td class="s{_share_level(own[0])}" title="{attribute(title)}">{_cell(top[0])}</td>')
        rows.append(f"<tr><th>{'embedding' if layer == 0 else f'layer {layer}'}</th>{''.join(cells)}</tr>")
    return f"<table><thead><tr><th>after</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _attention(facts: TextFacts) -> str:
    read, layers = _read(facts), []
    for layer, heads in enumerate(facts.inspection.attention, 1):
        figures = "".join(_map(head, weights, read) for head, weights in enumerate(heads, 1))
        is_open = " open" if layer == len(facts.inspection.attention) else ""
        layers.append(f'<details{is_open}><summary>Layer {layer}</summary><div class="heads">{figures}</div></details>')
    return "".join(layers)


def _map(head: int, weights: NDArray[np.float32], read: Sequence[str]) -> str:
    """One head as a picture: a path for each level of weight, its cells as runs; a title for each row."""
    size = len(weights)
    places = np.arange(size)
    distance = float((weights * (places[:, None] - places[None])).sum(axis=1).mean())
    levels = np.clip(np.rint(np.sqrt(weights) * (_NUM_LEVELS - 1)), 0, _NUM_LEVELS - 1).astype(int)
    runs: dict[int, list[str]] = {}
    for row, line in enumerate(levels):
        edges = [0, *(np.flatnonzero(np.diff(line)) + 1).tolist(), size]
        for start, end in pairwise(edges):
            if line[start]:
                runs.setdefault(int(line[start]), []).append(f"M{start} {row}h{end - start}v1h-{end - start}z")
    paths = "".join(f'<path class="a{level}" d="{"".join(runs[level])}"/>' for level in sorted(runs))
    rows = "".join(
        f'<rect y="{row}" width="{size}" height="1"><title>{attribute(_looks_at(row, line, read))}</title></rect>'
        for row, line in enumerate(weights)
    )
    return (
        f'<figure><svg viewBox="0 0 {size} {size}" shape-rendering="crispEdges" role="img" '
        f'aria-label="Attention of head {head}">{paths}{rows}</svg>'
        f"<figcaption>Head {head}: {distance:.1f} tokens back on average, "
        f"{float(weights[:, 0].mean()):.0%} at the first</figcaption></figure>"
    )


def _looks_at(row: int, weights: NDArray[np.float32], read: Sequence[str]) -> str:
    most = sorted(range(row + 1), key=lambda column: -weights[column])[:_NUM_NAMED]
    return f"{read[row]} looks at " + ", ".join(f"{read[column]} {weights[column]:.0%}" for column in most)
