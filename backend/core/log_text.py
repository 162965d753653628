"""Formats an entry of a task's log for people."""

import json
from typing import Any

# What every entry of a log repeats, and the place in the code that wrote it.
_NOISE = frozenset(
    {"ti_id", "dag_id", "run_id", "task_id", "map_index", "try_number", "task_instance_id", "filename", "lineno"}
)
_GROUP = "::group::"
_GROUP_END = "::endgroup::"


def as_text(line: bytes) -> str:
    """One line of Airflow's newline-delimited JSON as text: time, level, logger, event and further fields.

    A traceback takes more lines, and so does a message of several, which are indented: what a model wrote can't pass
    for an entry. The end of a group becomes an empty text; a line that isn't a JSON object is returned as it is.
    """
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        return line.decode(errors="replace")
    rest = {name: value for name, value in entry.items() if value is not None and name not in _NOISE}
    head = [str(rest.pop("timestamp", "")), str(rest.pop("level", "")).upper(), str(rest.pop("logger", ""))]
    event, errors = str(rest.pop("event", "")), rest.pop("error_detail", None)
    if event == _GROUP_END:
        return ""
    shown = [part for part in (*head, event.removeprefix(_GROUP)) if part]
    shown += [f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in rest.items()]
    return "\n".join([_one_entry(" ".join(shown)), *_traceback(errors)])


def _one_entry(text: str) -> str:
    return text.rstrip("\r\n").replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\n    ")


def _traceback(errors: Any) -> list[str]:
    shown: list[str] = []
    for error in errors if isinstance(errors, list) else []:
        if not isinstance(error, dict):
            continue
        for frame in error.get("frames") or []:
            shown.append(f"  File {frame.get('filename')!r}, line {frame.get('lineno')}, in {frame.get('name')}")
        shown.append(f"{error.get('exc_type')}: {_one_entry(str(error.get('exc_value')))}")
    return shown
