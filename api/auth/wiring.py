"""From settings to the kinds of credential that are switched on."""

from api.auth.base import Authenticator
from api.auth.credentials import Callers
from api.settings import ApiSettings
from darkroom.clock import Clock


def open_callers(settings: ApiSettings, clock: Clock) -> Callers:
    """Return who may call by ``settings``. Raises `SettingsError` for a key file at fault."""
    kinds: list[Authenticator] = []
    if "api_keys" in settings.auth_kinds:
        from api.auth.api_keys import ApiKeys

        assert settings.keys_file is not None
        kinds.append(ApiKeys(settings.keys_file, clock))
    if "entra" in settings.auth_kinds:
        from api.auth.entra import EntraTokens

        issuers, audiences = settings.listed("entra_issuers"), settings.listed("entra_audiences")
        kinds.append(EntraTokens(issuers, audiences, clock))
    return Callers(kinds)
