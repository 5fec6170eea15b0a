"""Which charset a page is read in: declared, misdeclared, undeclared."""

import codecs

import pytest
from extract_pages import extract
from hypothesis import given
from hypothesis import strategies as st

from pipelines.extract.charset import decode

SIMPLIFIED = "这是一个很长的段落，用来测试字符集的判断，包含足够多的常用汉字。朱镕基先生的名字里有一个镕字。" * 3
TRADITIONAL = "這是一個很長的段落，用來測試字元集的判斷，包含足夠多的常用漢字。裡面還有許多繁體字。" * 3
JAPANESE = "これは日本語の文章です。文字コードの判定を確かめるために書きました。" * 3
KOREAN = "이것은 문자 집합 판별을 시험하기 위한 긴 한국어 문단입니다. " * 4
RUSSIAN = "Это достаточно длинный абзац русского текста для проверки определения кодировки. " * 3
FRENCH = "Voilà un paragraphe assez long où l’on vérifie le jeu de caractères déclaré à tort, né déjà. " * 3

CASES = [
    # text, encoded as, header, meta, read as
    (SIMPLIFIED, "utf-8", None, None, "utf-8"),
    (SIMPLIFIED, "utf-8", "utf-8", None, "utf-8"),
    (SIMPLIFIED, "utf-8", "UTF8", None, "utf-8"),
    (SIMPLIFIED, "gb18030", None, None, "gb18030"),
    (SIMPLIFIED, "gb18030", "gb2312", None, "gb18030"),
    (SIMPLIFIED, "gb18030", None, "gbk", "gb18030"),
    (SIMPLIFIED, "gb18030", "GB2312", "utf-8", "gb18030"),  # the header outranks the meta
    (SIMPLIFIED, "gb18030", "utf-8", None, "gb18030"),  # misdeclared
    (SIMPLIFIED, "gb18030", None, "utf-8", "gb18030"),
    (SIMPLIFIED, "gb18030", "big5", None, "gb18030"),
    (SIMPLIFIED, "utf-8", "gb2312", None, "utf-8"),
    (SIMPLIFIED, "utf-8", "iso-8859-1", None, "utf-8"),
    (SIMPLIFIED, "utf-8", "no-such-charset", None, "utf-8"),
    (SIMPLIFIED, "utf-8", "no-such-charset", "gbk", "utf-8"),
    (SIMPLIFIED, "utf-8", None, "utf-16", "utf-8"),  # a meta read as ASCII is not UTF-16
    (TRADITIONAL, "big5", None, None, "big5hkscs"),
    (TRADITIONAL, "big5", "big5", None, "big5hkscs"),
    (TRADITIONAL, "big5", "utf-8", None, "big5hkscs"),
    (TRADITIONAL, "big5", "gb2312", None, "big5hkscs"),
    (TRADITIONAL, "gb18030", "gb2312", None, "gb18030"),
    (TRADITIONAL, "utf-8", "big5", None, "utf-8"),
    (JAPANESE, "shift_jis", None, None, "cp932"),
    (JAPANESE, "euc_jp", "euc-jp", None, "euc_jp"),
    (JAPANESE, "shift_jis", "utf-8", None, "cp932"),
    (KOREAN, "euc_kr", "euc-kr", None, "cp949"),
    (RUSSIAN, "cp1251", None, None, "cp1251"),
    (RUSSIAN, "koi8-r", "koi8-r", None, "koi8-r"),
    (FRENCH, "cp1252", "iso-8859-1", None, "cp1252"),
    (FRENCH, "utf-8", "iso-8859-1", None, "utf-8"),
]


@pytest.mark.parametrize(("text", "codec", "header", "meta", "charset"), CASES)
def test_charsets(text, codec, header, meta, charset):
    declared = f"<meta charset={meta}>" if meta else ""
    payload = f"<html><head>{declared}<title>{text[:8]}</title></head><body><p>{text}</p></body></html>".encode(codec)
    row = extract(payload, f"text/html; charset={header}" if header else "text/html")
    assert row["charset"] == charset
    assert row["text"] == text.strip()
    assert row["title"] == text[:8].strip()


@pytest.mark.parametrize(
    ("mark", "codec"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-16-le"),
        (b"", "utf-16-be"),
    ],
)
def test_byte_order_marks_and_utf16(mark, codec):
    html = f"<html><head><title>标题</title></head><body><p>{SIMPLIFIED}</p></body></html>"
    row = extract(mark + html.encode(codec), "text/html; charset=gbk" if mark else "text/html")
    assert (row["charset"], row["title"], row["text"]) == (codec, "标题", SIMPLIFIED)


def test_a_meta_in_http_equiv_form():
    meta = '<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset=gb2312">'
    row = extract(f"<html><head>{meta}</head><body><p>{SIMPLIFIED}</p>".encode("gb18030"))
    assert (row["charset"], row["text"]) == ("gb18030", SIMPLIFIED)


def test_a_cut_off_character_does_not_change_the_charset():
    payload = f"<p>{SIMPLIFIED}".encode()[:-1]
    row = extract(payload, "text/html; charset=utf-8")
    assert row["charset"] == "utf-8"
    assert row["text"].startswith(SIMPLIFIED[:-1])


def test_plain_text_has_no_meta():
    text = f'He wrote <meta charset="gbk"> here. {FRENCH}'
    row = extract(text.encode("cp1252"), "text/plain")
    assert row["charset"] == "cp1252"
    assert "Voilà" in row["text"]


@given(
    st.binary(max_size=300),
    st.sampled_from([None, "text/html; charset=gbk", "text/html; charset=utf-16", "x; charset="]),
)
def test_decoding_never_fails(payload, content_type):
    decoded = decode(payload, content_type, is_html=True)
    decoded.text.encode()  # no surrogates
    assert codecs.lookup(decoded.charset)
    assert decoded == decode(payload, content_type, is_html=True)
