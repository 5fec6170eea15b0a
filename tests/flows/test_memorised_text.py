"""Copies counted from outcomes, and personal data in generations led back to documents."""

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from flows.evaluation.memorisation import Generation, copy_groups, personal_data
from llm.data import TokenDocument
from llm.evaluation.compare import from_json, to_json
from llm.evaluation.memorisation import HELD_OUT
from pipelines.schemas import OUTCOME


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", "replace")


def ids(text: str) -> tuple[int, ...]:
    return tuple(text.encode())


def document(name: str, text: str) -> TokenDocument:
    return TokenDocument(doc_id=name, num_bytes=len(text.encode()), tokens=np.array(ids(text), np.uint16))


def test_groups_by_copies() -> None:
    def row(doc_id: str, *, of: str | None = None, split: str = "train", decision: str | None = None):
        kept = {"decision": decision or ("drop" if of else "keep"), "reason": None, "similarity": None}
        return {"doc_id": doc_id, "duplicate_of": of, "split": split, "containment": None, "cut_lines": [], **kept}

    rows = [row("alone"), row("two"), row("many"), row("held", split="test"), row("bad", decision="drop")]
    rows += [row("x", of="two"), row("y", of="held"), *(row(f"m{idx}", of="many") for idx in range(20))]
    batches = [pa.RecordBatch.from_pylist(part, schema=OUTCOME) for part in (rows[:6], rows[6:])]
    assert copy_groups(batches) == {"alone": "1", "two": "2-3", "many": "16+", "held": HELD_OUT}


def test_personal_data_is_led_to_the_documents_that_hold_it() -> None:
    documents = [
        document("a", "Ask the editor: rosalind.marsh@harbour-news.org, any day."),
        document("b", "没有联系方式的一页。"),
        document("c", "请打电话13812345678找老罗。"),
        document("d", "Again rosalind.marsh@harbour-news.org, twice."),
    ]
    generations = [
        Generation(prompt_ids=ids("Write to"), ids=ids(" rosalind.marsh@harbour-news.org, please."), language="en"),
        Generation(prompt_ids=ids("请打"), ids=ids("电话13812345678找人。"), language="zh"),
        Generation(prompt_ids=ids("Write to"), ids=ids(" made.up@nowhere-at-all.org, please."), language="en"),
        Generation(prompt_ids=ids("someone@prompt-only.org said"), ids=ids(" nothing at all."), language="en"),
        Generation(prompt_ids=(), ids=ids("山里的早晨很安静。"), language="zh"),
    ]
    asked = []

    def urls_of(doc_ids: Sequence[str]) -> dict[str, str]:
        asked.extend(doc_ids)
        return {"a": "https://a.test/"}

    found = personal_data(generations, decode, documents, dataset_digest="d", urls_of=urls_of)
    assert [item["score"] for item in found.items] == [1, 1, 1, 0, 0]
    assert asked == ["a", "c", "d"]
    first = [{"doc_id": "a", "url": "https://a.test/"}, {"doc_id": "d", "url": None}]
    assert found.items[0]["findings"] == [{"kind": "email", "documents": first}]
    assert found.items[1]["findings"] == [{"kind": "phone", "documents": [{"doc_id": "c", "url": None}]}]
    assert found.items[2]["findings"] == [{"kind": "email", "documents": []}]
    assert found.figure.value == 3 / 5
    assert from_json(json.loads(json.dumps(to_json(found)))).items == tuple(found.items)
    assert found.figures["share_traced"].value == 2 / 5
    assert found.figures["share_with_personal_data/email"].value == 2 / 5
    assert "rosalind" not in repr(found)


def test_a_token_that_reaches_over_the_border_hides_no_document() -> None:
    """As in byte-level BPE: a word takes the space before it into its token."""
    table = {300: " ro", 301: "(ro", 302: "salind.marsh", 303: "@harbour-news.org"}

    def decode_words(tokens: Sequence[int]) -> str:
        return "".join(table.get(token) or chr(token) for token in tokens)

    held = TokenDocument(doc_id="a", num_bytes=30, tokens=np.array([65, 301, 302, 303, 41], np.uint16))
    written = Generation(prompt_ids=(84, 111), ids=(300, 302, 303, 46), language="en")
    found = personal_data([written], decode_words, [held], dataset_digest="d")
    assert found.items[0]["findings"] == [{"kind": "email", "documents": [{"doc_id": "a", "url": None}]}]


def test_no_document_is_read_where_nothing_is_found() -> None:
    def never():
        raise AssertionError
        yield

    found = personal_data([Generation(prompt_ids=(), ids=ids("Nothing here."))], decode, never(), dataset_digest="d")
    assert found.figure.value == 0
