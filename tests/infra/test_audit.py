"""The audit of the lock file: licences, advisories, and a bill of materials that the published schema takes."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
LOCK = ROOT / "requirements.lock"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    """infra/ is no package: nothing imports it."""
    spec = importlib.util.spec_from_file_location("infra_audit", ROOT / "infra" / "audit.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["infra_audit"] = module
    spec.loader.exec_module(module)
    return module


def advisory(**changes: object) -> dict:
    package = {"ecosystem": "PyPI", "name": "Torch"}
    events = [{"introduced": "0"}, {"fixed": "2.13.1"}]
    return {
        "id": "TEST-1",
        "affected": [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}], **changes}],
    }


# licences


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("MIT", True),
        ("Apache-2.0 AND CNRI-Python", True),
        ("LGPL-2.1-or-later", True),
        ("GNU Lesser General Public License v2 or later (LGPLv2+)", True),
        ("MPL-1.1 OR GPL-2.0-only OR LGPL-2.1-or-later", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("GNU Affero General Public License v3", False),
        ("GNU General Public License v3 (GPLv3)", False),
        ("MIT AND GPL-2.0-only", False),
    ],
)
def test_a_licence_is_allowed_if_one_of_its_choices_is(audit, licence, is_allowed):
    assert audit.is_allowed(licence) is is_allowed


def test_every_locked_package_has_a_licence_that_is_allowed(audit):
    locked = audit.read_lock(LOCK)
    assert len(locked) > 200
    assert audit.check_licences(locked, {each.name: audit.licence_of(each.name) for each in locked}) == []


def test_a_package_without_a_licence_or_with_a_forbidden_one_is_found(audit):
    locked = [audit.Locked("a", "1"), audit.Locked("b", "1"), audit.Locked("c", "1")]
    found = audit.check_licences(locked, {"a": "MIT", "b": None, "c": "AGPL-3.0-only"})
    assert [each.package for each in found] == ["b", "c"]
    assert "AGPL" in found[1].message


# vulnerabilities


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (advisory(), "2.13.1 or newer"),
        (advisory(ranges=[], versions=["2.13.0"]), "another version"),
        (
            advisory(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "2.0"}, {"last_affected": "2.13.0"}]}]),
            "another version",
        ),
        (advisory(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "2.14"}]}]), None),
        (advisory(ranges=[{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.13.0"}]}]), None),
        (advisory(ranges=[{"type": "GIT", "events": [{"introduced": "0"}]}]), None),
        (advisory(package={"ecosystem": "npm", "name": "torch"}), None),
        ({**advisory(), "withdrawn": "2026-01-01T00:00:00Z"}, None),
    ],
)
def test_an_advisory_is_found_by_name_and_version(audit, tmp_path, told, wanted):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "TEST-1.json").write_text(json.dumps(told))
    (tmp_path / "others.json").write_text(json.dumps([advisory(package={"ecosystem": "PyPI", "name": "other"})]))
    found, num_read = audit.check_advisories([audit.Locked("torch", "2.13.0")], tmp_path)
    assert num_read == 2
    assert [each.package for each in found] == ([] if wanted is None else ["torch"])
    assert all(wanted in each.message and "TEST-1" in each.message for each in found)


def test_a_file_that_is_no_advisory_is_refused(audit, tmp_path):
    (tmp_path / "a.json").write_text('{"affected": [{"versions": []}]}')
    with pytest.raises(ValueError, match="no OSV advisory"):
        audit.check_advisories([], tmp_path)


def test_what_the_service_does_not_know_counts_as_not_checked(audit):
    vulnerable = {"name": "a", "version": "1", "vulns": [{"id": "TEST-1", "fix_versions": ["2"]}]}
    found, problem = audit.findings_of([vulnerable, {"name": "b", "skip_reason": "not found"}])
    assert [each.package for each in found] == ["a"]
    assert problem == "1 of 2 packages skipped (not found)"
    assert audit.findings_of([{"name": "a", "version": "1", "vulns": []}]) == ([], None)


# the bill of materials and the command


def test_the_command_writes_a_valid_bill_that_is_the_same_each_time(audit, tmp_path, capsys):
    advisories = tmp_path / "advisories"
    advisories.mkdir()
    outs = [tmp_path / "1" / "sbom.json", tmp_path / "2" / "sbom.json"]
    for out in outs:
        assert audit.main(["--advisories", str(advisories), "--out", str(out)]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    bill = json.loads(outs[0].read_text(encoding="utf-8"))
    assert audit.check_bill(json.dumps(bill)) is None, "the schema of CycloneDX takes it"
    assert audit.check_bill(json.dumps(bill | {"components": [{"name": "x"}]})) is not None
    components = {each["name"]: each for each in bill["components"]}
    locked = audit.read_lock(LOCK)
    assert len(components) == len(locked)
    assert components["torch"]["version"] == "2.13.0"
    assert components["torch"]["purl"] == "pkg:pypi/torch@2.13.0"
    assert (components["torch"]["scope"], components["pytest"]["scope"]) == ("required", "optional")
    assert all(each["licenses"] for each in components.values())
    below = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    assert "pkg:pypi/torch@2.13.0" in below["corpusmill"]
    assert any(each.startswith("pkg:pypi/sympy@") for each in below["pkg:pypi/torch@2.13.0"])
    (advisories / "TEST-1.json").write_text(json.dumps(advisory()))
    assert audit.main(["--advisories", str(advisories), "--out", str(outs[0])]) == 1
    assert "torch: got 2.13.0, of which TEST-1 tells" in capsys.readouterr().out


def test_a_lock_that_pins_nothing_is_refused(audit, tmp_path):
    path = tmp_path / "requirements.lock"
    path.write_text("# made\na==1\nb>=2\n")
    with pytest.raises(ValueError, match="wanted NAME==VERSION"):
        audit.read_lock(path)
