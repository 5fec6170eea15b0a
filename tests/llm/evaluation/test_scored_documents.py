"""Held-out documents as a suite: their bits over their bytes, in all and by group, in an order of their own."""

import math
from typing import Any

import numpy as np
import pytest

from llm.data import TokenDocument
from llm.evaluation.documents import by_group, held_out_suite

DOCUMENTS = [
    TokenDocument(doc_id=name, num_bytes=size, tokens=np.arange(3)) for name, size in (("b", 10), ("a", 30), ("c", 20))
]
LOSSES = np.array([20.0, 30.0, 70.0]) * math.log(2)


def suite(**changes: Any) -> Any:
    return held_out_suite(DOCUMENTS, LOSSES, **{"protocol": "p", "split": "test", **changes})


def test_the_figure_is_all_bits_over_all_bytes() -> None:
    found = suite()
    assert found.figure.value == pytest.approx(2.0)
    assert (found.figure.num_items, [item["id"] for item in found.items]) == (3, ["a", "b", "c"])
    assert [(item["score"], item["weight"]) for item in found.items] == [
        (pytest.approx(30.0), 30),
        (pytest.approx(20.0), 10),
        (pytest.approx(70.0), 20),
    ]


def test_groups_are_measured_by_themselves_and_one_document_is_no_group() -> None:
    groups = {
        "a": {"language": "zh", "domain": "x"},
        "b": {"language": "zh", "domain": "y"},
        "c": {"language": "en", "domain": "x"},
    }
    found = by_group(suite(), groups).figures
    assert found.keys() == {"bits_per_byte", "bits_per_byte/language=zh", "bits_per_byte/domain=x"}
    assert found["bits_per_byte/language=zh"].value == pytest.approx(50 / 40)
    assert found["bits_per_byte/domain=x"].value == pytest.approx(100 / 50)


def test_other_documents_are_another_dataset_in_any_order_the_same() -> None:
    again = held_out_suite(DOCUMENTS[::-1], LOSSES[::-1], protocol="p", split="test")
    assert again == suite()
    fewer = held_out_suite(DOCUMENTS[:2], LOSSES[:2], protocol="p", split="test")
    assert fewer.suite.dataset_digest != again.suite.dataset_digest
