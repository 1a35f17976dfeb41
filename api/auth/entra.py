"""Access tokens of Microsoft Entra ID, version 2.

Checked: signature (RS256 alone, by a key of the issuer), issuer (one of those configured),
audience, ``exp`` and ``nbf`` with a minute's leeway, ``ver`` 2.0, and that ``tid`` is the issuer's
directory. The algorithm is never the token's choice, so ``none`` and an HMAC made with the public
key are refused (RFC 8725, sections 3.1 and 3.2).

Tenant
    ``tid/oid``: the directory, and in it the user or the application. An application whose token
    has no ``oid`` goes by ``azp``.
Roles
    An application's token: ``roles``. A user's token through a client (it has ``scp``): what the
    scopes name, and `Role.OPERATE` only if the user has that role too, since a user can consent to
    a scope but not grant a role.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from jwt.exceptions import InvalidTokenError
from jwt.types import Options

from api.auth.base import Authenticator, Caller, Role
from api.auth.signing_keys import SigningKeys
from api.errors import Unauthenticated
from darkroom.clock import Clock

ALGORITHM = "RS256"
LEEWAY_SECONDS = 60
_DOTS = 2
_IDENTITY = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$")
_REQUIRED = ("exp", "nbf", "iss", "aud", "tid", "ver")
_BAD = "the token is not one that this API accepts"
_BY_SCOPE_ALONE = frozenset({Role.SUBMIT, Role.READ})


class EntraTokens(Authenticator):
    """Tokens of ``issuers`` for ``audiences``."""

    def __init__(self, issuers: Sequence[str], audiences: Sequence[str], clock: Clock) -> None:
        self._keys = {issuer: SigningKeys(issuer, clock) for issuer in issuers}
        self._audiences = list(audiences)
        self._clock = clock

    def takes(self, credential: str) -> bool:
        """Whether it has the three parts of a JSON Web Token."""
        return credential.count(".") == _DOTS

    async def identify(self, credential: str) -> Caller:
        """Return the tenant and roles of a good token."""
        try:
            header = jwt.get_unverified_header(credential)
            unproven = jwt.decode(credential, options={"verify_signature": False})
        except InvalidTokenError:
            raise Unauthenticated("the token cannot be read") from None
        if header.get("alg") != ALGORITHM:
            raise Unauthenticated(f"the token must be signed with {ALGORITHM}")
        keys = self._keys.get(str(unproven.get("iss")))
        if keys is None:
            raise Unauthenticated("the token's issuer is not one that this API accepts")
        key = await keys.find(str(header.get("kid")))
        if key is None:
            raise Unauthenticated("the token is signed with a key that its issuer does not have")
        claims = self._proven(credential, key, keys.issuer)
        self._check_times(claims)
        return Caller(_tenant(claims), _roles(claims))

    def _proven(self, credential: str, key: jwt.PyJWK, issuer: str) -> Mapping[str, Any]:
        """Return the claims of a token whose signature, issuer and audience are right."""
        checks: Options = {
            "require": list(_REQUIRED),
            "verify_exp": False,  # times are told by our clock
            "verify_nbf": False,
            "verify_iat": False,
        }
        try:
            claims = jwt.decode(
                credential,
                key.key,
                algorithms=[ALGORITHM],
                audience=self._audiences,
                issuer=issuer,
                options=checks,
            )
        except InvalidTokenError:
            raise Unauthenticated(_BAD) from None
        if claims["ver"] != "2.0" or f"/{claims['tid']}/" not in f"{issuer}/":
            raise Unauthenticated(_BAD)
        return dict(claims)

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._clock.now().timestamp()
        begins, ends = claims["nbf"], claims["exp"]
        if not all(isinstance(at, int | float) for at in (begins, ends)):
            raise Unauthenticated(_BAD)
        if now >= ends + LEEWAY_SECONDS:
            raise Unauthenticated("the token has expired")
        if now < begins - LEEWAY_SECONDS:
            raise Unauthenticated("the token is not good yet")


def _tenant(claims: Mapping[str, Any]) -> str:
    directory, who = str(claims["tid"]), str(claims.get("oid") or claims.get("azp") or "")
    if not (_IDENTITY.match(directory) and _IDENTITY.match(who)):
        raise Unauthenticated("the token does not say who it is for")
    return f"{directory}/{who}"


def _roles(claims: Mapping[str, Any]) -> frozenset[str]:
    listed = claims.get("roles")
    assigned = frozenset(map(str, listed)) if isinstance(listed, list) else frozenset[str]()
    scopes = claims.get("scp")
    if scopes is None:
        return assigned & frozenset(Role)
    granted = frozenset(str(scopes).split()) & frozenset(Role)
    return granted & (assigned | _BY_SCOPE_ALONE)
