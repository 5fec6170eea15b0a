"""Every Arrow schema of the pipeline, once.

Names carry their unit (`num_bytes`, `fetched_at` in UTC). A field that is not nullable holds no
null in any stored shard: pyarrow does not check that, the store does when it writes.
"""

from typing import Any

import pyarrow as pa

UTC_TIME = pa.timestamp("us", tz="UTC")
MINHASH_NUM_PERMUTATIONS = 112
"""As many as FineWeb has (arXiv:2406.17557); 22 bands of 5 of them are compared, see dedup/config.py."""


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


def _counts(name: str, label: str) -> pa.Field:
    return _required(name, pa.list_(pa.struct([_required(label, pa.string()), _required("count", pa.int32())])))


_SPANS = pa.list_(
    pa.struct([_required("kind", pa.string()), _required("start", pa.int32()), _required("end", pa.int32())])
)

PAGE = pa.schema(
    [
        pa.field("url", pa.string()),
        pa.field("fetched_at", UTC_TIME),
        _required("status", pa.int16()),
        pa.field("content_type", pa.string()),  # the header as sent, with its charset parameter
        # "name: value", names in lower case: the headers that carry rights, then directives of the site's files
        _required("headers", pa.list_(pa.string())),
        _required("payload", pa.binary()),
        pa.field("record_offset", pa.int64()),  # of the WARC record or the text row, for lineage
        pa.field("problem", pa.string()),  # set by a reader for what it could not read
    ]
)
"""What a source yields: one row a fetched page, a page that was withdrawn, or a damaged stretch of a file."""

SITE_SOURCES = frozenset(
    (
        "robots.txt content-signal",
        "robots.txt content-usage",
        "robots.txt ai-agents",
        "tdmrep.json",
        "ai.txt",
        "rsl",
        "unread",
    )
)
"""Sources of the directives that the crawler resolved from a site's files; no HTTP header has one of these names."""

DOCUMENT = pa.schema(
    [
        _required("doc_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("fetched_at", UTC_TIME),
        pa.field("record_offset", pa.int64()),
        _required("num_page_bytes", pa.int64()),
        pa.field("content_type", pa.string()),
        pa.field("charset", pa.string()),
        pa.field("declared_language", pa.string()),
        pa.field("title", pa.string()),
        pa.field("author", pa.string()),
        pa.field("published_at", pa.string()),  # ISO 8601 date, as the page states it
        pa.field("site_name", pa.string()),
        pa.field("extractor", pa.string()),  # the path that gave the text: article, main, whole, careful, plain
        pa.field("license_url", pa.string()),
        _required("directives", pa.list_(pa.string())),  # "source: value" of each rights directive seen
        pa.field("problem", pa.string()),  # null, or why there is no text
        _required("text", pa.large_string()),
    ]
)

ENTITIES = pa.schema(
    [
        _required("doc_id", pa.string()),
        # in text order, disjoint, in code points of the document's text
        _required("entities", _SPANS),
    ]
)
"""What a named-entity model takes for personal data in each document: where, never what."""

SIGNALS = pa.schema(
    [
        _required("doc_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("fetched_at", UTC_TIME),
        pa.field("problem", pa.string()),
        _required("num_chars", pa.int64()),
        _required("num_bytes", pa.int64()),
        # language
        pa.field("language", pa.string()),  # ISO 639 code
        pa.field("language_score", pa.float32()),
        pa.field("language_source", pa.string()),  # fasttext or langdetect
        pa.field("script", pa.string()),  # ISO 15924: Latn, Hans, Hant, ...
        pa.field("language_share", pa.float32()),  # of the dominant language, by parts; null where none could be told
        _required("is_mixed_language", pa.bool_()),  # that share is below 0.8
        # Gopher quality (arXiv:2112.11446, appendix A1)
        _required("num_words", pa.int64()),
        pa.field("mean_word_length", pa.float32()),
        pa.field("hash_to_word_ratio", pa.float32()),
        pa.field("ellipsis_to_word_ratio", pa.float32()),
        pa.field("bullet_line_ratio", pa.float32()),
        pa.field("ellipsis_line_ratio", pa.float32()),
        pa.field("alpha_word_ratio", pa.float32()),
        _required("num_stop_words", pa.int32()),
        # Gopher repetition
        pa.field("dup_paragraph_ratio", pa.float32()),
        pa.field("dup_paragraph_char_ratio", pa.float32()),
        pa.field("dup_line_ratio", pa.float32()),
        pa.field("dup_line_char_ratio", pa.float32()),
        *(pa.field(f"top_{n}_gram_char_ratio", pa.float32()) for n in (2, 3, 4)),
        *(pa.field(f"dup_{n}_gram_char_ratio", pa.float32()) for n in (5, 6, 7, 8, 9, 10)),
        # C4 (arXiv:1910.10683)
        _required("num_sentences", pa.int32()),
        _required("has_lorem_ipsum", pa.bool_()),
        _required("has_curly_bracket", pa.bool_()),
        pa.field("policy_line_ratio", pa.float32()),
        # FineWeb (arXiv:2406.17557)
        pa.field("line_punctuation_ratio", pa.float32()),
        pa.field("short_line_ratio", pa.float32()),
        pa.field("dup_char_ratio", pa.float32()),
        pa.field("newline_to_word_ratio", pa.float32()),
        # compliance, abuse, identity, personal data
        _required("rights", pa.string()),  # allow, disallow or unknown
        _required("rights_evidence", pa.list_(pa.string())),
        _required("num_blocked_ai_agents", pa.int32()),  # crawlers for training that robots.txt shuts out of the page
        pa.field("license", pa.string()),  # SPDX identifier
        pa.field("license_class", pa.string()),  # open, nc, nd, nc-nd, all-rights-reserved or unknown
        _counts("keyword_counts", "category"),
        _counts("identity_counts", "group"),
        _counts("pii_counts", "kind"),
        # of the default kinds, and names that a model found: in text order, disjoint, in code points
        _required("pii", _SPANS),
        # of each fastText model given as a file, in the recipe's order
        _required(
            "classifier_scores", pa.list_(pa.struct([_required("name", pa.string()), _required("score", pa.float32())]))
        ),
        # duplicates
        pa.field("text_digest", pa.binary(16)),  # of the normalised text; null where there is no text
        pa.field(
            "exact_digest", pa.binary(16)
        ),  # of the text as it is, so that what looks it up is named by its inputs
        pa.field("minhash", pa.list_(pa.uint32(), MINHASH_NUM_PERMUTATIONS)),
    ]
)
"""Everything measured about a document, once. A ratio is null where it has no denominator."""

TOXICITY_MODEL = pa.schema(
    [
        _required("language", pa.string()),
        _required("intercept", pa.float64()),
        _required("weights", pa.list_(pa.float32())),
        _required("num_given", pa.int64()),  # texts of the recipe's files, beside our own sentences
        _required("num_given_abusive", pa.int64()),
    ]
)
"""The classifiers of abusive sentences, one row a language."""

TOXICITY = pa.schema(
    [
        _required("doc_id", pa.string()),
        _counts("abuse_in_context", "context"),  # hits of the abuse list where abuse is spoken of, see bias/contexts.py
        pa.field("toxicity", pa.float32()),  # mean score of the most toxic tenth of the sentences; null without a model
        pa.field("toxicity_max", pa.float32()),
        pa.field("toxic_sentence_ratio", pa.float32()),
        _required("num_scored_sentences", pa.int32()),
    ]
)
"""A second look at the documents that name a group or hold a word of the abuse list."""

CONTAMINATION = pa.schema(
    [
        _required("doc_id", pa.string()),
        _required(
            "contaminated_by",
            pa.list_(
                pa.struct(
                    [
                        _required("suite", pa.string()),
                        _required("item", pa.string()),
                        _required("num_ngrams", pa.int32()),  # different n-grams of the item that stand in the text
                        _required("share", pa.float32()),  # of all the item's n-grams
                        _required("start", pa.int64()),  # text[start:end], in code points: the first stretch that does
                        _required("end", pa.int64()),
                    ]
                )
            ),
        ),
    ]
)
"""The items of evaluation suites that stand in each document, in the order of the suites; an empty list for none."""

SUITE_INDEX = pa.schema(
    [
        _required("hashes", pa.large_list(pa.uint64())),
        _required("item_idxs", pa.large_list(pa.uint32())),
        _required("short_anchors", pa.large_list(pa.uint64())),
        _required("short_item_idxs", pa.large_list(pa.uint32())),
        _required("short_lengths", pa.large_list(pa.uint32())),
        _required("short_hashes", pa.large_list(pa.uint64())),
        _required("suites", pa.large_list(pa.string())),
        _required("item_ids", pa.large_list(pa.string())),
        _required("word_ngram", pa.int32()),
        _required("character_ngram", pa.int32()),
    ]
)
"""One row: what is looked for of the evaluation suites, as flat arrays that are mapped and not parsed."""

REFERENCE = pa.schema(
    [
        _required("doc_id", pa.string()),
        _required("language", pa.string()),
        pa.field("fold", pa.int8()),  # null: text from given files, which all documents are judged by
        _required("text", pa.large_string()),
    ]
)
"""What the language models learn from."""

NGRAM_MODEL = pa.schema(
    [
        _required("vocab_size", pa.int32()),
        _required("boundary", pa.int32()),  # the token that ends a document
        _required(
            "levels",  # n-grams of 1 token, of 2, and so on
            pa.list_(
                pa.struct(
                    [
                        _required("keys", pa.list_(pa.uint64())),
                        _required("costs", pa.list_(pa.int32())),  # 2^-20 bits
                        _required("backoffs", pa.list_(pa.int32())),
                    ]
                )
            ),
        ),
    ]
)
"""An n-gram model as one row: see pipelines/ngram.py."""

LANGUAGE_MODEL = pa.schema(
    [
        _required("language", pa.string()),
        pa.field("fold", pa.int8()),  # of the documents it learnt from; null: from given files
        _required("num_bytes", pa.int64()),  # UTF-8 bytes it learnt from
        _required("tokenizer_json", pa.large_string()),
        *NGRAM_MODEL,
    ]
)
"""The n-gram models of the languages, with the pieces that each counts."""

PERPLEXITY = pa.schema(
    [
        _required("doc_id", pa.string()),
        pa.field("perplexity", pa.float32()),  # a piece
        pa.field("bits_per_byte", pa.float32()),
        pa.field("perplexity_model", pa.string()),  # the language whose model judged; null where none fits
    ]
)
"""How surprising each document is to the model of its language, where the recipe wants it measured."""

DECISION = pa.schema(
    [
        _required("doc_id", pa.string()),
        _required("decision", pa.string()),  # keep or drop
        pa.field("reason", pa.string()),  # the first rule that failed; null exactly where the decision is keep
        pa.field("value", pa.float64()),  # what that rule measured
        pa.field("threshold", pa.float64()),
        _required("failed_rules", pa.list_(pa.string())),  # every rule that failed, in rule order
        pa.field("blocked_by", pa.string()),  # "list: entry" of the block list that names the page's address
    ]
)
"""The policy's verdict on each document."""

LINES = pa.schema(
    [
        _required("doc_id", pa.string()),
        _required("lines", pa.list_(pa.int32())),  # numbers of its long lines, from 0
        _required("hashes", pa.list_(pa.uint64())),  # of each, with its host
        _required("sizes", pa.list_(pa.int32())),  # characters of each, its line feed included
    ]
)
"""The lines of each document that are counted within its host."""

BANDS = pa.schema(
    [
        _required("key", pa.uint64()),  # hash of a band and its minima
        _required("text", pa.uint64()),  # the first bytes of the text's digest
    ]
)
"""The index of near-duplicates: which texts share a band, sorted by key, then text."""

NEAR = pa.schema(
    [
        _required("text", pa.binary(16)),  # exact digests of two texts, the later one first
        _required("other", pa.binary(16)),
        _required("similarity", pa.float32()),  # Jaccard similarity of their shingles
        _required("containment", pa.float32()),  # share of the later one's shingles that are in the earlier one
        _required("leads", pa.bool_()),  # whether the later one is a near-duplicate of the earlier one
    ]
)
"""What was counted of pairs of texts that share a band."""

OUTCOME = pa.schema(
    [
        _required("doc_id", pa.string()),
        _required("decision", pa.string()),  # keep or drop, final
        pa.field("reason", pa.string()),
        pa.field("duplicate_of", pa.string()),  # doc_id of the document that stays
        pa.field("similarity", pa.float32()),  # Jaccard similarity to it, counted
        pa.field("containment", pa.float32()),  # share of its shingles that are in the document that stays
        _required("split", pa.string()),  # train, validation or test
        # lines of a kept document that are not trained on, and the document that showed each first
        _required(
            "cut_lines", pa.list_(pa.struct([_required("line", pa.int32()), _required("first_shown_by", pa.string())]))
        ),
    ]
)
"""The final outcome of each page: the policy's drop, or a duplicate's, or keep."""

SAMPLE = pa.schema(
    [
        _required("doc_id", pa.string()),
        pa.field("made_of", pa.binary(16)),  # digest of all that shaped the text; null for one that was cut short
        _required("text", pa.large_string()),
    ]
)
"""What the tokenizer is trained on."""

TOKENIZER = pa.schema([_required("tokenizer_json", pa.large_string())])
"""One row: a tokenizer in the Hugging Face tokenizer.json format."""


def tokens_schema(vocab_size: int) -> pa.Schema:
    """TOKENS for a vocabulary: 16-bit ids where they suffice, else 32-bit."""
    return TOKENS if vocab_size <= 1 << 16 else _tokens(pa.uint32())


def _tokens(kind: pa.DataType) -> pa.Schema:
    return pa.schema(
        [
            _required("doc_id", pa.string()),
            _required("split", pa.string()),
            _required("num_bytes", pa.int64()),  # UTF-8 bytes of the text that was encoded
            _required("tokens", pa.list_(kind)),  # ends with the end-of-text token
        ]
    )


TOKENS = _tokens(pa.uint16())


TOKEN_PLACE = pa.schema(
    [
        _required("doc_id", pa.string()),
        _required("split", pa.string()),
        _required("token_row", pa.int64()),  # in the shard
        _required("token_start", pa.int64()),  # of all the shard's tokens
        _required("token_end", pa.int64()),
        _required("stream_start", pa.int64()),  # of the split's tokens, shards in the order of their digests
        _required("stream_end", pa.int64()),
        _required("num_tokens", pa.int64()),
    ]
)
"""Where the tokens of each document of a token shard lie; they end before `token_end` and `stream_end`."""

MEASURED = pa.schema(
    [
        *(
            field
            for field in SIGNALS
            if field.name
            not in ("doc_id", "url", "fetched_at", "problem", "text_digest", "exact_digest", "minhash", "pii")
        ),
        *(field for field in TOXICITY if field.name != "doc_id"),
        # null where nobody looked
        *(pa.field(field.name, field.type) for field in (*CONTAMINATION, *PERPLEXITY) if field.name != "doc_id"),
    ]
)
"""What may be shown of what was measured: no place of personal data, no signature."""

LINEAGE = pa.schema(
    [
        _required("doc_id", pa.string()),
        pa.field("url", pa.string()),
        pa.field("fetched_at", UTC_TIME),
        _required("unit", pa.string()),  # digest of the source file and of how it is read
        pa.field("source_file", pa.string()),  # where that file lies now
        pa.field("record_offset", pa.int64()),  # of the WARC record, or the number of the text row
        pa.field("problem", pa.string()),
        _required("decision", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("value", pa.float64()),  # of the first rule that failed
        pa.field("threshold", pa.float64()),
        _required("failed_rules", pa.list_(pa.string())),
        pa.field("blocked_by", pa.string()),
        _required(
            "rules",  # every rule that judged it, in rule order; no number where a rule is on words, such as the language
            pa.list_(
                pa.struct(
                    [
                        _required("rule", pa.string()),
                        pa.field("value", pa.float64()),
                        pa.field("threshold", pa.float64()),
                        _required("passed", pa.bool_()),
                    ]
                )
            ),
        ),
        pa.field("duplicate_of", pa.string()),
        pa.field("similarity", pa.float32()),
        pa.field("containment", pa.float32()),
        _required("cluster", pa.string()),  # doc_id of what stands for it in the end: itself where nothing else does
        _required("cluster_size", pa.int64()),  # rows of that cluster
        _required("split", pa.string()),
        _required("num_cut_lines", pa.int32()),  # of a kept document: lines of its host that are not trained on
        pa.field("token_shard", pa.string()),  # null, like the places, where it was dropped
        *(pa.field(field.name, field.type) for field in TOKEN_PLACE if field.name not in ("doc_id", "split")),
        _required(
            "trainings",  # that saw some of its tokens
            pa.list_(
                pa.struct(
                    [
                        _required("model", pa.string()),
                        _required("first_step", pa.int64()),
                        _required("last_step", pa.int64()),
                        _required("num_visits", pa.int64()),
                    ]
                )
            ),
        ),
        *MEASURED,
    ]
)
"""From each page that came in to its record, its rules, its cluster, its tokens and the steps that saw them."""


def entities_of(batch: pa.RecordBatch) -> list[list[dict[str, Any]] | None]:
    """What a model found in each document of a batch; None where no model was asked."""
    if "entities" not in batch.schema.names:
        return [None] * batch.num_rows
    found: list[list[dict[str, Any]] | None] = batch.column("entities").to_pylist()
    return found


def select(schema: pa.Schema, *names: str) -> pa.Schema:
    """The named fields of a schema: what a stage declares that it reads."""
    return pa.schema([schema.field(name) for name in names])
