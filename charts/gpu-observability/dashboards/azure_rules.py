"""The rules as Azure Managed Prometheus takes them: an ARM template of rule groups.

Source: Microsoft.AlertsManagement/prometheusRuleGroups, API version 2023-03-01: durations are ISO
8601, severity is 0 (critical) to 4, a group has at most 20 rules.
"""

import re
from collections.abc import Sequence

from panels import Json

SEVERITIES = {"critical": 1, "warning": 3}
MOST_RULES = 20
_UNITS = {"s": "S", "m": "M", "h": "H"}


def template(groups: Sequence[Json]) -> Json:
    """Return an ARM template of the groups. Raises `ValueError` for a group that is too big."""
    schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
    return {
        "$schema": schema,
        "contentVersion": "1.0.0.0",
        "parameters": {
            "workspaceId": _text("Resource id of the Azure Monitor workspace."),
            "clusterName": _text("Name of the AKS cluster."),
            "actionGroupId": {
                **_text("Action group to notify; empty for none."),
                "defaultValue": "",
            },
            "location": {
                **_text("Region of the rule groups: the workspace's."),
                "defaultValue": "[resourceGroup().location]",
            },
        },
        "variables": {
            "actions": "[if(empty(parameters('actionGroupId')), createArray(),"
            " createArray(createObject('actionGroupId', parameters('actionGroupId'))))]"
        },
        "resources": [_group(group) for group in groups],
    }


def _text(about: str) -> Json:
    return {"type": "string", "metadata": {"description": about}}


def _group(group: Json) -> Json:
    if len(group["rules"]) > MOST_RULES:
        raise ValueError(f"group {group['name']}: Azure takes at most {MOST_RULES} rules")
    return {
        "type": "Microsoft.AlertsManagement/prometheusRuleGroups",
        "apiVersion": "2023-03-01",
        "name": f"[concat('{group['name']}-', parameters('clusterName'))]",
        "location": "[parameters('location')]",
        "properties": {
            "enabled": True,
            "clusterName": "[parameters('clusterName')]",
            "scopes": ["[parameters('workspaceId')]"],
            "interval": duration(group["interval"]),
            "rules": [_rule(rule) for rule in group["rules"]],
        },
    }


def _rule(rule: Json) -> Json:
    expression = " ".join(rule["expr"].split())
    if "record" in rule:
        return {"record": rule["record"], "enabled": True, "expression": expression}
    return {
        "alert": rule["alert"],
        "enabled": True,
        "expression": expression,
        "for": duration(rule.get("for", "0m")),
        "severity": SEVERITIES[rule["labels"]["severity"]],
        "labels": rule["labels"],
        "annotations": rule["annotations"],
        "resolveConfiguration": {"autoResolved": True, "timeToResolve": "PT10M"},
        "actions": "[variables('actions')]",
    }


def duration(text: str) -> str:
    """Return a Prometheus duration such as `15m` in ISO 8601. Raises `ValueError`."""
    match = re.fullmatch(r"(\d+)([smh])", text)
    if match is None:
        raise ValueError(f"{text!r} is not one number with s, m or h")
    return f"PT{match[1]}{_UNITS[match[2]]}"
