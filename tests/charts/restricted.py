"""The Pod Security Standard "restricted", as a check of a pod's spec.

Source: kubernetes.io, "Pod Security Standards", the policies Baseline and Restricted; one line for
each control that a Linux pod can violate.
"""

from tests.charts.helm import Object, containers

VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim",
    "projected", "secret",
}  # fmt: skip
SECCOMP = {"RuntimeDefault", "Localhost"}
SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}  # fmt: skip


def violations(pod: Object) -> list[str]:
    """Return what the admission controller would refuse in a pod of namespace ``restricted``."""
    spec = pod["spec"]
    found = [
        f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)
    ]
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if not kinds <= VOLUMES:
            found.append(f"volume {volume['name']} is {kinds - VOLUMES}")
    context = spec.get("securityContext", {})
    if context.get("runAsUser") == 0:
        found.append("runAsUser is 0")
    if {each["name"] for each in context.get("sysctls", [])} - SYSCTLS:
        found.append("a sysctl is unsafe")
    if context.get("windowsOptions", {}).get("hostProcess"):
        found.append("it is a host process")
    for container in containers(pod):
        found += [f"{container['name']}: {what}" for what in _of_container(container, context)]
    return found


def _of_container(container: Object, of_pod: Object) -> list[str]:
    own = container.get("securityContext", {})
    capabilities = own.get("capabilities", {})
    seccomp = own.get("seccompProfile", of_pod.get("seccompProfile", {})).get("type")
    checks = {
        "privileged": not own.get("privileged"),
        "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
        "runAsNonRoot": own.get("runAsNonRoot", of_pod.get("runAsNonRoot")) is True,
        "runAsUser": own.get("runAsUser") != 0,
        "capabilities.drop": "ALL" in capabilities.get("drop", []),
        "capabilities.add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
        "seccompProfile": seccomp in SECCOMP,
        "procMount": own.get("procMount", "Default") == "Default",
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
        "lifecycle and probe hosts": not _named_hosts(container),
    }
    return [name for name, holds in checks.items() if not holds]


def _named_hosts(container: Object) -> list[str]:
    """Probes that reach another host; refused since Kubernetes 1.34."""
    probes = [container.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")]
    hooks = list(container.get("lifecycle", {}).values())
    actions = [each.get(kind, {}) for each in probes + hooks for kind in ("httpGet", "tcpSocket")]
    return [action["host"] for action in actions if action.get("host")]
