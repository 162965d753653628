"""Finds settings that have no effect: misspelled ones, and those that the stack sets itself."""

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches

from backend.core.settings import Settings
from backend.deployment.options import StackOptions
from backend.deployment.processes import MARKER_VARIABLE

_PREFIX = "VISUAL_AI_"
_READ_ELSEWHERE = frozenset(
    {
        *("AIRFLOW_UID", "COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"),
        *("PYTHON_IMAGE", "NODE_IMAGE", "NGINX_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE"),
        *("VISUAL_AI_BIND_ADDRESS", "VISUAL_AI_IMAGE_TAG", "VISUAL_AI_SECRETS_DIR"),
        *("VISUAL_AI_BACKEND_DB_PASSWORD", "VISUAL_AI_WORKER_DB_PASSWORD"),
        *("VISUAL_AI_BACKEND_HOST", "VISUAL_AI_BACKEND_URL", "VISUAL_AI_STACK_DIR", MARKER_VARIABLE),
        *("VISUAL_AI_URL", "VISUAL_AI_TOKEN"),
    }
)
"""What the compose file, the frontend, single commands and `backend.deployment` read without a settings class."""

_KNOWN = _READ_ELSEWHERE | {
    str(field.validation_alias) for kind in (Settings, StackOptions) for field in kind.model_fields.values()
}


def unread_settings(names: Iterable[str]) -> list[str]:
    """Return a message for each name that nothing reads, with the nearest known name.

    Names that don't look like one of this project's are for others, such as providers' clients, to read. They are only
    reported when they differ from a known name by a slip.
    """
    messages = []
    for name in sorted(names):
        written = name.upper()
        if written in _KNOWN:
            continue
        ours = written.startswith((_PREFIX, "_AIRFLOW_WWW_USER_"))
        if written.startswith(_PREFIX):
            near = get_close_matches(
                written.removeprefix(_PREFIX),
                [known.removeprefix(_PREFIX) for known in _KNOWN if known.startswith(_PREFIX)],
                n=1,
                cutoff=0.7,
            )
            nearest = [_PREFIX + match for match in near]
        else:
            nearest = get_close_matches(written, _KNOWN, n=1, cutoff=0.7 if ours else 0.94)
        if nearest:
            messages.append(f"{name} is not a setting; did you mean {nearest[0]}?")
        elif ours:
            messages.append(f"{name} is not a setting; nothing reads it")
    return messages


def overridden_settings(person: Mapping[str, str], environments: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the user's settings that reach none of the processes with these environments with the user's value."""

    def overridden(name: str) -> bool:
        reached = [environment[name] for environment in environments if name in environment]
        return person[name] not in reached and (bool(reached) or name.startswith("AIRFLOW_"))

    return sorted(
        name
        for name in person
        if name.startswith(("AIRFLOW_", _PREFIX)) and name not in _READ_ELSEWHERE and overridden(name)
    )
