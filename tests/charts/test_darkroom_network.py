"""The policies let through what the processes use, and nothing besides."""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.charts.helm import Object, containers, of_kind, pods, render, scenarios

NAMES = sorted(set(scenarios("darkroom")) - {"keda-test"})  # that one has no policies
PUBLIC, METADATA = "52.1.2.3", "169.254.169.254"

scenario = pytest.mark.parametrize("name", NAMES)


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items()


def of_pod(objects: list[Object], namespace: str, labels: dict[str, str]) -> list[Object]:
    """The policies that apply to a pod."""
    return [
        each["spec"]
        for each in of_kind(objects, "NetworkPolicy")
        if each["metadata"]["namespace"] == namespace
        and matches(each["spec"]["podSelector"], labels)
    ]


def reaches(policies: list[Object], address: str, port: int) -> bool:
    """Whether a pod may open a connection by TCP to an address."""
    target = ipaddress.ip_address(address)

    def inside(block: dict[str, Any]) -> bool:
        out = [ipaddress.ip_network(each) for each in block.get("except", [])]
        return target in ipaddress.ip_network(block["cidr"]) and not any(
            target in each for each in out
        )

    return any(
        any("ipBlock" in peer and inside(peer["ipBlock"]) for peer in rule["to"])
        and {"protocol": "TCP", "port": port} in rule["ports"]
        for policy in policies
        for rule in policy.get("egress", [])
    )


def admits(policies: list[Object], port: int) -> list[Any]:
    """Who may connect to a port of the pod."""
    return [
        peer
        for policy in policies
        for rule in policy.get("ingress", [])
        for peer in rule["from"]
        if {"protocol": "TCP", "port": port} in rule["ports"]
    ]


def all_pods(objects: list[Object]) -> list[tuple[str, dict[str, str], Object]]:
    return [
        (owner["metadata"]["namespace"], pod["metadata"]["labels"], pod)
        for owner, pod in pods(objects)
    ]


@scenario
def test_every_namespace_refuses_what_is_not_opened(name: str) -> None:
    objects = render("darkroom", scenario=name)
    denying = {
        each["metadata"]["namespace"]
        for each in of_kind(objects, "NetworkPolicy")
        if each["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }
    assert denying == {namespace for namespace, _, _ in all_pods(objects)}


@scenario
def test_every_open_port_admits_somebody_and_nobody_else_is_admitted(name: str) -> None:
    objects = render("darkroom", scenario=name)
    for namespace, labels, pod in all_pods(objects):
        policies = of_pod(objects, namespace, labels)
        listening = {
            port["containerPort"] for each in containers(pod) for port in each.get("ports", [])
        }
        opened = {
            port["port"]
            for policy in policies
            for rule in policy.get("ingress", [])
            for port in rule["ports"]
        }
        if labels["app.kubernetes.io/component"] == "sweeper":
            listening.remove(8080)  # for the kubelet's probes; nobody calls it
        assert opened == listening
        assert all(admits(policies, port) for port in listening)
        assert {} not in [peer for port in opened for peer in admits(policies, port)]


@scenario
def test_every_backend_that_a_process_is_told_can_be_reached(name: str) -> None:
    objects = render("darkroom", scenario=name)
    inside = "10.20.8.4" if name == "network-locked" else PUBLIC
    for namespace, labels, pod in all_pods(objects):
        policies = of_pod(objects, namespace, labels)
        told = {
            each["name"]: each.get("value", "")
            for container in pod["spec"]["containers"]
            for each in container["env"]
        }
        schemes = {urlsplit(value).scheme for key, value in told.items() if key.endswith("_URL")}
        if schemes & {"aztables", "azblob"}:
            assert reaches(policies, inside, 443)
        if "servicebus" in schemes:
            assert reaches(policies, inside, 5671)
        if "kubernetes" in schemes and labels["app.kubernetes.io/component"] != "doctor":
            assert pod["spec"]["automountServiceAccountToken"]
            assert reaches(policies, "10.0.0.1", 443)
        if "async+redis" in schemes:
            assert reaches(policies, "10.20.10.4", 6379)


@scenario
def test_only_workers_reach_the_metadata_service(name: str) -> None:
    objects = render("darkroom", scenario=name)
    for namespace, labels, _ in all_pods(objects):
        policies = of_pod(objects, namespace, labels)
        is_worker = labels.get("darkroom/tier") == "worker"
        assert reaches(policies, METADATA, 80) is is_worker
        assert not reaches(policies, METADATA, 443)


@scenario
def test_every_pod_may_ask_for_names(name: str) -> None:
    objects = render("darkroom", scenario=name)
    for namespace, labels, _ in all_pods(objects):
        asked = [
            port
            for policy in of_pod(objects, namespace, labels)
            for rule in policy.get("egress", [])
            for peer in rule["to"]
            if peer.get("podSelector", {}).get("matchLabels") == {"k8s-app": "kube-dns"}
            for port in rule["ports"]
        ]
        assert {"protocol": "UDP", "port": 53} in asked


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "172.16.0.1", "192.168.1.1", "100.64.0.1", METADATA]
)
def test_webhooks_cannot_be_sent_into_the_network(address: str) -> None:
    objects = render("darkroom", scenario="network-locked")
    for namespace, labels, _ in all_pods(objects):
        if labels["app.kubernetes.io/component"] == "webhooks":
            policies = of_pod(objects, namespace, labels)
            assert reaches(policies, "93.184.216.34", 443)
            assert not reaches(policies, address, 443)


def test_a_locked_network_reaches_its_own_subnets_alone() -> None:
    objects = render("darkroom", scenario="network-locked")
    for namespace, labels, _ in all_pods(objects):
        if labels["app.kubernetes.io/component"] != "webhooks":
            policies = of_pod(objects, namespace, labels)
            assert not reaches(policies, PUBLIC, 443)
            assert not reaches(policies, "10.20.77.1", 443)


def test_without_the_whole_namespace_others_are_left_alone() -> None:
    objects = render("darkroom", {"networkPolicies": {"wholeNamespace": False}}, scenario="minimal")
    assert all(each["spec"]["podSelector"] for each in of_kind(objects, "NetworkPolicy"))
    for namespace, labels, _ in all_pods(objects):
        closed = [
            policy
            for policy in of_pod(objects, namespace, labels)
            if "ingress" not in policy and "egress" not in policy
        ]
        assert closed
