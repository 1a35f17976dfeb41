"""What the doctor finds: one line per check, with the cure where something is wrong."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console
from rich.table import Table

from darkroom.errors import DarkroomError


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    """It works, or may work later, and somebody should look."""
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One check: ``detail`` says what was seen, ``cure`` what to do about it."""

    name: str
    verdict: Verdict
    detail: str
    cure: str = ""


def ok(name: str, detail: str) -> Finding:
    """Return a finding that needs nobody's attention."""
    return Finding(name, Verdict.OK, detail)


def warn(name: str, detail: str, cure: str) -> Finding:
    """Return a finding that somebody should look at."""
    return Finding(name, Verdict.WARN, detail, cure)


def fail(name: str, detail: str, cure: str) -> Finding:
    """Return a finding that keeps the installation from working."""
    return Finding(name, Verdict.FAIL, detail, cure)


async def examined(
    name: str, check: Callable[[], Awaitable[Sequence[Finding]]], cure: str
) -> Sequence[Finding]:
    """Return what ``check`` finds; an error of it is a finding too, with ``cure``."""
    try:
        return await check()
    except DarkroomError as error:
        return [fail(name, f"{error.code}: {error.message}", cure)]
    except Exception as error:  # noqa: BLE001 - one broken check must not hide what the others find
        return [fail(name, f"{type(error).__name__}, which Darkroom did not expect", cure)]


def is_healthy(findings: Sequence[Finding]) -> bool:
    """Whether nothing failed; warnings are no failures."""
    return not any(finding.verdict is Verdict.FAIL for finding in findings)


def print_table(findings: Sequence[Finding]) -> None:
    """Print a row for each finding."""
    table = Table("check", "", "found", "cure", box=None, pad_edge=False, show_edge=False)
    for finding in findings:
        table.add_row(finding.name, finding.verdict, finding.detail, finding.cure)
    Console(soft_wrap=False).print(table, markup=False)


def print_json(findings: Sequence[Finding]) -> None:
    """Print one JSON object: ``ok`` and the list of ``checks``."""
    checks = [
        {
            "name": finding.name,
            "verdict": finding.verdict,
            "detail": finding.detail,
            "cure": finding.cure,
        }
        for finding in findings
    ]
    print(json.dumps({"ok": is_healthy(findings), "checks": checks}, indent=2))
