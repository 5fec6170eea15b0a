"""The lines of an extracted text, and which of them are the text of an article: a classifier by length, links, kind and place.

The features are those of shallow text classification (Kohlschütter, Fankhauser and Nejdl, WSDM 2010: text length and
link density), and the judgement of short blocks by their neighbours is that of jusText (Pomikálek 2011). Its stop words need
spaces between words, so in their place stand sentence ends and lengths that count a Han character or a kana as several.

Lines come with the marks that scan.py sets into the source.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipelines.extract.loops import kernels
from pipelines.extract.tags import (
    KIND_BLANK,
    KIND_CODE,
    KIND_HEADING,
    KIND_ITEM,
    KIND_OTHER,
    KIND_PARAGRAPH,
    KIND_ROW,
    NUM_LINE_FIELDS,
)

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

_MIN_PROSE_WEIGHT = 80
"""Weight from which a line with few links is taken for prose."""
_MIN_SENTENCE_WEIGHT = 30
_MAX_PROSE_LINK_RATIO = 0.5
_MIN_LINK_RATIO = 0.8
_MAX_PROMPT_WEIGHT = 260

_PROMPT = re.compile(
    r"""\W{0,4}(?:
    advert(?:isements?|s)?\b\W{0,3}$ | sponsored(?:\ links?)?\W{0,3}$ | image\ \d+\ of\b | photos?(?:\ by|\ credit)?\s?: | image(?:\ credit)?s?\s?:
    | (?:read|see|learn|find)\ (?:more|also|next)\b(?=.{0,3}$|\s?[:|>»\-]) | related\W{0,2}(?:$|stor|article|link|content|post|topic|read|video|:)
    | (?:more|you\ (?:may|might)\ also\ like|don[’']t\ miss|recommended|trending|most\ (?:read|popular))\W{0,3}$ | you\ (?:may|might)\ (?:also\ )?(?:like|be\ interested)
    | (?:also\ )?(?:read|watch|see\ also|listen|also\ on|more\ from|more\ on|more\ in)\s?[:|] | click\ here\b | (?:tap|click)\ to\b
    | (?:share|tweet|print|e-?mail|save|comments?|submit|close|caption|highlights|subscribe|newsletter|feedback|loading|next|previous|advert)\W{0,4}$
    | share\ (?:this|on|via|with)\b | \d[\d.,]*[km]?\ ?(?:shares?|comments?|views?|likes?)\b\W{0,3}(?:$|(?=\D{0,20}$)) | follow\ (?:us|him|her|them|me|@|\w+\ on)\b
    | (?:sign|log)\ (?:up|in)\b | subscribe\ (?:to|now|for|here|today)\b | get\ (?:the\ |our\ )?(?:latest|breaking|daily|more)\b.{0,120}\b(?:inbox|e-?mail|newsletters?|alerts|delivered|reports)\b
    | (?:this|our|the)\ (?:web)?site\ uses\ cookies | we\ use\ cookies | by\ (?:continuing|using)\b.{0,60}\b(?:site|cookies)
    | (?:©|\(c\)|copyright\b|all\ rights\ reserved) | citation: | (?:first\ )?(?:published|posted|updated|last\ updated|last\ modified)\b\W{0,3}(?:(?:on|at)\b)?\W{0,3}(?:\w{3,9}\.?\ )?\d
    | (?:reporting|writing|editing|additional\ reporting)\ (?:and\ \w+\ )?by\ [A-Z] | (?:have|got)\ a\ (?:news\ )?tip\b | (?:filed\ under|tags?|topics?|categor(?:y|ies))\s?(?::|$)
    | explore\ further\W{0,2}$ | breaking\ news\b.{0,12}$ | source\s?: | via\ | tell\ us\ what\ you | leave\ a\ (?:comment|reply)
    | (?:to\ )?(?:contact|e-?mail)\ (?:the\ |this\ )?(?:author|reporter|editor|writer)
    | 相关(?:阅读|新闻|链接|文章|推荐|报道)|延伸阅读|推荐阅读|更多(?:精彩|内容|新闻|阅读)|点击(?:查看|进入|这里|此处|阅读)|上一篇|下一篇|上一页|下一页|返回(?:首页|顶部|列表)
    | 责任编辑|责编|编辑[:：]|作者[:：]|来源[:：]|文章来源|本文来源|稿源|发布(?:时间|日期|者)|更新时间|发表于|字体[:：]|浏览(?:次数|量)|阅读(?:量|次数)|点击(?:数|次数)
    | 版权所有|版权声明|免责声明|未经(?:授权|许可|允许)|扫一扫|扫码|扫描二维码|(?:长按|识别).{0,6}二维码|关注(?:我们|微信|公众号)|微信公众号|分享(?:到|至|给)|打印(?:本页)?$|关闭(?:窗口)?$|收藏$
    | .{0,3}ICP备|.{0,3}公网安备|广告$|標籤[:：]|标签[:：]|關鍵字[:：]|关键词[:：]|延伸閱讀|相關(?:新聞|閱讀|文章|報導)|責任編輯|版權所有
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_BYLINE = re.compile(
    r"\W{0,3}(?:by|von|par|por|written by|story by|posted by|文/|文／|文\||记者|記者|作者)(?:\b|(?=\W))", re.IGNORECASE
)
_DATE = re.compile(
    r"\b(?:19|20)\d\d\b|\d{1,2}[:：]\d\d|\b\d{1,2}/\d{1,2}/\d{2,4}|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.? \d{1,2}\b"
    r"|(?:19|20)\d\d年|\d{1,2}月\d{1,2}日|\b\d{1,2} (?:hours?|minutes?|days?) ago",
    re.IGNORECASE,
)
_MAX_META_WEIGHT = 130
_MAX_TRIMMED_RATIO = 0.12
_MIN_TITLE_CHARS = 12
_MAX_LISTED_LINK_RATIO = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """The lines of an extracted text without their marks, as arrays of one value a line."""

    clean: bytes
    """The text in UTF-8, without marks."""
    starts: Ints
    """First byte of each line in `clean`."""
    ends: Ints
    """First byte after it, line feed excluded."""
    kinds: Ints
    """KIND_BLANK to KIND_OTHER of tags.py: preformatted text is CODE, a row of a table ROW, text in no paragraph OTHER."""
    weights: Ints
    """Latin characters that a line is worth: a Han character, kana or syllable of Hangul counts as three."""
    num_chars: Ints
    """Characters without the white space around them, and without a bullet."""
    num_linked: Ints
    """Characters of these in links."""
    ends_sentence: Flags
    bodies: tuple[tuple[int, int], ...]
    """Lines, end excluded, of each element that article.py numbered; (0, 0) where it is not in the text."""

    @property
    def num_lines(self) -> int:
        return self.starts.size

    def text_of(self, line: int) -> str:
        return self.clean[self.starts[line] : self.ends[line]].decode()

    @property
    def is_linked(self) -> Flags:
        """Lines made of links."""
        flags: Flags = (self.num_linked >= _MIN_LINK_RATIO * self.num_chars) & (self.num_linked > 0)
        return flags

    @property
    def prose_weights(self) -> Ints:
        """The weights of lines that are prose by length or by their end, and not made of links; of others 0."""
        is_prose = (self.num_linked < _MAX_PROSE_LINK_RATIO * self.num_chars) & (self.weights >= _MIN_SENTENCE_WEIGHT)
        is_prose &= (self.weights >= _MIN_PROSE_WEIGHT) | self.ends_sentence
        return np.where(is_prose, self.weights, 0)

    def num_bytes(self, lines: Ints) -> int:
        """UTF-8 bytes of the given lines, line feeds left out."""
        return int((self.ends[lines] - self.starts[lines]).sum())

    def joined(self, kept: Sequence[int] | Ints) -> str:
        """The text of the given lines."""
        starts, ends = self.starts.tolist(), self.ends.tolist()
        return b"\n".join([self.clean[starts[line] : ends[line]] for line in kept]).decode()


def lines_of(marked: str, num_bodies: int = 0) -> Lines:
    """The lines of a text with marks. A line of nothing but marks is none."""
    source = marked.encode("utf-8", "replace")
    clean = np.empty(len(source) + 1, dtype=np.uint8)
    fields = np.empty((source.count(b"\n") + 1, NUM_LINE_FIELDS), dtype=np.int64)
    bodies, sizes = np.zeros((num_bodies, 2), dtype=np.int64), np.zeros(2, dtype=np.int64)
    addresses = (array.ctypes.data for array in (clean, fields, bodies))
    kernels().measure_lines(source, len(source), *addresses, num_bodies, sizes.ctypes.data)
    num_lines, num_bytes = sizes.tolist()
    columns = np.ascontiguousarray(fields[:num_lines].T)
    return Lines(
        clean=clean[:num_bytes].tobytes(),
        starts=columns[0],
        ends=columns[1],
        kinds=columns[2],
        weights=columns[3],
        num_chars=columns[4],
        num_linked=columns[5],
        ends_sentence=columns[6].astype(np.bool_),
        bodies=tuple((start, end) for start, end in bodies.tolist()),
    )


def page_text(lines: Lines) -> str:
    """The text of a page that is no article: all but the rows of links above and below it, and the headings of these."""
    is_link_row = lines.is_linked & (lines.weights < _MAX_PROMPT_WEIGHT)
    is_link_row &= (lines.kinds == KIND_ITEM) | (lines.kinds == KIND_PARAGRAPH) | (lines.kinds == KIND_OTHER)
    stands = np.flatnonzero(lines.kinds != KIND_BLANK)
    is_content = ~is_link_row[stands]
    headings = np.flatnonzero(lines.kinds[stands] == KIND_HEADING)
    for row in headings[::-1].tolist():  # from below, so that a heading above another takes what that one has taken
        is_content[row] = row + 1 == stands.size or is_content[row + 1]
    content = stands[is_content]
    return lines.clean[lines.starts[content[0]] : lines.ends[content[-1]]].decode() if content.size else ""


def article_lines(lines: Lines, body: Ints, prose_weights: Ints, titles: Sequence[str]) -> Ints:
    """The lines of an article page that are the article.

    `body` are the lines of the element that holds it, `prose_weights` those of all lines, `titles` what the page calls
    itself: a heading of these words above the text is not repeated in it.
    """
    reader = _Reader(lines, body)
    is_prose = prose_weights[body] > 0
    kinds = lines.kinds[body]
    is_short = lines.weights[body] < _MIN_PROSE_WEIGHT
    is_prose &= ~((kinds == KIND_HEADING) | (is_short & (kinds != KIND_PARAGRAPH)))
    is_prose |= kinds == KIND_CODE
    prose = [row for row in np.flatnonzero(is_prose).tolist() if reader.kept[row] and not reader.is_meta(row)]
    if not prose:
        return body
    names = {_name(title) for title in titles}
    total = reader.kept_weight(range(body.size))
    reader.trim_head(range(prose[0]), names, total)
    reader.trim_tail(range(prose[-1] + 1, body.size), total)
    reader.drop_link_lists()
    kept: Ints = body[np.array(reader.kept, dtype=np.bool_)]
    return kept


class _Reader:
    """The rows of one body, and which of them are still kept."""

    def __init__(self, lines: Lines, body: Ints) -> None:
        self.kinds: list[int] = lines.kinds[body].tolist()
        self.weights: list[int] = lines.weights[body].tolist()
        self.link_ratios: list[float] = (lines.num_linked[body] / np.maximum(lines.num_chars[body], 1)).tolist()
        self.ends_sentence: list[bool] = lines.ends_sentence[body].tolist()
        # the pattern matching below reads no long line
        self.texts = [
            lines.text_of(line) if weight <= _MAX_PROMPT_WEIGHT else ""
            for line, weight in zip(body.tolist(), self.weights, strict=True)
        ]
        self.kept = [
            kind in (KIND_BLANK, KIND_CODE) or not self._is_boilerplate(row) for row, kind in enumerate(self.kinds)
        ]

    def _is_boilerplate(self, row: int) -> bool:
        if self.weights[row] > _MAX_PROMPT_WEIGHT:
            return False
        if _PROMPT.match(self.texts[row]):
            return True
        return (
            self.kinds[row] in (KIND_PARAGRAPH, KIND_OTHER)
            and self.link_ratios[row] >= _MIN_LINK_RATIO
            and self.weights[row] < _MAX_PROMPT_WEIGHT
            and "://" not in self.texts[row]
        )

    def is_meta(self, row: int) -> bool:
        if self.weights[row] > _MAX_META_WEIGHT or self.kinds[row] == KIND_CODE:
            return False
        text = self.texts[row]
        return _BYLINE.match(text) is not None or (not self.ends_sentence[row] and _DATE.search(text) is not None)

    def kept_weight(self, rows: range) -> int:
        return sum(self.weights[row] for row in rows if self.kept[row])

    def _is_content(self, rows: range, total: int) -> bool:
        """Whether rows without prose, above or below it, are too large a part of the text to be trifles around it."""
        weighed = (self.weights[row] * (1 - self.link_ratios[row]) for row in rows if self.kept[row])
        return sum(weighed) > _MAX_TRIMMED_RATIO * total

    def trim_head(self, rows: range, names: set[str], total: int) -> None:
        """Titles, bylines, dates and what is neither a paragraph nor a heading, above the first prose."""
        is_content = self._is_content(rows, total)
        for row in rows:
            is_trifle = self.kinds[row] in (KIND_OTHER, KIND_ITEM) and not is_content
            if is_trifle or self.is_meta(row) or _is_title(self.texts[row], names):
                self.kept[row] = False

    def trim_tail(self, rows: range, total: int) -> None:
        """Headings with nothing below them, and rows that are neither paragraphs nor parts of a list of sentences."""
        if self._is_content(rows, total):
            return
        for row in rows:
            kind = self.kinds[row]
            if kind in (KIND_OTHER, KIND_HEADING) or (kind in (KIND_ITEM, KIND_ROW) and self.link_ratios[row] >= 0.3):
                self.kept[row] = False

    def drop_link_lists(self) -> None:
        """Runs of list items that are links, with the heading above them."""
        run: list[int] = []
        heading: int | None = None
        for row, kind in enumerate([*self.kinds, KIND_OTHER]):
            is_last = row == len(self.kinds)
            if not is_last and (kind == KIND_BLANK or not self.kept[row]):
                continue
            if kind == KIND_ITEM:
                run.append(row)
                continue
            if sum(self.link_ratios[item] >= _MIN_LINK_RATIO for item in run) > _MAX_LISTED_LINK_RATIO * len(run):
                for item in (*run, *(() if heading is None else (heading,))):
                    self.kept[item] = False
            run = []
            heading = row if kind == KIND_HEADING and not is_last else None


def _name(text: str) -> str:
    return "".join(re.findall(r"\w+", text.casefold()))


def _is_title(text: str, names: set[str]) -> bool:
    name = _name(text)
    return bool(name) and (name in names or (len(name) >= _MIN_TITLE_CHARS and any(name in other for other in names)))
