"""The secrets by their values that no log, error, record or trace may contain."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from backend.core.process_secrets import process_secrets
from backend.models.resolve import PROVIDERS, ModelCredentials

if TYPE_CHECKING:
    from backend.core.settings import Settings


def hidden_values(settings: Settings, credentials: ModelCredentials | None = None) -> list[str]:
    """What no error, record or trace may contain: the keys of model providers, and this process's other secrets."""
    return [*provider_keys(settings, credentials), *process_secrets()]


def provider_keys(settings: Settings, credentials: ModelCredentials | None = None) -> list[str]:
    """All keys of model providers in this process. None of them may appear in a log."""
    names = {variable for provider in PROVIDERS.values() for variable in provider.key_variables}
    found = {os.environ.get(name) for name in names}
    for secret in (settings.openai_api_key, settings.langfuse_secret_key):
        found.add(secret.get_secret_value() if secret else None)
    if credentials is not None and credentials.api_key is not None:
        found.add(credentials.api_key.get_secret_value())
    return sorted(filter(None, found))
