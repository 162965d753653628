"""The ids, names and addresses of traces in Langfuse. They are the same in every process and try."""

from hashlib import sha256
from urllib.parse import quote

from backend.core.settings import Settings

NAME_LIMIT = 200
"""The longest name of a session, user, tag or trace in Langfuse, in ASCII characters."""

_DIGEST = 12
_RATIO_BITS = 64


def trace_id_of(settings: Settings, thread: str) -> str:
    """The id of the trace of a task's thread, or of a batch item's: 32 hexadecimal digits, the same in all tries.

    `Langfuse.create_trace_id(seed=f"{environment}/{thread}")` returns the same id.
    """
    return sha256(f"{settings.tracing_environment}/{thread}".encode()).digest()[:16].hex()


def is_traced(settings: Settings, trace_id: str) -> bool:
    """Whether this trace is sent to Langfuse. The id alone decides, as in OpenTelemetry's `TraceIdRatioBased`."""
    bound = round(settings.langfuse_sample_rate * 2**_RATIO_BITS)
    return settings.tracing and int(trace_id, 16) % 2**_RATIO_BITS < bound


def trace_url_of(settings: Settings, trace_id: str) -> str | None:
    """The address of a trace's page; None if the trace isn't sent.

    Without the project's id Langfuse looks up the project and redirects.
    """
    if not is_traced(settings, trace_id):
        return None
    if settings.langfuse_project_id:
        return f"{settings.langfuse_url}/project/{quote(settings.langfuse_project_id, safe='')}/traces/{trace_id}"
    return f"{settings.langfuse_url}/trace/{trace_id}"


def session_of(dag_id: str, dag_run_id: str) -> str:
    """The session of a run in Langfuse, which groups the traces of its tasks."""
    return langfuse_name(f"{dag_id}/{dag_run_id}")


def langfuse_name(text: str) -> str:
    """`text` as a valid name in Langfuse. A long one keeps its beginning, and a digest keeps it unique."""
    name = quote(text, safe="".join(map(chr, range(32, 127))))
    if len(name) <= NAME_LIMIT:
        return name
    digest = sha256(text.encode()).hexdigest()[:_DIGEST]
    return f"{name[: NAME_LIMIT - _DIGEST - 1]}~{digest}"
