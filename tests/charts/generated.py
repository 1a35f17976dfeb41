"""Random valid values of the chart: what an operator might combine that no scenario does."""

from typing import Any

from hypothesis import strategies as st

CLIENTS = {
    name: f"{number}1111111-1111-4111-8111-111111111111"
    for number, name in enumerate(("api", "worker", "webhooks", "keda"), 1)
}
names = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
texts = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
quantities = st.builds("{}{}".format, st.integers(1, 512), st.sampled_from(["Mi", "Gi"]))


@st.composite
def resources(draw: st.DrawFn) -> dict[str, Any]:
    """Requests and limits that fit to each other."""
    cpu = st.builds("{}m".format, st.integers(10, 64_000)) | st.integers(1, 64).map(str)
    asked = {"cpu": draw(cpu), "memory": draw(quantities)}
    if draw(st.booleans()):
        asked["ephemeral-storage"] = draw(quantities)
    return {"requests": asked, "limits": {"memory": "512Gi"}}


@st.composite
def catalogs(draw: st.DrawFn) -> dict[str, Any]:
    """One to three models, each served; one to four pools."""
    models = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    pool_names = draw(
        st.lists(names.filter(lambda name: name != "webhooks"), min_size=1, max_size=4, unique=True)
    )
    pools = []
    for index, name in enumerate(pool_names):
        served = (
            models
            if index == 0
            else draw(st.lists(st.sampled_from(models), min_size=1, unique=True))
        )
        least = draw(st.integers(0, 3))
        pools.append(
            {
                "name": name,
                "models": served,
                "max_gpu_seconds": draw(st.sampled_from([0.5, 45, 600, 3600.25, 7000])),
                "gpu": draw(st.sampled_from(["none", "T4", "A100", "mig-1g.10gb", "mig-3g.40gb"])),
                "spot": draw(st.booleans()),
                "concurrency": draw(st.sampled_from([1, 4, 64])),
                "replicas": {"min": least, "max": draw(st.integers(max(1, least), 1000))},
            }
        )
    return {
        "default_model": models[0],
        "models": [
            {
                "name": name,
                "source": "studio/" + name,
                "revision": "1",
                "seconds_per_megapixel_step": draw(st.sampled_from([0.001, 1, 60])),
                "load_seconds": draw(st.sampled_from([0, 12.5, 600, 3600])),
                "licence": "MIT",
            }
            for name in models
        ],
        "pools": pools,
    }  # fmt: skip


@st.composite
def pool_values(draw: st.DrawFn, dispatch: str) -> dict[str, Any]:
    """What one pool has of its own."""
    cache = draw(
        st.sampled_from(
            [
                {"type": "emptyDir"},
                {"type": "emptyDir", "pull": {"enabled": False}},
                {"type": "ephemeral", "storageClassName": "nvme", "pull": {"from": "blob"}},
                {"type": "claim", "claim": {"name": "weights", "readOnly": False}},
                {"type": "blob"},
                {"type": "image"},
            ]
        )
    )
    kinds = ["Deployment", "ScaledJob"] if dispatch == "serviceBus" else ["Deployment"]
    return {
        "kind": draw(st.sampled_from(kinds)),
        "modelCache": cache,
        "resources": draw(resources()),
        "nodeSelector": draw(st.dictionaries(names, names, max_size=2)),
        "onDemandFallback": draw(st.booleans()),
        "priority": draw(st.sampled_from(["standard", "low"])),
        "rollingUpdate": draw(
            st.sampled_from([{"maxSurge": "25%"}, {"maxSurge": 0, "maxUnavailable": "100%"}])
        ),
        "podDisruptionBudget": {"maxUnavailable": draw(st.sampled_from([0, 1, "50%"]))},
        "podAnnotations": draw(st.dictionaries(names, texts, max_size=2)),
    }


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """A whole set of values that the chart must take."""
    dispatch = draw(st.sampled_from(["serviceBus", "kubernetes"]))
    catalog = draw(catalogs())
    own = {
        pool["name"]: draw(pool_values(dispatch))
        for pool in catalog["pools"]
        if draw(st.booleans())
    }
    way_in = draw(st.sampled_from(["ingress", "gateway", "none"]))
    with_webhooks = dispatch == "serviceBus" and draw(st.booleans())
    made: dict[str, Any] = {
        "dispatch": dispatch,
        "azure": {
            "tenantId": "44444444-4444-4444-8444-444444444444",
            "serviceBus": {"namespace": "darkroom-any"},
            "storage": {"account": "darkroomany"},
        },
        "identity": {"clientIds": CLIENTS},
        "auth": {"mode": "api_keys", "apiKeys": {"secret": "keys", "keyVaultSecret": "keys"}},
        "keyVault": {"enabled": draw(st.booleans()), "name": "vault"},
        "catalog": catalog,
        "pools": own,
        "workers": {
            "namespace": draw(st.sampled_from(["", "gpu-tier"])),
            "deletionCost": draw(st.booleans()),
        },
        "keda": {
            "prometheus": {"enabled": draw(st.booleans()), "serverAddress": "http://prometheus:9090"}
        },
        "kueue": {
            "enabled": draw(st.booleans()),
            "createClusterObjects": draw(st.booleans()),
            "cohort": draw(st.sampled_from(["", "teams"])),
        },
        "webhooks": {
            "enabled": with_webhooks,
            "replicas": draw(st.integers(1, 3)),
            "secrets": {"secret": "hooks", "keyVaultSecret": "hooks"},
        },
        "sweeper": {"enabled": draw(st.booleans())},
        "api": {
            "autoscaling": {"enabled": draw(st.booleans())},
            "resources": draw(resources()),
            "drainSeconds": draw(st.integers(1, 300)),
        },
        "priorityClasses": {"create": draw(st.booleans())},
        "networkPolicies": {"enabled": draw(st.booleans())},
        "tests": {"enabled": draw(st.booleans())},
        "commonLabels": draw(st.dictionaries(names, names, max_size=2)),
    }  # fmt: skip
    if way_in == "ingress":
        made["ingress"] = {"enabled": True, "host": "a.example.com", "tls": {"secretName": "tls"}}
    elif way_in == "gateway":
        made["gateway"] = {"enabled": True, "host": "a.example.com", "tlsSecretName": "tls"}
    return made
