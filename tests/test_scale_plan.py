"""The plan for a month of Common Crawl states what its arithmetic gives."""

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "infra" / "scale_plan.py"


def test_the_document_is_what_the_rates_give() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_rate_gives_another_document(tmp_path: Path) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    assert "NUM_PAGES = 2.4e9" in text
    changed = tmp_path / SCRIPT.name
    changed.write_text(text.replace("NUM_PAGES = 2.4e9", "NUM_PAGES = 2.5e9"), encoding="utf-8")
    (tmp_path / "scale-plan.md").write_bytes(SCRIPT.with_name("scale-plan.md").read_bytes())
    done = subprocess.run([sys.executable, changed, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "run scale_plan.py --write" in done.stderr
