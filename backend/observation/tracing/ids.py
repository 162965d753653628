"""Under which names Langfuse knows what agents do, and where a person finds it. The same in every process and try."""

from hashlib import sha256
from urllib.parse import quote

from backend.core.settings import Settings

NAME_LIMIT = 200
"""Characters that Langfuse takes of a session, a user, a tag or a trace's name, all of them ASCII."""

_DIGEST = 12
_RATIO_BITS = 64


def trace_id_of(settings: Settings, thread: str) -> str:
    """The trace of a task's thread, or of a batch item's: 32 hexadecimal digits, the same in all tries.

    `Langfuse.create_trace_id(seed=f"{environment}/{thread}")` gives the same.
    """
    return sha256(f"{settings.tracing_environment}/{thread}".encode()).digest()[:16].hex()


def is_traced(settings: Settings, trace_id: str) -> bool:
    """Whether Langfuse is sent this trace. Decided by the id alone, as OpenTelemetry's `TraceIdRatioBased` does it."""
    bound = round(settings.langfuse_sample_rate * 2**_RATIO_BITS)
    return settings.tracing and int(trace_id, 16) % 2**_RATIO_BITS < bound


def trace_url_of(settings: Settings, trace_id: str) -> str | None:
    """Where a person sees a trace; None when it isn't sent.

    Without the project's id Langfuse looks up the project and redirects.
    """
    if not is_traced(settings, trace_id):
        return None
    if settings.langfuse_project_id:
        return f"{settings.langfuse_url}/project/{quote(settings.langfuse_project_id, safe='')}/traces/{trace_id}"
    return f"{settings.langfuse_url}/trace/{trace_id}"


def session_of(dag_id: str, dag_run_id: str) -> str:
    """Langfuse's session for a run: it holds the traces of all of its tasks."""
    return langfuse_name(f"{dag_id}/{dag_run_id}")


def langfuse_name(text: str) -> str:
    """`text` as Langfuse takes it. What is too long keeps its beginning, and a digest keeps it apart from others."""
    name = quote(text, safe="".join(map(chr, range(32, 127))))
    if len(name) <= NAME_LIMIT:
        return name
    digest = sha256(text.encode()).hexdigest()[:_DIGEST]
    return f"{name[: NAME_LIMIT - _DIGEST - 1]}~{digest}"
