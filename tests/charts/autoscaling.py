"""What KEDA and the horizontal pod autoscaler do with a ScaledObject, by their published formulae.

Kubernetes, "Horizontal Pod Autoscaling", algorithm details and configurable behaviour: for an
external metric with an AverageValue target the wish is ceil(sum / target), unless the mean is
within a tenth of the target; the largest wish over the metrics counts; while a metric is missing
nobody scales down; the wish is then stabilised (down: the largest of the window, up: the smallest)
and held within the policies' change per period.

KEDA, "Scaling Deployments" and the ScaledObject specification, 2.17 and later: it makes the HPA
with at least one replica, takes the step 0 <-> 1 itself at every pollingInterval (a trigger is
active when its value is above its activation value; the last one goes cooldownPeriod after the last
activity), and puts `target x fallback replicas` in the place of a metric that failed more often
than failureThreshold.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

HPA_SYNC_SECONDS = 15  # kube-controller-manager --horizontal-pod-autoscaler-sync-period
TOLERANCE = 0.1  # --horizontal-pod-autoscaler-tolerance
TARGET = {"azure-servicebus": "messageCount", "prometheus": "threshold"}
ACTIVATION = {"azure-servicebus": "activationMessageCount", "prometheus": "activationThreshold"}
DEFAULT_TARGET = {"azure-servicebus": "5"}  # KEDA's, when the trigger names none

DEFAULTS: dict[str, dict[str, Any]] = {
    "up": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    },
    "down": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    },
}
"""Kubernetes' own, for what a ScaledObject leaves out."""

Readings = Mapping[str, float | None]
"""A value for each type of trigger; None when it cannot be read."""


@dataclass
class Trigger:
    """One trigger and its health."""

    kind: str
    target: float
    activation: float
    failures: int = 0

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Trigger":
        kind, metadata = entry["type"], entry["metadata"]
        target = float(metadata.get(TARGET[kind], DEFAULT_TARGET.get(kind)))
        return cls(kind, target, float(metadata.get(ACTIVATION[kind], 0)))


class Hpa:
    """The autoscaler that KEDA makes: one wish at every sync."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        self.up, self.down = (
            DEFAULTS["up"] | behavior["scaleUp"],
            DEFAULTS["down"] | behavior["scaleDown"],
        )
        if {self.up["selectPolicy"], self.down["selectPolicy"]} != {"Max"}:
            raise ValueError("only selectPolicy Max is played here")
        self.least = max(1, int(spec["minReplicaCount"]))
        self.most = int(spec["maxReplicaCount"])
        self._wishes: deque[tuple[int, int]] = deque()
        self._changes: deque[tuple[int, int]] = deque()

    def sync(self, now: int, current: int, metrics: list[tuple[float | None, float]]) -> int:
        """Return how many replicas there are to be; ``metrics`` are (sum or None, target)."""
        known = [
            self._wish(value, target, current) for value, target in metrics if value is not None
        ]
        if not known or (len(known) < len(metrics) and max(known) < current):
            return current
        wish = min(self.most, max(self.least, *known))
        if not self._wishes:
            self._wishes.append((now, current))
        stable = self._stabilised(now, current, wish)
        allowed = self._within_policies(now, current, stable)
        if allowed != current:
            self._changes.append((now, allowed - current))
        return allowed

    def _wish(self, value: float, target: float, current: int) -> int:
        if abs(1 - value / (target * current)) <= TOLERANCE:
            return current
        return ceil(value / target)

    def _stabilised(self, now: int, current: int, wish: int) -> int:
        def recent(rules: Mapping[str, Any]) -> list[int]:
            begin = now - rules["stabilizationWindowSeconds"]
            return [wish, *(wished for at, wished in self._wishes if at > begin)]

        lowest, highest = min(recent(self.up)), max(recent(self.down))
        self._wishes.append((now, wish))
        while self._wishes[0][0] < now - 3600:
            self._wishes.popleft()
        return min(highest, max(lowest, current))

    def _within_policies(self, now: int, current: int, wish: int) -> int:
        if wish > current:
            limits = [self._limit(now, current, policy, 1) for policy in self.up["policies"]]
            return min(wish, max(current, *limits))
        if wish < current:
            limits = [self._limit(now, current, policy, -1) for policy in self.down["policies"]]
            return max(wish, min(current, *limits))
        return current

    def _limit(self, now: int, current: int, policy: Mapping[str, Any], sign: int) -> int:
        recent = [by for at, by in self._changes if at > now - policy["periodSeconds"]]
        start = current - sum(recent)
        if policy["type"] == "Pods":
            return int(start + sign * policy["value"])
        by = start * policy["value"] / 100
        return ceil(start + by) if sign > 0 else int(start - by)


class Keda:
    """The operator: 0 <-> 1, what stands in for a metric that cannot be read, and the HPA."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.spec = spec
        self.triggers = [Trigger.of(entry) for entry in spec["triggers"]]
        self.hpa = Hpa(spec)
        self._last_active: int | None = None

    def decide(self, now: int, current: int, readings: Readings) -> int:
        """Return the replicas from ``now`` on, ``current`` being what they are."""
        if now % int(self.spec["pollingInterval"]) == 0:
            current = self._poll(now, current, readings)
        if current > 0 and now % HPA_SYNC_SECONDS == 0:
            metrics = [
                (self._value(trigger, readings, current), trigger.target)
                for trigger in self.triggers
            ]
            current = self.hpa.sync(now, current, metrics)
        return current

    def _poll(self, now: int, current: int, readings: Readings) -> int:
        least = int(self.spec["minReplicaCount"])
        active = False
        for trigger in self.triggers:
            trigger.failures = trigger.failures + 1 if readings[trigger.kind] is None else 0
            value = self._value(trigger, readings, current)
            active = active or (value is not None and value > trigger.activation)
        if active:
            self._last_active = now
            return max(current, least, 1)
        if current > 0 and least == 0:
            quiet = now - (self._last_active if self._last_active is not None else now)
            return 0 if quiet > int(self.spec["cooldownPeriod"]) else current
        return max(current, least)

    def _value(self, trigger: Trigger, readings: Readings, current: int) -> float | None:
        value = readings[trigger.kind]
        fallback = self.spec.get("fallback")
        if value is not None or fallback is None:
            return value
        if trigger.failures <= int(fallback["failureThreshold"]):
            return None
        replicas = int(fallback["replicas"])
        match fallback.get("behavior", "static"):
            case "currentReplicas":
                replicas = current
            case "currentReplicasIfHigher":
                replicas = max(current, replicas)
            case "currentReplicasIfLower":
                replicas = min(current, replicas)
        return replicas * trigger.target
