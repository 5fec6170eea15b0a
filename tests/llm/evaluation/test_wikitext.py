"""WikiText's pages and text: as the harness's own task has them."""

import os
from pathlib import Path

import pytest

from llm.evaluation.wikitext import detokenized, num_words, pages

TEXT = ' \n = Mill = \n \n The mill , built @-@ in 1 @,@ 820 ( by two ) , " turns " . \n = = Wheel = = \n It \'s old ; no N ° \n = Ferry = \n On .\n'


def test_a_page_begins_at_a_title_and_not_at_a_heading():
    found = pages(TEXT)
    assert [page.split("\n")[0] for page in found] == [" = Mill = ", " = Ferry = "]
    assert "".join(found) == TEXT[2:]
    assert pages("plain text") == ["plain text"]


def test_marks_lose_their_spaces():
    assert '(by two), "turns".' in detokenized(TEXT)
    assert "1,820" in detokenized(TEXT)
    assert num_words("a b\nc") == 3


def test_text_is_that_of_the_harness():
    theirs = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    for page in [TEXT, *pages(TEXT)]:
        assert detokenized(page) == theirs.wikitext_detokenizer({"page": page})


@pytest.mark.real_data
def test_real_pages_are_those_of_the_harness():
    theirs = pytest.importorskip("lm_eval.tasks.wikitext.preprocess_wikitext")
    folder = Path(os.environ["CORPUSMILL_TEST_DATA"]) / "lm-eval/wikitext-2/word_language_model/data/wikitext-2"
    found = pages((folder / "valid.txt").read_text(encoding="utf-8"))
    assert len(found) == 60
    assert all(detokenized(page) == theirs.wikitext_detokenizer({"page": page}) for page in found)
