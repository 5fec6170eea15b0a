"""The scan of a page's source: marks that change nothing else, names, and bounds that no trick gets under."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree

from pipelines.extract.naming import BODY, POST, SKIP, TALK, TRIM, sift_names
from pipelines.extract.scan import marked_source, scan_source

MARKS = re.compile("[\x01-\x06]")


def marked(html: str) -> str:
    scan = scan_source(html)
    return marked_source(scan, [0] * len(scan.names)).decode()


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>a</p>", "<p>\x04a</p>"),
        ("<P class=x>\n 文</P>", "<P >\x04文</P>"),
        ("<td id=a class='x y'title=b>c", "<td >c"),
        ("<b class=x id=y class=z>c", "<b  id=y >c"),
        ("a<span>b</span> <SPAN class=n>c</SPAN\n>d", "ab cd"),
        ("<span>a<span class=x>b</span></span>", "ab"),
        ("<span>a<b>b</b></span>", "<span>a<b>b</b></span>"),
        ("<span class=x><i>b</i><span>c</span></span>", "<span class=x><i>b</i>c</span>"),
        ("<span id=x>a</span><span hidden>b</span>", "<span >a</span><span hidden>b</span>"),
        ("<svg><span>a</span></svg><span>b</span>", "<svg><span>a</span></svg>b"),
        ("<span>a", "a"),
        ("</span>a<span", "</span>a<span"),
        ("a <a href=x>b</a> c", "a <a >\x01b\x02</a> c"),
        ("a <a href=x> b </a> c", "a <a > \x01b\x02 </a> c"),
        ("<a name=x>b</a>", "<a name=x>b</a>"),
        ("<a href=x rel=y id=z>b</a>", "<a href=x rel=y id=z>\x01b\x02</a>"),
        ("<IMG SRC=x ALT='a' ROLE=img DATA-X>", "<IMG  ROLE=img >"),
        ("<i style=x>a</i><font color=red>b</font>", "<i style=x>a</i><font color=red>b</font>"),
        ("<p/id='x'role=a /id>b", "<p/role=a >\x04b"),
        (
            "<p hidden a role=b c lang=d e type=f g name=h i rel=j>k",
            "<p hidden role=b lang=d type=f name=h i rel=j>\x04k",
        ),
        ("<svg/id=x><path d='x'/><path d=x/></svg>", "<svg><path /><path ></svg>"),
        ("<li=>a<li =>b<li a/b role=c>", "<li=>a<li >b<li role=c>"),
        ("<h2>a</h2>", "<h2>\x03a</h2>"),
        ("<pre>\n  a</pre>", "<pre>\x05  a\x06</pre>"),
        ("<script>if (a<b) { '<p>' }</script><p>a", "<script></script><p>\x04a"),
        ("<SCRIPT src=x>a</Script ><Style>b</style\n>c", "<SCRIPT ></Script ><Style></style\n>c"),
        ("<script>'<b</script><p>a", "<script></script><p>\x04a"),
        ("<script>a", "<script>a"),
        ("<style><!-- a</style>b", "<style></style>b"),
        ("<script><!-- a</script>b", "<script></script>b"),
        (
            "<script><!-- <script>a</script> <!-- b --></script>c",
            "<script><!-- <script>a</script> <!-- b --></script>c",
        ),
        ("<script type='application/LD+json'>{}</script>", "<script type='application/LD+json'>{}</script>"),
        ("<script type='application/ld&#43;json'>{}</script>", "<script type='application/ld&#43;json'>{}</script>"),
        ("<script type=x itemprop=license>a</script>", "<script type=x itemprop=license>a</script>"),
        ("<script type=x>a</script>", "<script type=x></script>"),
        ("<h1><style>a</style></h1><style>b</style>", "<h1>\x03<style>a</style></h1><style></style>"),
        ("<svg><style>a</style></svg><style>b</style>", "<svg><style>a</style></svg><style></style>"),
        ("<svg></math><style>a</style>", "<svg></math><style>a</style>"),
        ("<svg><desc><b></svg><style>a</style>", "<svg><desc><b></svg><style>a</style>"),
        ("<svg><![CDATA[<b></svg>]]><style>a</style>", "<svg><![CDATA[<b></svg>]]><style>a</style>"),
        ("<svg><title><b></svg></title></svg><style>a</style>", "<svg><title><b></svg></title></svg><style>a</style>"),
        ("<frameset><style>a</style>", "<frameset><style>a</style>"),
        ("<!-- <p> --><p>a", "<!----><p>\x04a"),
        ("<!-- <i>→</i> --!><p>a", "<!-- <i>→</i> --!><p>\x04a"),
        ("<!-- < → < --><p>a", "<!----><p>\x04a"),
        ("<!----!>a<!-->b<!--->c<!---->d", "<!----!>a<!-->b<!--->c<!---->d"),
        ("<!--><p>a", "<!--><p>\x04a"),
        ("<p title='a>b'>c", "<p >\x04c"),
        ("<p title=a>b'>c", "<p >\x04b'>c"),
        ("a < b <3 </ 5 <", "a < b <3 </ 5 <"),
        ("<i>→</i> next", "<i> </i> next"),
        ("<td>甲</td>", "<td>甲</td>"),
        ("<textarea><p></textarea><p>a", "<textarea><p></textarea><p>\x04a"),
        ("a\x01b\x00c", "abc"),
        ("<p", "<p"),
        ("<p class='", "<p class='"),
        ("", ""),
    ],
)
def test_marks(html, expected):
    assert marked(html) == expected


def test_a_span_with_a_telling_name_stays():
    scan = scan_source("<span class=share>a<span class=x>b</span></span> <span class=x>c</span>")
    source = marked_source(scan, sift_names(scan.names)).decode()
    assert source == "<span class=share cm-skip cm-trim>ab</span> c"


def test_classes_stay_where_they_are_asked_for():
    html = "<p class=a><span class=b>c</span></p>"
    scan = scan_source(html, keeps_classes=True)
    assert marked_source(scan, [0] * len(scan.names)).decode() == html.replace("a>", "a>\x04", 1)


PARTS = (
    *(
        "<p>",
        "</p>",
        "<a href=x>",
        "</a>",
        "<a>",
        "<h1>",
        "</h1>",
        "<pre>",
        "</pre>",
        "<ul><li>",
        "</ul>",
        "<div class=x>",
    ),
    *(
        "</div>",
        "<table><tr><td>",
        "</table>",
        "<b>",
        "</b>",
        "<!--",
        "-->",
        "<script>",
        "</script>",
        "<svg>",
        "</svg>",
    ),
    *(
        "<select><option>",
        "</select>",
        "<style>",
        "</style>",
        "<br/>",
        "<img alt='>'>",
        "'",
        '"',
        "<",
        ">",
        "a",
        "文 ",
        " \n",
    ),
    *(
        "<title>",
        "</title>",
        "<template>",
        "</template>",
        "<noscript>",
        "</noscript>",
        "<a href='x",
        "/>",
        "<?x",
        "&lt;",
    ),
    *(
        "<!-->",
        "<!--->",
        "--!>",
        "<![CDATA[",
        "]]>",
        "<SCRIPT type=x>",
        "</SCRIPT\n>",
        "<script ",
        "</style/>",
        "<math>",
        "</math>",
        "<desc>",
    ),
    *(
        "</desc>",
        "<mi>",
        "<foreignObject>",
        "<annotation-xml encoding='text/html'>",
        "<textarea>",
        "</textarea>",
        "<plaintext>",
        "<xmp>",
        "</xmp>",
        "<iframe>",
        "</iframe>",
        "<frameset>",
    ),
    *(
        "<input type=hidden>",
        "<font color=x>",
        "</font>",
        "<p/id=x>",
        "<DIV ID=x hidden>",
        "<p=>",
        "<li id=x//>",
        "<p a='b>c'd=e>",
        "\0",
        "</p id=x>",
        "<svg/>",
        "<g/id=x/>",
    ),
)


def text_of(tree: HTMLTree) -> str:
    """The text of a tree but that of scripts and style sheets, without marks and white space."""
    for element in tree.document.query_selector_all("script,style").values():
        element.text = ""
    return "".join(MARKS.sub("", tree.body.text if tree.body else "").split())


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=40))
def test_marks_attributes_and_cuts_change_no_text(parts):
    """What a parser makes of the marked source is what it makes of the source, but for the marks and white space."""
    html = "<body>" + "".join(parts)
    scan = scan_source(html)
    marked_tree = HTMLTree.parse_from_bytes(marked_source(scan, [255] * len(scan.names)))
    assert text_of(marked_tree) == text_of(HTMLTree.parse(html.replace("\0", "")))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=60))
def test_bounds_hold_for_what_the_parser_makes(parts):
    scan = scan_source("<body>" + "".join(parts))
    tree = HTMLTree.parse("<body>" + "".join(parts))
    assert (
        len(tree.document.query_selector_all("body *")) <= scan.num_elements + 2 * scan.num_tags
    )  # tbody and the like
    deepest = max(
        (depth for depth in range(1, 40) if tree.document.query_selector(" ".join(["div"] * depth))), default=0
    )
    assert deepest <= scan.block_depth


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_any_source_can_be_scanned(html):
    marked(html).encode()
    assert scan_source(html).num_tags == html.count("<")


@pytest.mark.parametrize(
    ("name", "is_id", "flags"),
    [
        ("main-nav", False, SKIP),
        ("docnav", False, SKIP),
        ("navel orange", False, 0),
        ("pageFooter", False, SKIP),
        ("Sidebar_left", False, SKIP | TRIM),
        ("share-buttons", False, SKIP | TRIM),
        ("shareholder", False, TRIM),
        ("social-media-embed", False, 0),
        ("comments", False, TALK | TRIM),
        ("article-body", False, BODY),
        ("storyBody", False, BODY),
        ("postbody", False, POST),
        ("postmessage_17", True, POST),
        ("js_content", True, BODY),
        ("search", True, SKIP),
        ("search", False, 0),
        ("hidden", False, SKIP),
        ("overhidden", False, 0),
        ("İnav", False, SKIP),
        ("İ\nnav", False, SKIP),
        ("正文", False, 0),
    ],
)
def test_names(name, is_id, flags):
    assert sift_names([("x", False), (name, is_id), ("y", True)]) == [0, flags, 0]


def test_what_a_page_says_it_has():
    scan = scan_source(
        "<article itemscope itemtype=x><a rel='nofollow LICENSE' href=y>z</a><script type='application/ld+json'>{}</script>"
        "<div class='a b' id=c><span id=d class='a b'><h2 id=e>"
    )
    assert (scan.has_article, scan.has_items, scan.has_license, scan.has_scripts) == (True, True, True, True)
    assert scan.names == (("a b", False), ("c", True))
    assert scan_source("<p>article itemtype license</p>").has_article is False


@pytest.mark.parametrize(
    "meta",
    [
        "<meta property=og:title content=a>",
        "<META Name=' OG:Title\n' content=a/>",
        "<meta itemprop=og&#58;title content=a>",
        "<meta itemprop=datePublished name=x content=a>",
        "<meta name=robots content=a><meta name='\N{NO-BREAK SPACE}author' content=b>",
    ],
)
def test_meta_elements_that_are_read_are_told(meta):
    assert marked(meta).count(" cm-read>") == meta.lower().count("<meta")
    assert scan_source(meta).num_unread == 0


@pytest.mark.parametrize("meta", ["<meta name=viewport content=author>", "<meta name content=a>", "<meta charset=x>"])
def test_other_meta_elements_are_counted(meta):
    assert " cm-read" not in marked(meta)
    assert scan_source(meta).num_unread == 1


def test_the_scan_says_where_it_may_be_wrong():
    assert scan_source("<svg><title>a</title></svg><script><!-- a</script><math></math>").is_tangled is False
    assert scan_source("<script><!-- <script></script>").is_tangled is True


def test_names_are_bounded():
    scan = scan_source("".join(f"<p class=c{n}>" for n in range(10_000)) + f"<p class={'x' * 500}>")
    assert len(scan.names) == 1024
    assert scan.names[-1] == ("c1023", False)
