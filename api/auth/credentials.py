"""From a request's headers to its caller, whichever kinds of credential are switched on."""

from collections.abc import Mapping, Sequence

from api.auth.base import LOCAL, MAX_CREDENTIAL_CHARACTERS, Authenticator, Caller
from api.errors import Unauthenticated


class Callers:
    """Identifies callers by ``kinds``; with none, everybody is the local tenant."""

    def __init__(self, kinds: Sequence[Authenticator] = ()) -> None:
        self._kinds = tuple(kinds)

    @property
    def are_anonymous(self) -> bool:
        """Whether nobody has to say who they are."""
        return not self._kinds

    async def identify(self, headers: Mapping[str, str]) -> Caller:
        """Return who calls. Raises `Unauthenticated`, `IdentityProviderUnavailable`.

        The credential is ``Authorization: Bearer ...`` or ``X-API-Key: ...``.
        """
        if not self._kinds:
            return LOCAL
        credential = _credential(headers)
        for kind in self._kinds:
            if kind.takes(credential):
                return await kind.identify(credential)
        raise Unauthenticated("the credential is of no kind that this API accepts")


def _credential(headers: Mapping[str, str]) -> str:
    authorization, key = headers.get("authorization"), headers.get("x-api-key")
    if authorization is None and key is None:
        raise Unauthenticated(
            "this needs a credential: Authorization: Bearer ... or X-API-Key: ...", is_missing=True
        )
    if authorization is not None and key is not None:
        raise Unauthenticated("send one credential: Authorization or X-API-Key, not both")
    if authorization is not None:
        scheme, _, key = authorization.strip().partition(" ")
        if scheme.lower() != "bearer":
            raise Unauthenticated("Authorization must be of the scheme Bearer")
    credential = (key or "").strip()
    if not 1 <= len(credential) <= MAX_CREDENTIAL_CHARACTERS:
        raise Unauthenticated(f"a credential has 1 to {MAX_CREDENTIAL_CHARACTERS:,} characters")
    return credential
