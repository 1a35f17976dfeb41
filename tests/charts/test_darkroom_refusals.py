"""Values that cannot work are refused, with a message that names the value."""

from typing import Any

import pytest

from tests.charts.helm import Refused, render

SD15 = {
    "name": "sd15",
    "source": "a/b",
    "revision": "1",
    "seconds_per_megapixel_step": 0.5,
    "licence": "MIT",
}


def pool(**fields: Any) -> dict[str, Any]:
    return {"name": "short", "models": ["sd15"], "max_gpu_seconds": 60, "gpu": "T4", **fields}


# Each case is the value that the message names, and what is set: itself, or several by their paths.
Case = tuple[str, Any]

# Invariant 6 of the design: leases, grace periods, and what one replica is given.
INVARIANT_6: list[Case] = [
    ("queue.leaseSeconds", 59),
    ("queue.leaseSeconds", {"queue.renewSeconds": 20.5}),
    ("queue.leaseSeconds", 301),
    ("queue.renewSeconds", 0),
    ("pools.long.graceSeconds", 599),
    ("pools.long.graceSeconds", 629),
    ("pools.short.graceSeconds", {"workers.graceSeconds": 60}),
    ("workers.storingSeconds", 0),
    ("workers.terminationMarginSeconds", 0),
    ("catalog.pools: pool short has max_gpu_seconds", {
        "catalog.pools": [pool(max_gpu_seconds=7170)],
        "workers.storingSeconds": 31,
    }),
    ("catalog.pools.0.max_gpu_seconds", {"catalog.pools": [pool(max_gpu_seconds=7200)]}),
    ("pools.short.keda.messageCount", 2),
    ("pools.short.keda.messageCount", {
        "catalog.pools": [pool(concurrency=4)],
        "workers.keda.messageCount": 5,
    }),
    ("webhooks.timeoutSeconds", {
        "webhooks.enabled": True,
        "webhooks.secrets.secret": "s",
        "identity.clientIds.webhooks": "77777777-7777-4777-8777-777777777777",
        "queue.leaseSeconds": 29,
        "queue.renewSeconds": 9,
    }),
]  # fmt: skip

OF_THE_SCHEMA: list[Case] = [
    ("tpyo", 1),
    ("dispatch", "rabbit"),
    ("region", "West Europe"),
    ("image.api.digest", "sha256:abc"),
    ("image.worker.repository", "Darkroom Worker"),
    ("azure.serviceBus.namespace", "x.servicebus.windows.net"),
    ("azure.storage.account", "Not-An-Account"),
    ("identity.clientIds.api", "my-identity"),
    ("queue.maxDeliveryCount", 0),
    ("log.level", "loud"),
    ("catalog.models", []),
    ("catalog.models.0", {"catalog.models": [{**SD15, "revison": "x"}]}),
    ("catalog.models.0.revision", {"catalog.models": [{**SD15, "revision": ""}]}),
    ("catalog.models.0.defaults.width", {"catalog.models": [{**SD15, "defaults": {"width": 100}}]}),
    ("catalog.pools.0.name", {"catalog.pools": [pool(name="a_pool")]}),
    ("catalog.pools.0.name", {"catalog.pools": [pool(name="a-pool-with-a-name-too-long")]}),
    ("catalog.pools.0.replicas.max", {"catalog.pools": [pool(replicas={"min": 0, "max": 0})]}),
    ("catalog.pools.0.concurrency", {"catalog.pools": [pool(concurrency=65)]}),
    ("api.replicas", "two"),
    ("api.resources.requests.memory", "lots"),
    ("api.spread", "Sometimes"),
    ("auth.mode", "password"),
    ("auth.entra.issuers.0", {"auth.entra.issuers": ["http://issuer"]}),
    ("workers.kind", "StatefulSet"),
    ("workers.device", "tpu"),
    ("workers.modelCache.type", "hostPath"),
    ("pools.short.resources.limits.memory", "1.5Gi"),
    ("pools.short", {"pools.short.namespace": "elsewhere"}),
    ("pools.short.scaledJob.strategy", "eager"),
    ("keda.prometheus.serverAddress", "prometheus:9090"),
    ("networkPolicies.azure.cidrs.0", {"networkPolicies.azure.cidrs": ["10.0.0.0"]}),
    ("networkPolicies.callers.from", []),
    ("ingress.webApplicationFirewallPolicyId", "waf"),
    ("podSecurity.runAsUser", 0),
    ("commonLabels", {"commonLabels": {"app.kubernetes.io/name": "mine"}}),
    ("priorityClasses.classes.api.value", 2000000000),
    ("webhooks.timeoutSeconds", 31),
    # What an API server refuses in one object, said before half of a release is installed.
    ("api.tolerations.0.value", {
        "api.tolerations": [{"key": "k", "operator": "Exists", "value": "v"}],
    }),
    ("api.tolerations.0", {"api.tolerations": [{"operator": "Equal", "value": "v"}]}),
    ("workers.tolerations.0.effect", {
        "workers.tolerations": [{"key": "k", "effect": "NoSchedule", "tolerationSeconds": 5}],
    }),
    ("networkPolicies.callers.from.0", {"networkPolicies.callers.from": [{}]}),
    ("networkPolicies.callers.from.0", {
        "networkPolicies.callers.from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}],
    }),
    ("networkPolicies.azure.cidrs.0", {"networkPolicies.azure.cidrs": ["10.0.0.256/24"]}),
    ("workers.priority", ""),
    ("workers.podAnnotations", {"workers.podAnnotations": {"two words": "x"}}),
    ("workers.nodeSelector", {"workers.nodeSelector": {"two words": "x"}}),
    ("ingress.host", "10.0.0.1"),
    ("api.extraEnv.0.value", {
        "api.extraEnv": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {}}}],
    }),
]  # fmt: skip

OF_EACH_OTHER: list[Case] = [
    ("azure.serviceBus.namespace", ""),
    ("azure.storage.account", ""),
    ("identity.clientIds.keda", ""),
    ("identity.clientIds.webhooks", {"webhooks.enabled": True, "webhooks.secrets.secret": "s"}),
    ("webhooks.secrets.secret", {"webhooks.enabled": True}),
    ("auth.apiKeys.secret", {"auth.mode": "api_keys"}),
    ("auth.apiKeys.keyVaultSecret", {"auth.mode": "api_keys", "keyVault.enabled": True}),
    ("keyVault.name", {"auth.mode": "api_keys", "keyVault.enabled": True}),
    ("azure.tenantId", {"auth.mode": "api_keys", "keyVault.enabled": True}),
    ("keyVault.enabled", True),
    ("auth.entra.issuers", []),
    ("auth.allowAnonymous", {"auth.mode": "none"}),
    ("auth.mode", {
        "auth.mode": "none",
        "auth.allowAnonymous": True,
        "ingress.enabled": True,
        "ingress.host": "h",
        "ingress.tls.secretName": "s",
    }),
    ("ingress.host", {"ingress.enabled": True, "ingress.tls.secretName": "s"}),
    ("ingress.tls", {"ingress.enabled": True, "ingress.host": "h"}),
    ("gateway.tlsSecretName", {"gateway.enabled": True, "gateway.host": "h"}),
    ("gateway.enabled", {
        "gateway.enabled": True,
        "gateway.host": "h",
        "gateway.tlsSecretName": "s",
        "ingress.enabled": True,
        "ingress.host": "h",
        "ingress.tls.secretName": "s",
    }),
    ("gateway.existing.name", {
        "gateway.enabled": True,
        "gateway.host": "h",
        "gateway.create": False,
    }),
    ("catalog.default_model", "sdxl"),
    ("catalog.models: the name sd15 stands twice", {"catalog.models": [SD15, SD15]}),
    ("catalog.pools: the name short stands twice", {"catalog.pools": [pool(), pool()]}),
    ("catalog.models: no pool serves", {"catalog.models": [SD15, {**SD15, "name": "other"}]}),
    ("catalog.pools: pool short has the model", {"catalog.pools": [pool(models=["sd15", "sd16"])]}),
    ("catalog.pools: pool short has replicas.min", {
        "catalog.pools": [pool(replicas={"min": 3, "max": 2})],
    }),
    ("catalog.pools: no pool can be called webhooks", {"catalog.pools": [pool(name="webhooks")]}),
    ("pools.shrot", {"pools.shrot.priority": "low"}),
    ("pools.short.priority", "urgent"),
    ("pools.short.gpu.resource", {
        "catalog.pools": [pool(gpu="none")],
        "workers.gpu.resource": "nvidia.com/gpu",
    }),
    ("pools.short.device", "cpu"),
    ("pools.short.modelCache.claim.name", {"pools.short.modelCache.type": "claim"}),
    ("pools.short.rollingUpdate", {"pools.short.rollingUpdate.maxSurge": 0}),
    ("pools.short.keda.fallback.replicas", 5),
    ("pools.long.keda.scaleDownSeconds", 300),
    ("pools.short.kind", {"keda.enabled": False, "pools.short.kind": "ScaledJob"}),
    ("keda.prometheus.serverAddress", ""),
    ("keda.enabled", {"backends.queueUrl": "sqlite:////data/queue.db"}),
    ("sharedVolume.enabled", {"backends.jobStoreUrl": "sqlite:////data/jobs.db"}),
    ("workers.namespace", {"sharedVolume.enabled": True, "workers.namespace": "apart"}),
    ("backends: memory://", {"backends.jobStoreUrl": "memory://"}),
    ("webhooks.enabled", {"dispatch": "kubernetes", "webhooks.enabled": True}),
    ("dispatch", {"backends.queueUrl": "kubernetes://darkroom"}),
    ("backends.queueUrl", {"dispatch": "kubernetes", "backends.queueUrl": "servicebus://x"}),
    ("api.autoscaling.minReplicas", 11),
    ("api.maxSurge", "0%"),
    ("api.resources.limits.memory", "128Mi"),
    ("pools.short.resources.limits.memory", {"pools.short.resources.requests.memory": "32Gi"}),
    ("pools.short.resources.limits.cpu", {"workers.resources.limits.cpu": "1500m"}),
    ("api.extraEnv", [{"name": "DARKROOM_API_PORT", "value": "80"}]),
    ("pools.short.extraEnv", {"workers.extraEnv": [{"name": "DARKROOM_REGION", "value": "x"}]}),
    ("api.resources.requests.cpu", None),
]  # fmt: skip


@pytest.mark.parametrize(("value", "wrong"), INVARIANT_6)
def test_a_violation_of_invariant_6_is_refused(value: str, wrong: Any) -> None:
    refuse(value, wrong)


@pytest.mark.parametrize(("value", "wrong"), OF_THE_SCHEMA)
def test_a_value_that_the_schema_does_not_allow_is_refused(value: str, wrong: Any) -> None:
    refuse(value, wrong)


@pytest.mark.parametrize(("value", "wrong"), OF_EACH_OTHER)
def test_values_that_contradict_each_other_are_refused(value: str, wrong: Any) -> None:
    refuse(value, wrong)


def nested(by_path: dict[str, Any]) -> dict[str, Any]:
    """Return values from their dotted paths."""
    values: dict[str, Any] = {}
    for path, value in by_path.items():
        *parents, last = path.split(".")
        place = values
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return values


def refuse(value: str, wrong: Any) -> None:
    values = nested(wrong if isinstance(wrong, dict) and wrong else {value: wrong})
    with pytest.raises(Refused) as refused:
        render("darkroom", values, scenario="minimal")
    told = str(refused.value)
    by_schema = f"at '/{value.replace('.', '/')}'"
    parent, _, last = f".{value}".rpartition(".")
    unknown = f"at '{parent.replace('.', '/')}': additional properties '{last}'"
    assert by_schema in told or unknown in told or f"- {value}" in told, told


def test_at_least_thirty_kinds_of_mistakes_are_tried() -> None:
    assert len(INVARIANT_6) + len(OF_THE_SCHEMA) + len(OF_EACH_OTHER) >= 80
