"""Article pages: body, boilerplate, structure and metadata, in English and in Chinese; bounds counted in the source."""

import pytest
from extract_pages import extract, text_of

from pipelines.extract.article import Bodies, article_main_text
from pipelines.extract.blocks import lines_of
from pipelines.extract.limits import TooManyAttributesError, check_source
from pipelines.extract.metadata import iso_date
from pipelines.extract.scan import scan_source

PROSE = {
    "en": [
        f"The harbour office said on day {n} that the ferry would run again, and that no one had been hurt."
        for n in range(9)
    ],
    "zh": [
        f"港务局第{n}天表示，渡轮将恢复航行，没有人员受伤，乘客可以凭原来的船票登船，也可以办理退票。" for n in range(9)
    ],
}
BOILERPLATE = {
    "en": [
        "By Ann Author",
        "Updated 21 November 2019",
        "READ MORE: Another story",
        "Advertisement",
        "Share this on Facebook",
        "Image 1 of 5",
        "© 2019 Example Press. All rights reserved.",
        "This website uses cookies.",
    ],
    "zh": [
        "作者：某人",
        "发布时间：2019-11-21",
        "相关阅读：另一则新闻",
        "分享到微博",
        "责任编辑：某某",
        "版权所有 某某网",
        "京ICP备12345678号",
        "扫一扫关注我们",
    ],
}


def page(language: str, body: str, *, head: str = "") -> str:
    return (
        f"<html lang={language}><head><title>Title of it - Site</title><meta property=og:type content=article>"
        f"<meta property=og:title content='Title of it'>{head}</head><body><div class=menu><a href=/>Home</a></div>"
        f"<article><h1>Title of it</h1>{body}</article><p><a href=/x>Another story that is not this one</a></p></body>"
    )


@pytest.mark.parametrize("language", PROSE)
@pytest.mark.parametrize("container", ["<div class=article-body>", "<div itemprop=articleBody>", "<div class=x>"])
def test_the_body_stays_whole_and_alone(language, container):
    half = len(BOILERPLATE[language]) // 2
    above, below = (
        "".join(f"<p>{line}</p>" for line in part)
        for part in (BOILERPLATE[language][:half], BOILERPLATE[language][half:])
    )
    body = "".join(f"<p>{line}</p>" for line in PROSE[language])
    row = extract("<meta charset=utf-8>" + page(language, f"{container}{above}{body}{below}</div>"))
    assert row["text"].split("\n\n") == PROSE[language]
    assert (row["extractor"], row["title"]) == ("article", "Title of it - Site")


@pytest.mark.parametrize("language", PROSE)
@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h2>部分 Part</h2>", "部分 Part"),
        ("<ul><li>一</li><li>two</li></ul>", "  • 一\n  • two"),
        ("<ol><li>one</li><li>二</li></ol>", "  1. one\n  2. 二"),
        ("<table><tr><td>甲</td><td>1</td></tr><tr><td>乙</td><td>2</td></tr></table>", "甲\t\t1\n乙\t\t2"),
        ("<pre>if x:\n    close\n\n    print</pre>", "if x:\n    close\n\n    print"),
        ("<blockquote class=twitter-tweet><p>a short post 短</p></blockquote>", "a short post 短"),
        ("<p>see <a href=/x>this</a> and <a href=/y> that</a>.</p>", "see this and that."),
        ("<p><math><annotation encoding='application/x-tex'>E=mc^2</annotation></math> is it.</p>", "$E=mc^2$ is it."),
    ],
)
def test_structure_of_an_article(language, html, expected):
    first, last = ("".join(f"<p>{line}</p>" for line in part) for part in (PROSE[language][:4], PROSE[language][4:]))
    text = text_of(page(language, f"<div class=article-body>{first}{html}{last}</div>"))
    before, _, rest = text.partition(PROSE[language][3])
    assert before.split("\n\n")[:-1] == PROSE[language][:3]
    assert rest.partition(PROSE[language][4])[0].strip("\n") == expected


@pytest.mark.parametrize("language", PROSE)
def test_a_body_named_wrongly_is_not_believed(language):
    body = "".join(f"<p>{line}</p>" for line in PROSE[language])
    text = text_of(page(language, f"<div class=article-body><p>{PROSE[language][0]}</p></div><div>{body}</div>"))
    assert all(line in text for line in PROSE[language])


@pytest.mark.parametrize("language", PROSE)
def test_a_list_of_links_that_calls_itself_an_article_is_not_lost(language):
    items = "".join(f"<dd><a href=/{n}>{PROSE[language][n % 9][:12]} {n}</a></dd>" for n in range(60))
    text = text_of(page(language, f"<dl>{items}</dl>"))
    assert all(f" {n}" in text for n in range(60))


@pytest.mark.parametrize("language", PROSE)
def test_a_doubtful_page_takes_the_careful_path(language):
    whole = "\n\n".join(PROSE[language])
    marked = f"\x0e0\x10{PROSE[language][0]} {PROSE[language][1]}\x0f0\x10\n\n{whole}"  # the element that is named holds two of nine
    bodies = Bodies(((0.7, range(1)),))
    assert article_main_text(marked, bodies, lambda: whole, titles=("Title of it",)) == (whole, "careful")


@pytest.mark.parametrize("language", PROSE)
def test_a_forum_that_calls_itself_an_article_keeps_every_post(language):
    posts = "".join(f"<div class=postbody id=c{n}><p>#{n} {line}</p></div>" for n, line in enumerate(PROSE[language]))
    text = text_of(page(language, f"<div class=comments>{posts}</div>"))
    assert all(f"#{n} {line}" in text for n, line in enumerate(PROSE[language]))


@pytest.mark.parametrize(
    ("head", "author", "published_at", "site_name"),
    [
        ("<meta name=author content='Ann A.'><meta property=og:site_name content=站点>", "Ann A.", None, "站点"),
        ("<meta property=article:published_time content=2019-11-20T07:50:00Z>", None, "2019-11-20", None),
        (
            '<script type=application/ld+json>{"datePublished":"2019-02-03","author":[{"name":"\\u738b\\u4e94"}]}</script>',
            "王五",
            "2019-02-03",
            None,
        ),
        ("<meta name=author content='https://a.example/b'><meta name=date content='someday'>", None, None, None),
    ],
)
def test_author_date_and_site(head, author, published_at, site_name):
    body = "".join(f"<p>{line}</p>" for line in PROSE["en"])
    row = extract("<meta charset=utf-8>" + page("en", body, head=head))
    assert (row["author"], row["published_at"], row["site_name"]) == (author, published_at, site_name)


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2019-11-20T07:50", "2019-11-20"),
        ("2019年1月2日", "2019-01-02"),
        ("2019/1/2 10:00", "2019-01-02"),
        ("2019-13-01", None),
        ("2019-02-30", None),
        ("20 November 2019", None),
        ("", None),
    ],
)
def test_dates(text, date):
    assert iso_date(text) == date


def test_prose_is_weighed_alike_in_both_languages():
    assert lines_of(PROSE["en"][0]).prose_weights.tolist() == [len(PROSE["en"][0])]
    assert lines_of(PROSE["zh"][0]).prose_weights.sum() > 80
    assert lines_of("Home\nMenu\n首页\n上一页").prose_weights.sum() == 0


@pytest.mark.parametrize(
    ("html", "is_too_many"),
    [
        ("<p class=x id=y>text</p>" * 1000, False),
        ("<b " + " ".join(f"a{n}" for n in range(40_000)) + ">", True),
        ("<b " + " ".join(f"a{n}='>'" for n in range(40_000)) + ">", True),
        ("<b " + "/a" * 40_000 + ">", True),
        ("text = 1 " * 40_000, False),
        ("<!-- <b " + "a " * 40_000 + "-->", False),
        ("<p>" + "a b = c " * 40_000, False),
    ],
)
def test_attributes_are_counted(html, is_too_many):
    if is_too_many:
        with pytest.raises(TooManyAttributesError):
            check_source(scan_source(html), max_tags=1 << 19)
    else:
        check_source(scan_source(html), max_tags=1 << 19)


@pytest.mark.parametrize(
    ("html", "most"),
    [
        ("<p><b>x</b></p>" * 3000, 12_001),
        ("".join(f"<p><a href={n}>x</a><!-- c --></p>" for n in range(3000)), 16_000),
        ("<font size=2>" * 3000 + "<p>x</p>" * 3000, 40_000),
    ],
)
def test_closed_formatting_is_not_counted_again(html, most):
    assert scan_source(html).num_elements <= most


@pytest.mark.parametrize("between", ["", "<!--</b>-->", "<x y='</b>'>", "<select></b></select>"])
def test_formatting_left_open_is_multiplied(between):
    html = "".join(f"<b a{n}>{between}" for n in range(1200)) + "<p>x</p>" * 1200
    assert scan_source(html).num_elements > 1_000_000
