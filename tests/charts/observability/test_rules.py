"""The rules are right, and are the same wherever they are deployed."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts import helm
from tests.charts.observability.rendering import CHART, only, scenario
from tests.charts.observability.test_dashboards import darkroom_series, dcgm_series, series_in

RULES = CHART / "rules" / "darkroom.rules.yaml"
CASES = Path(__file__).with_name("darkroom.rules.test.yaml")
FROM_KEDA = {"keda_scaler_detail_errors_total"}  # keda.sh, "Integrate with Prometheus"
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
EVERY = [rule for group in GROUPS for rule in group["rules"]]
ALERTS = [rule for rule in EVERY if "alert" in rule]


def promtool(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)


def test_promtool_finds_no_fault() -> None:
    checked = promtool("check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_is_silent_when_it_should_be() -> None:
    tested = promtool("test", "rules", CASES)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    tests = yaml.safe_load(CASES.read_text())["tests"]
    cases = [case for one in tests for case in one.get("alert_rule_test", [])]
    firing = {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert firing == {rule["alert"] for rule in ALERTS}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("unless on (pool) sum by (pool) (darkroom_jobs_in_flight) > 0", ""),
        ("> 0.1", "> 0.01"),
        ('status=~"5.."', 'status=~"[45].."'),
        ("DCGM_FI_DEV_XID_ERRORS == 79", "DCGM_FI_DEV_XID_ERRORS == 80"),
        ("(darkroom_jobs_in_flight == bool 0)", "(darkroom_jobs_in_flight >= bool 0)"),
    ],
)
def test_a_rule_that_is_wrong_fails_its_test(tmp_path: Path, right: str, wrong: str) -> None:
    text = RULES.read_text()
    assert right in text
    (tmp_path / "rules.yaml").write_text(text.replace(right, wrong))
    case = tmp_path / "cases.yaml"
    shutil.copy(CASES, case)
    case.write_text(
        case.read_text().replace(yaml.safe_load(CASES.read_text())["rule_files"][0], "rules.yaml")
    )
    assert promtool("test", "rules", case).returncode != 0


def test_rules_read_only_series_that_something_exports() -> None:
    known = darkroom_series() | dcgm_series() | FROM_KEDA
    for rule in EVERY:
        assert series_in(rule["expr"]) <= known, rule


def test_every_alert_says_how_bad_it_is_and_what_to_read() -> None:
    for rule in ALERTS:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert set(rule["annotations"]) == {"summary", "description", "runbook"}, rule["alert"]


def test_the_prometheus_rule_holds_the_committed_groups() -> None:
    assert only(scenario("operator"), "PrometheusRule")["spec"] == {"groups": GROUPS}


def test_azure_gets_the_same_rules_in_its_own_form() -> None:
    template = json.loads((CHART / "rules" / "azure-rule-groups.json").read_text())
    resources = template["resources"]
    assert {one["type"] for one in resources} == {"Microsoft.AlertsManagement/prometheusRuleGroups"}
    theirs = [rule for one in resources for rule in one["properties"]["rules"]]
    assert [rule.get("alert", rule.get("record")) for rule in theirs] == [
        rule.get("alert", rule.get("record")) for rule in EVERY
    ]
    for ours, their in zip(EVERY, theirs, strict=True):
        assert their["expression"].split() == ours["expr"].split()
        if "alert" in ours:
            assert their["severity"] == {"critical": 1, "warning": 3}[ours["labels"]["severity"]]
    assert resources[0]["properties"]["interval"] == "PT1M"


def test_every_runbook_entry_that_an_alert_names_exists() -> None:
    named = {rule["annotations"]["runbook"] for rule in ALERTS}
    assert sorted(path for path in named if not (helm.ROOT / path).is_file()) == []
