"""Licence classes, in English and Chinese."""

import pytest

from pipelines.rights.license_classes import accepted_classes, license_class

CC = "https://creativecommons.org/licenses/"


@pytest.mark.parametrize(
    ("url", "text", "expected"),
    [
        (f"{CC}by/4.0/", "All rights reserved.", "open"),
        (f"{CC}by-sa/3.0/us/", "正文", "open"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "", "open"),
        (f"{CC}by-nc/4.0/", "text", "nc"),
        (f"{CC}by-nc-sa/4.0/deed.zh", "正文", "nc"),
        (f"{CC}by-nd/4.0/", "text", "nd"),
        (f"{CC}by-nc-nd/4.0/", "text", "nc-nd"),
        ("https://a.example/terms", "text", "unknown"),
        (None, "text", "unknown"),
        (None, "", None),
        (None, "Text.\n© 2024 A. All Rights Reserved.", "all-rights-reserved"),
        (None, "正文。\n版权所有 © 某某公司", "all-rights-reserved"),
        (None, "正文。\n未经本站书面授权，不得转载。", "all-rights-reserved"),
        (None, "正文。\n版權為某某所有，未經許可禁止轉載", "all-rights-reserved"),
        (None, "本文谈论版权。他拥有所有权利意识。", "unknown"),
        (None, "All rights reserved." + " and more" * 1000 + "", "all-rights-reserved"),
        (None, "x" * 5000 + "All rights reserved." + "x" * 5000, "unknown"),
    ],
)
def test_license_class(url, text, expected):
    assert license_class(url, text) == expected


def test_both_restrictions_ask_for_both():
    assert "nc-nd" not in accepted_classes(("open", "nc"))
    assert "nc-nd" in accepted_classes(("nd", "nc"))
