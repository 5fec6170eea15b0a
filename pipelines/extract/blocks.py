"""Which lines of an article's text are the article: a classifier of text blocks by length, links, kind and place.

The features are those of shallow text classification (Kohlschütter, Fankhauser and Nejdl, WSDM 2010: text length and
link density), and the judgement of short blocks by their neighbours is that of jusText (Pomikálek 2011). Its stop words need
spaces between words, so in their place stand sentence ends and lengths that count a Han character or a kana as several.

Lines come with marks, noncharacters that `html.py` sets into the source, which say where links, paragraphs, headings
and preformatted text begin and end.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

LINK, LINK_END, HEADING, PARAGRAPH, CODE, CODE_END = "\ufdd2", "\ufdd3", "\ufdd4", "\ufdd5", "\ufdd6", "\ufdd7"
_MARK = re.compile(f"[{LINK}-{CODE_END}]")

_WIDE = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_WIDE_WEIGHT = 3
"""Latin characters that say as much as one Han character, kana or syllable of Hangul."""
_MIN_PROSE_WEIGHT = 80
"""Weight from which a line with few links is taken for prose."""
_MIN_SENTENCE_WEIGHT = 30
_MAX_PROSE_LINK_RATIO = 0.5
_MIN_LINK_RATIO = 0.8
_MAX_PROMPT_WEIGHT = 260
_SENTENCE_END = re.compile(r"[.!?…:;。！？：；][\"'”’»)\]）」』]{0,3}$")
_ITEM = re.compile(r"\s*(?:•|\d{1,7}\.) ")

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


@dataclass(slots=True)
class _Line:
    """A line of text with what its marks say."""

    text: str
    kind: str
    """heading, paragraph, item, row, code, other, or blank."""
    weight: int
    """Latin characters that it is worth."""
    link_ratio: float
    kept: bool = True


_LINK_TAG = re.compile(r"<a [^<>]*>")
_BLOCK_TAG = re.compile(r"(<p(?: [^<>]*)?>)\s*")
_HEADING_TAG = re.compile(r"(<h[1-6](?: [^<>]*)?>)\s*")
_CODE_TAG = re.compile(r"<pre(?: [^<>]*)?>")


def marked_source(html: str) -> str:
    """HTML as a parser writes it out (small letters, each element closed), with marks in it."""
    html = _LINK_TAG.sub(rf"\g<0>{LINK}", html).replace("</a>", LINK_END + "</a>")
    html = _HEADING_TAG.sub(rf"\1{HEADING}", _BLOCK_TAG.sub(rf"\1{PARAGRAPH}", html))
    if "<pre" in html:
        html = _CODE_TAG.sub(rf"\g<0>{CODE}", html).replace("</pre>", CODE_END + "</pre>")
    return html


def prose_weight(text: str) -> int:
    """Weight of the lines of a text, marked or not, that are prose by length or by their end, and not made of links."""
    total = 0
    for line, plain in zip(text.split("\n"), without_marks(text).split("\n"), strict=True):
        if len(plain) * _WIDE_WEIGHT < _MIN_SENTENCE_WEIGHT:
            continue
        stripped = plain.strip()
        worth = weight(stripped)
        if worth < _MIN_SENTENCE_WEIGHT or _num_linked(line) >= _MAX_PROSE_LINK_RATIO * len(stripped):
            continue
        if worth >= _MIN_PROSE_WEIGHT or _ends_a_sentence(stripped):
            total += worth
    return total


def _ends_a_sentence(text: str) -> bool:
    return _SENTENCE_END.search(text, max(0, len(text) - 5)) is not None


def without_marks(text: str) -> str:
    """`text` as it is without marks."""
    return text if text.isascii() else _MARK.sub("", text)


def link_ratio(text: str) -> float:
    """Share of the characters of a marked text that stand in links."""
    plain = len(without_marks(text))
    return _num_linked(text) / plain if plain else 0.0


def is_prose(line: _Line) -> bool:
    """Whether a line is a sentence or more, not made of links."""
    if line.kind == "code":
        return True
    if line.link_ratio >= _MAX_PROSE_LINK_RATIO or line.kind == "heading":
        return False
    if line.weight >= _MIN_PROSE_WEIGHT:
        return True
    return line.kind == "paragraph" and line.weight >= _MIN_SENTENCE_WEIGHT and _ends_a_sentence(line.text)


def article_text(marked: str, titles: Sequence[str]) -> str:
    """The lines of an article page that are the article.

    `titles` are what the page calls itself: a heading of these words above the text is not repeated in it.
    """
    marked = marked.replace(f" {LINK} ", f" {LINK}").replace(f" {LINK_END} ", f"{LINK_END} ")
    lines = _lines(marked)
    for line in lines:
        if line.kind not in ("blank", "code") and _is_boilerplate(line):
            line.kept = False
    prose = [index for index, line in enumerate(lines) if line.kept and is_prose(line) and not _is_meta(line)]
    if not prose:
        return without_marks(marked)
    names = {_name(title) for title in titles}
    total = sum(line.weight for line in lines if line.kept)
    _trim_head(lines[: prose[0]], names, total)
    _trim_tail(lines[prose[-1] + 1 :], total)
    _drop_link_lists(lines)
    return "\n".join(line.text for line in lines if line.kept)


def _lines(marked: str) -> list[_Line]:
    lines: list[_Line] = []
    in_code = False
    for raw, text in zip(marked.split("\n"), without_marks(marked).split("\n"), strict=True):
        in_code = in_code or CODE in raw
        stripped = text.strip()
        if in_code:
            kind = "code"
        elif not stripped:
            kind = "blank"
        elif HEADING in raw:
            kind = "heading"
        elif _ITEM.match(text):
            kind = "item"
        elif "\t" in stripped:
            kind = "row"
        else:
            kind = "paragraph" if PARAGRAPH in raw else "other"
        lines.append(_Line(text, kind, weight(stripped), _num_linked(raw) / max(1, len(stripped))))
        in_code = in_code and CODE_END not in raw
    return lines


def weight(text: str) -> int:
    """Latin characters that a text is worth."""
    return len(text) if text.isascii() else len(text) + (_WIDE_WEIGHT - 1) * len(_WIDE.findall(text))


def _num_linked(raw: str) -> int:
    if LINK not in raw and LINK_END not in raw:
        return 0
    before, *parts = raw.split(LINK)
    linked = sum(len(part.partition(LINK_END)[0]) for part in parts)
    if LINK_END in before:  # the link began on a line above
        linked += len(before.partition(LINK_END)[0])
    return linked


def _is_boilerplate(line: _Line) -> bool:
    if line.weight <= _MAX_PROMPT_WEIGHT and _PROMPT.match(line.text):
        return True
    return (
        line.kind in ("paragraph", "other")
        and line.link_ratio >= _MIN_LINK_RATIO
        and line.weight < _MAX_PROMPT_WEIGHT
        and "://" not in line.text
    )


def _is_meta(line: _Line) -> bool:
    if line.weight > _MAX_META_WEIGHT or line.kind == "code":
        return False
    return _BYLINE.match(line.text) is not None or (
        not _ends_a_sentence(line.text) and _DATE.search(line.text) is not None
    )


def _name(text: str) -> str:
    return "".join(re.findall(r"\w+", text.casefold()))


def _trim_head(lines: list[_Line], names: set[str], total: int) -> None:
    """Titles, bylines, dates and what is neither a paragraph nor a heading, above the first prose."""
    is_content = _is_content(lines, total)
    for line in lines:
        if (line.kind in ("other", "item") and not is_content) or _is_meta(line) or _is_title(line, names):
            line.kept = False


def _is_content(lines: list[_Line], total: int) -> bool:
    """Whether lines without prose, above or below it, are too large a part of the text to be trifles around it."""
    return sum(line.weight * (1 - line.link_ratio) for line in lines if line.kept) > _MAX_TRIMMED_RATIO * total


def _is_title(line: _Line, names: set[str]) -> bool:
    name = _name(line.text)
    return bool(name) and (name in names or (len(name) >= 12 and any(name in other for other in names)))


def _trim_tail(lines: list[_Line], total: int) -> None:
    """Headings with nothing below them, and lines that are neither paragraphs nor parts of a list of sentences."""
    if _is_content(lines, total):
        return
    for line in lines:
        if line.kind in ("other", "heading") or (line.kind in ("item", "row") and line.link_ratio >= 0.3):
            line.kept = False


def _drop_link_lists(lines: list[_Line]) -> None:
    """Runs of list items and rows that are links, with the heading above them."""
    run: list[_Line] = []
    heading: _Line | None = None
    for line in [*lines, _Line("", "end", 0, 0.0)]:
        if line.kind == "blank" or not line.kept:
            continue
        if line.kind == "item":
            run.append(line)
            continue
        if run and sum(item.link_ratio >= _MIN_LINK_RATIO for item in run) > 0.6 * len(run):
            for item in run:
                item.kept = False
            if heading is not None:
                heading.kept = False
        run = []
        heading = line if line.kind == "heading" else None
