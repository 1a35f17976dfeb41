"""A caller: the tenant it acts for, and the roles that say what it may do.

A tenant is text. API keys name theirs (no slash in it); an Entra ID token gives
``DIRECTORY/OBJECT``, so that the two can never meet.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import StrEnum

LOCAL_TENANT = "local"
MAX_CREDENTIAL_CHARACTERS = 16_384  # Entra ID tokens stay under 10,000 even with many groups


class Role(StrEnum):
    """What a caller may do. The values are the app roles of the Entra ID application."""

    SUBMIT = "Jobs.Submit"
    """Submit, cancel, resubmit and erase jobs of the own tenant."""
    READ = "Jobs.Read"
    """Read jobs, pictures, usage and the list of models."""
    OPERATE = "Jobs.Operate"
    """See and settle the dead letters of every tenant."""


@dataclass(frozen=True)
class Caller:
    """A tenant, and what it may do."""

    tenant: str
    roles: frozenset[str] = frozenset()


ALL_ROLES = frozenset(Role)
LOCAL = Caller(LOCAL_TENANT, ALL_ROLES)


class Authenticator(ABC):
    """One kind of credential. What it is given goes into no log and no message."""

    @abstractmethod
    def takes(self, credential: str) -> bool:
        """Whether ``credential`` looks like one of this kind; nothing is checked yet."""

    @abstractmethod
    async def identify(self, credential: str) -> Caller:
        """Return whose ``credential`` it is.

        Raises `Unauthenticated` unless it is good at this moment, with a reason that repeats
        nothing of it; `IdentityProviderUnavailable` when that cannot be found out.
        """
