"""Who is calling. With no credentials configured everybody is one local tenant."""

from dataclasses import dataclass

LOCAL_TENANT = "local"


@dataclass(frozen=True)
class Caller:
    """A tenant, and what it may do."""

    tenant: str
    roles: frozenset[str] = frozenset()


ALL_ROLES = frozenset({"Jobs.Submit", "Jobs.Read", "Jobs.Operate"})
LOCAL = Caller(LOCAL_TENANT, ALL_ROLES)
