"""A page and its Chinese version say the same: neither can be changed alone."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAIRS = {
    "readme": (ROOT / "README.md", ROOT / "README.zh-CN.md"),
    "guide": (ROOT / "infra" / "operators-guide.md", ROOT / "infra" / "operators-guide.zh-CN.md"),
}
_COMMENT = re.compile(r"(?:^|\s+)# .*$")
_FIGURE = re.compile(r"(?<![\w.,])\d[\d,.]*\d%?")
_HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list, a table or a code block."""

    kind: str
    text: str

    @property
    def shape(self) -> tuple[str, ...]:
        """What must be equal in both languages."""
        lines = self.text.splitlines()
        if self.kind == "heading":
            return (self.kind, self.text.partition(" ")[0])
        if self.kind == "code":
            return (self.kind, *(_COMMENT.sub("", line) for line in lines))
        if self.kind == "table":
            return (self.kind, *(str(line.count("|")) for line in lines))
        if self.kind == "list":
            return (self.kind, str(sum(not line.startswith(" ") for line in lines)))
        return (self.kind,)


def blocks(text: str) -> list[Block]:
    """The blocks of a page in order: lines of one kind after another. A heading may have its paragraph right below."""
    runs: list[tuple[str, list[str]]] = []
    before = ""
    for line in text.splitlines():
        if before == "code":  # until the fence that closes it
            runs[-1][1].append(line)
            before = "" if line.startswith("```") else "code"
            continue
        kind = _kind(line)
        if line.startswith(" ") and before == "list":
            kind = "list"
        if kind and kind == before != "heading":
            runs[-1][1].append(line)
        elif kind:
            runs.append((kind, [line]))
        before = kind
    return [Block(kind, "\n".join(lines)) for kind, lines in runs]


def _kind(text: str) -> str:
    if not text.strip():
        return ""
    if text.startswith("```"):
        return "code"
    if text.startswith("#"):
        return "heading"
    if text.startswith("|"):
        return "table"
    return "list" if re.match(r"(?:- |\d+\. )", text) else "paragraph"


def sections(text: str) -> list[list[Block]]:
    """The blocks below each heading, with it."""
    found: list[list[Block]] = [[]]
    for block in blocks(text):
        if block.kind == "heading":
            found.append([])
        found[-1].append(block)
    return found[1:]


def read(name: str) -> tuple[list[list[Block]], list[list[Block]]]:
    english, chinese = (sections(path.read_text(encoding="utf-8")) for path in PAIRS[name])
    return english, chinese


def prose(section: list[Block]) -> str:
    return "\n".join(block.text for block in section if block.kind != "code")


def code_words(section: list[Block]) -> set[str]:
    return set(re.findall(r"`([^`]+)`", prose(section)))


def links(section: list[Block]) -> list[str]:
    targets = re.findall(r"\]\(([^)]+)\)", prose(section))
    return sorted(target.replace(".zh-CN.md", ".md") for target in targets)


@pytest.mark.parametrize("name", PAIRS)
def test_the_first_line_below_the_title_leads_to_the_other_language(name: str) -> None:
    english, chinese = PAIRS[name]
    for page, other in ((english, chinese), (chinese, english)):
        assert re.fullmatch(rf"\[[^\]]+\]\({other.name}\)", page.read_text(encoding="utf-8").splitlines()[1])


@pytest.mark.parametrize("name", PAIRS)
def test_headings_paragraphs_lists_tables_and_code_are_the_same_in_order(name: str) -> None:
    english, chinese = read(name)
    assert len(english) == len(chinese)
    for ours, theirs in zip(english, chinese, strict=True):
        assert [block.shape for block in ours] == [block.shape for block in theirs], ours[0].text


@pytest.mark.parametrize("name", PAIRS)
def test_names_links_and_figures_are_the_same_in_each_section(name: str) -> None:
    for ours, theirs in zip(*read(name), strict=True):
        assert code_words(ours) == code_words(theirs), ours[0].text
        assert links(ours) == links(theirs), ours[0].text
        missing = set(_FIGURE.findall(prose(ours))) - set(_FIGURE.findall(prose(theirs)))
        assert missing == set(), ours[0].text


@pytest.mark.parametrize("name", PAIRS)
def test_every_paragraph_is_translated(name: str) -> None:
    for section in read(name)[1]:
        for block in section:
            is_name = block.kind == "heading" or re.fullmatch(r"\[English\]\(.*\)", block.text)
            assert block.kind == "code" or is_name or _HAN.search(block.text), block.text
