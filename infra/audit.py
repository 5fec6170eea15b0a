#!/usr/bin/env python3
"""Audit of what requirements.lock names: licences, known vulnerabilities, and a bill of materials (SBOM, CycloneDX JSON).

    python infra/audit.py [--advisories FOLDER] [--strict] [--out build/sbom.cdx.json]

Licences are read from the installed packages. Vulnerabilities come from a folder of advisories in the OSV format, where one is given,
else from the service that pip-audit asks; where that cannot be reached, this says so and goes on, or fails with --strict.
The bill of materials is the same bytes for the same lock file. Exit 0: nothing found; 1: something to do; 2: bad usage.
"""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parent.parent
FORBIDDEN = re.compile(r"\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE)
"""LGPL is no match: those libraries are used as they are."""
TOLD = {
    "huey": "MIT",
    "skops": "MIT",
}
"""Licences of packages whose metadata names none, read in their sources."""
CHOSEN = {
    "text-unidecode": "Artistic-1.0-Perl",
}
"""Of packages that offer several in words that cannot be read by a program: the one that is chosen."""
_SERVICE_SECONDS = 600
_NAMESPACE = uuid.UUID("6f0a6d86-0d5c-5c55-9d3d-5f4d6f6d696c")


@dataclass(frozen=True, slots=True)
class Locked:
    """A line of the lock file."""

    name: str
    version: str

    @property
    def purl(self) -> str:
        """Its package URL."""
        return f"pkg:pypi/{canonicalize_name(self.name)}@{self.version}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to do."""

    package: str
    message: str


def read_lock(path: Path) -> list[Locked]:
    """The packages, by name. Raises ValueError for a line that pins nothing."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text:
            continue
        name, equals, version = text.partition("==")
        if not equals or not version:
            raise ValueError(f"got {line!r} in {path}, wanted NAME==VERSION: run make lock.")
        found.append(Locked(name.strip(), version.strip()))
    return sorted(found, key=lambda each: canonicalize_name(each.name))


# licences


def licence_of(name: str) -> str | None:
    """What an installed package says of its licence, as an SPDX expression or in its words; None where it says nothing."""
    if (known := {**TOLD, **CHOSEN}.get(canonicalize_name(name))) is not None:
        return known
    try:
        metadata = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        each.rpartition("::")[2].strip() for each in metadata.get_all("Classifier") or [] if each.startswith("License")
    ]
    named = [each for each in classifiers if each not in ("OSI Approved", "Other/Proprietary License")]
    if named:
        return " AND ".join(named)
    first = next((line.strip() for line in (metadata.get("License") or "").splitlines() if line.strip()), "")
    return first[:100] or None


def is_allowed(licence: str) -> bool:
    """Whether one of the alternatives of an expression is free of GPL and AGPL."""
    return any(not FORBIDDEN.search(choice) for choice in re.split(r"\bOR\b", licence))


def check_licences(locked: Iterable[Locked], licences: Mapping[str, str | None]) -> list[Finding]:
    """Packages under a licence that is not wanted, or under none that can be read."""
    found = []
    for each in locked:
        licence = licences[each.name]
        if licence is None:
            found.append(
                Finding(
                    each.name, "got no licence in its metadata, wanted one: read it, and note it in infra/audit.py."
                )
            )
        elif not is_allowed(licence):
            found.append(
                Finding(each.name, f"got licence {licence!r}, wanted none of the GPL or AGPL: replace the package.")
            )
    return found


# vulnerabilities


def check_advisories(locked: Iterable[Locked], folder: Path) -> tuple[list[Finding], int]:
    """Packages that an advisory in a folder names with their version, and how many advisories were read.

    The advisories are JSON in the OSV format, one or a list a file. Raises ValueError for a file that is none.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    num_read = 0
    for path in sorted(folder.rglob("*.json")):
        try:
            told = json.loads(path.read_text(encoding="utf-8"))
            entries = told if isinstance(told, list) else [told]
            for entry in entries:
                num_read += 1
                if entry.get("withdrawn"):
                    continue
                for affected in entry.get("affected", []):
                    package = affected["package"]
                    if package["ecosystem"] == "PyPI":
                        by_name.setdefault(canonicalize_name(package["name"]), []).append(
                            {"id": entry["id"], **affected}
                        )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"got {path}, which is no OSV advisory ({error!r}), wanted one: take it out.") from error
    found = [
        Finding(
            each.name,
            f"got {each.version}, of which {affected['id']} tells, wanted {fixed}: raise it in the lock.",
        )
        for each in locked
        for affected in by_name.get(canonicalize_name(each.name), [])
        if (fixed := _affects(affected, each.version)) is not None
    ]
    return found, num_read


def _affects(affected: Mapping[str, Any], version: str) -> str | None:
    """What to take in place of a version that is affected; None where it is not."""
    if version in affected.get("versions", []):
        return _fixed_in(affected) or "another version"
    try:
        ours = Version(version)
    except InvalidVersion:
        return None
    for versions in affected.get("ranges", []):
        if versions.get("type") not in ("ECOSYSTEM", "SEMVER"):
            continue
        is_in = False
        for event in versions["events"]:
            if "introduced" in event and (event["introduced"] == "0" or ours >= Version(event["introduced"])):
                is_in = True
            if ("fixed" in event and ours >= Version(event["fixed"])) or (
                "last_affected" in event and ours > Version(event["last_affected"])
            ):
                is_in = False
        if is_in:
            return _fixed_in(affected) or "another version"
    return None


def _fixed_in(affected: Mapping[str, Any]) -> str | None:
    fixed = [
        event["fixed"]
        for versions in affected.get("ranges", [])
        for event in versions.get("events", [])
        if "fixed" in event
    ]
    return f"{max(fixed, key=Version)} or newer" if fixed else None


def ask_service(lock: Path) -> tuple[list[Finding], str | None]:
    """What pip-audit finds, and what it could not look up. It is told the names and versions of the lock file, and no more."""
    options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SERVICE_SECONDS)
        told = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"no answer within {_SERVICE_SECONDS} s"
    except (ValueError, KeyError):
        return [], (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]
    return findings_of(told)


def findings_of(told: Sequence[Mapping[str, Any]]) -> tuple[list[Finding], str | None]:
    """Of the dependencies in pip-audit's JSON: what is vulnerable, and how many it could not look up."""
    found = [
        Finding(
            each["name"],
            f"got {each['version']}, of which {problem['id']} tells, wanted "
            f"{' or '.join(problem['fix_versions']) or 'another version'}: raise it in the lock.",
        )
        for each in told
        for problem in each.get("vulns", [])
    ]
    skipped = [each for each in told if "skip_reason" in each]
    if not skipped:
        return found, None
    return found, f"{len(skipped)} of {len(told)} packages skipped ({skipped[0]['skip_reason'][:200]})"


# the bill of materials


def required_names(locked: Iterable[Locked], wanted: Iterable[str]) -> dict[str, list[str]]:
    """Each locked package that the named ones need, with what it needs itself, both in canonical names.

    Markers are read for the machine that asks.
    """
    known = {canonicalize_name(each.name) for each in locked}
    environment = {**default_environment(), "extra": ""}
    found: dict[str, list[str]] = {}
    waiting = [Requirement(text) for text in wanted]
    asked: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name = str(canonicalize_name(requirement.name))
        if name not in known or (name, frozenset(requirement.extras)) in asked:
            continue
        asked.add((name, frozenset(requirement.extras)))
        try:
            needs = [Requirement(text) for text in importlib.metadata.requires(requirement.name) or []]
        except importlib.metadata.PackageNotFoundError:
            needs = []
        extras = [environment | {"extra": extra} for extra in ("", *sorted(requirement.extras))]
        needs = [need for need in needs if need.marker is None or any(need.marker.evaluate(each) for each in extras)]
        below = {str(canonicalize_name(need.name)) for need in needs} & known
        found[name] = sorted({*found.get(name, []), *below})
        waiting += needs
    return found


def bill_of_materials(
    locked: Sequence[Locked], licences: Mapping[str, str | None], project: Mapping[str, Any], lock_digest: str
) -> str:
    """The SBOM as JSON (CycloneDX 1.6): what is locked, its licences, what needs what; `required` is what an installation runs.

    The same text for the same arguments: its serial number is made of the lock file's digest, its time is the epoch's.
    """
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentScope, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    factory = LicenseFactory()
    graph = required_names(locked, [*project["dependencies"], *project["optional-dependencies"]["dev"]])
    runs = required_names(locked, project["dependencies"])
    root = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=project["version"],
        bom_ref=project["name"],
        licenses=[factory.make_from_string(project["license"]["text"])],
    )
    components: dict[str, Component] = {}
    for each in locked:
        name, licence = str(canonicalize_name(each.name)), licences[each.name]
        components[name] = Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=each.version,
            bom_ref=each.purl,
            purl=PackageURL("pypi", None, name, each.version),
            scope=ComponentScope.REQUIRED if name in runs else ComponentScope.OPTIONAL,
            licenses=[] if licence is None else [factory.make_from_string(licence)],
        )
    bom = Bom(components=components.values(), serial_number=uuid.uuid5(_NAMESPACE, lock_digest))
    bom.metadata = BomMetaData(component=root, timestamp=datetime(1970, 1, 1, tzinfo=UTC))
    direct = {str(canonicalize_name(Requirement(text).name)) for text in project["dependencies"]}
    bom.register_dependency(root, [components[name] for name in sorted(direct & components.keys())])
    for name, component in components.items():
        bom.register_dependency(component, [components[below] for below in graph.get(name, []) if below != name])
    return JsonV1Dot6(bom).output_as_string(indent=1)


def check_bill(text: str) -> str | None:
    """What the published schema has against an SBOM; None where it is valid."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return None if problem is None else str(problem)[:500]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the audit; gives the exit code."""
    import hashlib

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--lock", type=Path, default=ROOT / "requirements.lock")
    parser.add_argument(
        "--advisories", type=Path, help="folder of OSV advisories; nothing is asked of the network then"
    )
    parser.add_argument("--strict", action="store_true", help="fail where vulnerabilities could not be looked up")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "sbom.cdx.json")
    given = parser.parse_args(arguments)
    if given.advisories is not None and not given.advisories.is_dir():
        parser.error(f"--advisories: got {given.advisories}, wanted a folder: correct it.")
    locked = read_lock(given.lock)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    licences = {each.name: licence_of(each.name) for each in locked}
    findings = check_licences(locked, licences)
    print(f"licences: {len(locked)} packages, {len(findings)} to look at")
    problem = None
    if given.advisories is not None:
        vulnerable, num_read = check_advisories(locked, given.advisories)
        print(f"vulnerabilities: {len(vulnerable)} in {num_read} advisories of {given.advisories}")
    else:
        vulnerable, problem = ask_service(given.lock)
        told = (
            f"NOT CHECKED: got {problem} from pip-audit's service; give --advisories FOLDER"
            if problem
            else f"{len(vulnerable)}"
        )
        print(f"vulnerabilities: {told}")
    text = bill_of_materials(locked, licences, project, hashlib.sha256(given.lock.read_bytes()).hexdigest())
    if (wrong := check_bill(text)) is not None:
        findings.append(
            Finding("sbom", f"got {wrong} from the schema of CycloneDX, wanted a valid file: mend infra/audit.py.")
        )
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(f"{text}\n", encoding="utf-8")
    print(f"bill of materials: {len(locked)} components in {given.out}")
    for finding in (*findings, *vulnerable):
        print(f"  {finding.package}: {finding.message}")
    return 1 if findings or vulnerable or (problem is not None and given.strict) else 0


if __name__ == "__main__":
    sys.exit(main())
