"""Perplexity on real text: prose that the models have not seen against what is no prose of its language."""

import csv
import json
import os
import random
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from perplexity_inputs import document, models, scored

from pipelines.perplexity.scores import ScoresConfig
from pipelines.store import Store

pytestmark = pytest.mark.real_data

ENGLISH_BOILERPLATE = """
Home | About us | Contact | Privacy policy | Terms of use | Sitemap | Log in | Register
© 2024 Example Ltd. All rights reserved. VAT no. 123 4567 89. Follow us: Facebook Twitter Instagram YouTube LinkedIn
Add to cart - Wishlist - Compare - Share - Print - Size guide - S M L XL XXL - In stock - Free delivery over $50
Accept all cookies Reject all Manage preferences Strictly necessary Performance Targeting Functional Show details
Previous 1 2 3 4 5 6 7 8 9 10 Next Last >> Sort by: newest | oldest | price low-high | price high-low | rating
Tags: news, sport, weather, video, photos, jobs, cars, homes, deals, games, apps, podcasts, newsletters, RSS
""".strip()
CHINESE_BOILERPLATE = """
首页 | 关于我们 | 联系我们 | 网站地图 | 隐私政策 | 用户协议 | 登录 | 注册 | 收藏本站 | 设为首页 | 手机版
版权所有 © 2024 某某科技有限公司 京ICP备00000000号-1 京公网安备11010000000000号 增值电信业务经营许可证
上一篇：无 下一篇：无 相关推荐 热门文章 最新文章 点击排行 阅读全文 展开 收起 打印 关闭 分享到 微信 微博 QQ空间
加入购物车 立即购买 收藏 对比 规格参数 商品评价 售后保障 满99包邮 七天无理由退换 货到付款 客服热线 400-000-0000
排序 综合 销量 价格 从高到低 从低到高 第1页 共99页 下一页 末页 跳转 确定 每页20条 全部 分类 品牌 筛选 重置
""".strip()


def data() -> Path:
    if "CORPUSMILL_TEST_DATA" not in os.environ:
        pytest.skip("CORPUSMILL_TEST_DATA is not set")
    return Path(os.environ["CORPUSMILL_TEST_DATA"])


def english_prose() -> list[str]:
    """Novels, film reviews, speeches and encyclopedia articles, in pieces of about 2,000 characters."""
    texts = [path.read_text(encoding="utf-8") for path in sorted((data() / "en/jane-austen").glob("*.txt"))]
    for name in ("movie_reviews", "state_union"):
        with zipfile.ZipFile(data() / f"en/nltk_data/packages/corpora/{name}.zip") as file:
            texts += [file.read(each).decode("latin-1") for each in sorted(file.namelist()) if each.endswith(".txt")]
    wiki = data() / "lm-eval/wikitext-2/word_language_model/data/wikitext-2/valid.txt"
    texts.append(wiki.read_text(encoding="utf-8"))
    return pieces([re.sub(r"(?<=\S)[ \n]+(?=\S)", " ", text) for text in texts], 2000)


def chinese_prose() -> list[str]:
    """Comments from forums, twenty at a time, and classical texts."""
    with (data() / "toxicity/cold-zh/COLDataset/train.csv").open(encoding="utf-8-sig", newline="") as file:
        comments = [row["TEXT"] for row in csv.DictReader(file)]
    texts = ["\n".join(comments[start : start + 20]) for start in range(0, len(comments), 20)]
    for name in ("sishuwujing", "lunyu"):
        rows = (data() / f"zh/chinese-poetry/{name}.jsonl").read_text(encoding="utf-8").splitlines()
        texts += pieces(["".join(json.loads(row)["paragraphs"]) for row in rows], 600)
    return [text for text in texts if len(text) >= 200]


def pieces(texts: Sequence[str], size: int) -> list[str]:
    return [text[start : start + size] for text in texts for start in range(0, max(1, len(text) - size + 1), size)]


def sentences(code: str) -> list[str]:
    path = data() / f"langid/lingua/language-testdata/sentences/{code}.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return [" ".join(lines[start : start + 10]) for start in range(0, min(len(lines), 600), 10)]


PROSE: dict[str, Callable[[], list[str]]] = {"en": english_prose, "zh": chinese_prose}


@pytest.fixture(scope="module", params=["en", "zh"])
def trained(request, tmp_path_factory) -> tuple[str, ScoresConfig, list[str]]:
    """A language, models of nine tenths of its prose, and the tenth that they have not seen."""
    texts = PROSE[request.param]()
    random.Random(0).shuffle(texts)
    held_out, rows = texts[: len(texts) // 10], texts[len(texts) // 10 :]
    learnt = [(request.param, idx % 2, text) for idx, text in enumerate(rows)]
    store = Store(tmp_path_factory.mktemp(request.param))
    return request.param, models(store, learnt, vocab_size=8192, min_count=2), held_out[:300]


def values(language: str, config: ScoresConfig, texts: Sequence[str], name: str = "perplexity") -> np.ndarray:
    rows = scored([document(f"d{idx}", text, language=language) for idx, text in enumerate(texts)], config)
    return np.array([row[name] for row in rows])


def separation(low: np.ndarray, high: np.ndarray) -> float:
    """How often a value of the second kind is above one of the first: the area under the ROC curve."""
    return float((high[:, None] > low[None, :]).mean())


def mixed(text: str, language: str) -> str:
    words = text.split(" ") if language == "en" else list(text)
    random.Random(1).shuffle(words)
    return (" " if language == "en" else "").join(words)


def test_shuffled_words_surprise_more_than_prose(trained):
    language, config, prose = trained
    shuffled = [mixed(text, language) for text in prose]
    for name in ("perplexity", "bits_per_byte"):
        assert separation(values(language, config, prose, name), values(language, config, shuffled, name)) > 0.99


def test_boilerplate_surprises_more_than_prose(trained):
    language, config, prose = trained
    boilerplate = (ENGLISH_BOILERPLATE if language == "en" else CHINESE_BOILERPLATE).split("\n")
    for name in ("perplexity", "bits_per_byte"):
        usual = values(language, config, prose, name)
        found = values(language, config, boilerplate, name)
        assert separation(usual, found) > 0.95
        assert np.median(found) > np.quantile(usual, 0.95)


@pytest.mark.parametrize(("own", "foreign"), [("en", "de"), ("en", "fr"), ("en", "nl"), ("zh", "ja"), ("zh", "en")])
def test_another_language_surprises_more_a_byte_than_prose(trained, own, foreign):
    """A byte, not a piece: Latin letters are few, so to a Chinese model each letter is no great surprise."""
    language, config, prose = trained
    if language != own:
        pytest.skip("a pair of the other model")
    usual = values(language, config, prose, "bits_per_byte")
    assert separation(usual, values(language, config, sentences(foreign), "bits_per_byte")) > 0.99


def test_prose_from_elsewhere_surprises_less_than_shuffled_prose_of_what_was_learnt(trained):
    language, config, prose = trained
    news = values(language, config, sentences(language))
    assert separation(news, values(language, config, [mixed(text, language) for text in prose])) > 0.9
