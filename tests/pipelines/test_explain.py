"""The story of a page that was withdrawn: what its site stated, and which later fetch takes the older version out."""

from corpora import Page, config, run, source, write_file

from pipelines.explain import stories
from pipelines.store import Store


def test_rights_and_withdrawal_are_told(tmp_path):
    page = Page(text=0, url=0)
    others = [Page(text=number, url=number) for number in range(1, 5)]
    later = [Page(text=0, url=0, day=9, fate="reserved"), Page(text=1, url=1, day=9, fate="shut_out")]
    sources = [
        source(write_file(tmp_path / f"{number}.warc.gz", pages))
        for number, pages in enumerate([[page, *others], later])
    ]
    store = Store(tmp_path / "store")
    wanted = config()
    done = {name: result.manifest for name, result in run(store, sources, wanted).items()}

    def told(url: str) -> tuple[dict, dict]:
        first, second = sorted(
            stories(store, done, wanted.policy, url), key=lambda story: story["document"]["fetched_at"]
        )
        return first, second

    first, second = told("https://site0.example/页/0")
    assert (first["outcome"]["reason"], first["outcome"]["duplicate_of"]) == ("withdrawn", second["doc_id"])
    assert first["withdrawal"] == {
        "doc_id": second["doc_id"],
        "fetched_at": second["document"]["fetched_at"],
        "reason": "reserved",
        "rights_evidence": ["tdmrep.json: 1 /"],
    }
    assert (second["outcome"]["reason"], second["withdrawal"]) == ("reserved", None)
    assert second["rights"] == {
        "verdict": "disallow",
        "evidence": ["tdmrep.json: 1 /"],
        "directives": ["tdmrep.json: 1 /"],
        "license": None,
    }
    assert [(rule["rule"], rule["passed"]) for rule in second["rules"]] == [("reserved", False)]

    first, second = told("https://site1.example/页/1")
    assert first["withdrawal"]["rights_evidence"] == ["robots.txt ai-agents: GPTBot"]
    assert second["signals"]["num_blocked_ai_agents"] == 1
    assert {"rule": "rights_ai_agents", "value": 1.0, "threshold": 0, "passed": False} in second["rules"]
