"""Main text and structure of HTML, in English and in Chinese, and the remedies for resiliparse's defects."""

import unicodedata

import pytest
from extract_pages import article, text_of
from hypothesis import given, settings
from hypothesis import strategies as st

ENGLISH = "This paragraph is long enough to be taken for the main content of the page by any extractor. " * 3
CHINESE = "这一段文字足够长，任何提取程序都会把它当作网页的正文内容，而不是导航或页脚。" * 5


@pytest.mark.parametrize("prose", [ENGLISH, CHINESE])
def test_boilerplate_goes_and_content_stays(prose):
    html = (
        "<body><header><a href=/>Home</a></header><nav><ul><li><a href=/a>Menu 甲</a></li></ul></nav>"
        f"<article><h1>Title 标题</h1><p>{prose}</p></article>"
        "<aside class=sidebar>Related</aside><footer>Copyright 版权所有</footer><script>var x='script'</script></body>"
    )
    text = text_of(html)
    assert text.startswith("Title 标题\n\n" + prose.strip())
    for boilerplate in ("Home", "Menu", "Related", "Copyright", "script"):
        assert boilerplate not in text


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>One</p><p>Two</p>", "One\n\nTwo"),
        ("<p>One<br>two</p>", "One\ntwo"),
        ("<h2>Head</h2><p>Body</p>", "Head\n\nBody"),
        ("<ol><li>one</li><li>two</li></ol>", "  1. one\n  2. two"),
        ("<ul><li>one</li><li>two</li></ul>", "  • one\n  • two"),
        ("<ul><li>第一</li><li>二</li></ul>", "  • 第一\n  • 二"),
        ("<ul><li><p>a paragraph</p><p>another</p></li><li>x</li></ul>", "  • a paragraph\n\n    another\n\n  • x"),
        ("<ul><li>one<ul><li>in</li></ul></li><li>two</li></ul>", "  • one\n    • in\n  • two"),
        ("<ul><li>one<ol><li>in</li></ol></li></ul>", "  • one\n    1. in"),
        ("<ol><li>one<ul><li>in</li></ul></li><li>two</li></ol>", "  1. one\n    • in\n  2. two"),
        ("<ul><li></li><li>one</li></ul>", "  • one"),
        ("<UL><LI>one</LI></UL>", "  • one"),
        ("<pre>def f(x):\n    return x\n\n    # 注释</pre>", "def f(x):\n    return x\n\n    # 注释"),
        ("<blockquote><p>q</p></blockquote>", "q"),
        ("<dl><dt>词</dt><dd>义</dd></dl>", "词\n义"),
        ("<p>否</p><p>A</p><p>é</p>", "否\n\nA\n\né"),
        ("<p>a <b>和</b> b</p>", "a 和 b"),
        ("<p>x&nbsp;y&#8203;z &lt;b&gt; &#xD800;</p>", "x y\N{ZERO WIDTH SPACE}z <b> \N{REPLACEMENT CHARACTER}"),
        ("<table><tr><th>名</th><th>数</th></tr><tr><td>甲</td><td>12</td></tr></table>", "名\t\t数\n甲\t\t12"),
        ("<table><tr><td>Ⅷ</td><td>✓</td><td>①</td><td>は</td><td>한</td></tr></table>", "Ⅷ\t\t✓\t\t①\t\tは\t\t한"),
    ],
)
def test_structure(html, expected):
    before, _, after = text_of(article(html, ENGLISH)).partition(ENGLISH.strip())
    assert before == ""
    assert after.removesuffix(ENGLISH.strip()).strip("\n") == expected


def test_no_cell_of_a_chinese_table_is_lost():
    cells = "甲乙丙丁戊己庚辛壬癸零壹贰叁肆伍陆柒捌玖"
    html = "<table>" + "".join(f"<tr><td>{cell}</td><td> {cell}\n</td></tr>" for cell in cells) + "</table>"
    text = text_of(article(html, CHINESE))
    assert "".join(text.replace(CHINESE, "").split()) == "".join(cell * 2 for cell in cells)


@pytest.mark.parametrize("icon", ["\ue601", "→", "▼"])
def test_icons_are_not_content(icon):
    assert icon not in text_of(article(f"<p><i class=icon>{icon}</i> next</p>", ENGLISH))


@pytest.mark.parametrize(
    "html",
    [
        "<ul><li><a href=a>One</a></li><li><a href=b>Two</a></li></ul>",
        "<ul class='main-menu'><li>Product</li><li>Price</li></ul>",
        "<ul class=breadcrumb><li>Product</li><li>Price</li></ul>",
    ],
)
def test_a_list_of_links_near_the_body_is_navigation(html):
    text = text_of(f"<body>{html}<p>{ENGLISH}</p></body>")
    assert text == ENGLISH.strip()


def test_a_forum_thread_keeps_every_post():
    posts = "".join(
        f'<div class="comment post" id="comment-{n}"><span class=author>用户{n}</span><p>Post number {n}: {ENGLISH}</p>'
        f"<p>第{n}楼：我同意，{CHINESE}</p></div>"
        for n in range(8)
    )
    text = text_of(f"<body><nav><a href=/>Forum</a></nav><div class=comments>{posts}</div></body>")
    for number in range(8):
        assert f"Post number {number}:" in text
        assert f"第{number}楼" in text


KATEX_DISPLAY = "<span class=katex-html aria-hidden=true><span>E</span><span>=mc2</span></span>"
MATH_ML = "<math><mi>E</mi><mo>=</mo><annotation encoding='application/x-tex'> E=mc^2 </annotation></math>"


@pytest.mark.parametrize(
    "html",
    [
        f"<p>有 {MATH_ML} 和</p>",
        f"<p>有 <span class=katex><span class=katex-mathml>{MATH_ML}</span>{KATEX_DISPLAY}</span> 和</p>",
        "<p>有 <script type='math/tex'>E=mc^2</script> 和</p>",
    ],
)
def test_a_formula_stands_once_as_tex(html):
    text = text_of(article(html, ENGLISH))
    assert "有 $E=mc^2$ 和" in text
    assert text.count("mc") == 1


def test_math_without_tex_stays():
    text = text_of(article(f"<p>a <math><mi>y</mi></math> b {MATH_ML}</p><p>tail</p>", ENGLISH))
    assert "a y b $E=mc^2$" in text
    assert "tail" in text


def test_a_page_whose_main_content_is_nearly_empty_gives_its_whole_text():
    html = (
        "<body><nav>Menu</nav><aside><p>" + ENGLISH + "</p></aside><div class=popup><p>" + CHINESE + "</p></div>"
        "<footer>Foot</footer></body>"
    )
    assert text_of(html) == CHINESE
    assert text_of(html, min_main_chars=0) == ""


def test_main_content_off_keeps_what_is_neither_navigation_nor_footer():
    html = f"<body><nav>Menu</nav><div class=sidebar>Side</div><p>{ENGLISH}</p><footer>Foot</footer></body>"
    assert text_of(html, main_content=False) == f"Side\n\n{ENGLISH.strip()}"


@settings(max_examples=60, deadline=None)
@given(
    words=st.lists(
        st.text(st.characters(categories=["Ll", "Lo"], min_codepoint=97), min_size=2, max_size=9), min_size=40
    )
)
def test_no_word_of_an_article_is_lost(words):
    html = article("".join(f"<p>{word} {index}</p>" for index, word in enumerate(words)), ENGLISH)
    text = text_of(html)
    for index, word in enumerate(words):
        assert f"{unicodedata.normalize('NFC', word)} {index}\n" in text
