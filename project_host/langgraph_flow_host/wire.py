"""What passes between a task and a project's process: values as msgpack.

Neither end has the other's classes. LangChain's messages stay messages, because both ends have those. A model, a
dataclass or another object becomes its fields. What has no such form arrives as an `Opaque` of the class's name, which
nobody can convert to JSON, so it is refused with that name. What a project's serializer has written is passed on as
`Serialized`: bytes that only the project's process reads.
"""

from collections import deque
from collections.abc import Mapping, Set
from typing import Any

import ormsgpack
from langchain_core.messages import BaseMessage, messages_from_dict

_OPTIONS = ormsgpack.OPT_NON_STR_KEYS | ormsgpack.OPT_PASSTHROUGH_BIG_INT | ormsgpack.OPT_SERIALIZE_NUMPY

_MESSAGE, _SERIALIZED, _OPAQUE, _BIG_INTEGER = range(1, 5)


class Serialized:  # no dataclass: msgpack would take it for its fields
    """A value as a project's checkpoint serializer has written it."""

    __slots__ = ("data", "kind")

    def __init__(self, kind: str, data: bytes) -> None:
        self.kind = kind
        self.data = data


class Opaque:
    """Stands for a value that has no form outside its process. Its class has the name of the value's."""

    def __init__(self, shown: str) -> None:
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown


def pack(value: Any) -> bytes:
    """The bytes of a value. Raises `ValueError` for one that is nested too deep, or contains itself."""
    try:
        return ormsgpack.packb(value, default=_form_of, option=_OPTIONS)
    except (TypeError, ValueError, RecursionError):
        try:
            return ormsgpack.packb(_simplified(value, 200), default=_form_of, option=_OPTIONS)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"a value can't leave its process: {error}") from None


def unpack(data: bytes) -> Any:
    """The value of bytes from `pack`."""
    return ormsgpack.unpackb(data, ext_hook=_of_extension, option=ormsgpack.OPT_NON_STR_KEYS)


def _form_of(value: Any) -> Any:
    if isinstance(value, BaseMessage):
        return ormsgpack.Ext(_MESSAGE, pack([value.type, value.model_dump()]))
    if isinstance(value, Serialized):
        return ormsgpack.Ext(_SERIALIZED, ormsgpack.packb([value.kind, value.data]))
    if isinstance(value, int):
        return ormsgpack.Ext(_BIG_INTEGER, str(value).encode())
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Set | deque) and not isinstance(value, type):
        return list(value)
    if isinstance(value, BaseException):
        return repr(value)
    if not isinstance(value, type):
        if isinstance(fields := getattr(type(value), "model_fields", None), Mapping):
            return {
                **{name: getattr(value, name, None) for name in fields},
                **(getattr(value, "model_extra", None) or {}),
            }
        if type(value).__module__ == "langgraph.types":  # Send and Interrupt, which may have slots
            names = [*getattr(type(value), "__slots__", ()), *getattr(value, "__dict__", ())]
            return {name: getattr(value, name) for name in names}
        if type(value).__module__ in ("decimal", "fractions", "pathlib") or hasattr(value, "__fspath__"):
            return str(value)
        if callable(getattr(value, "tolist", None)):
            return value.tolist()
    kind = type(value)
    return ormsgpack.Ext(_OPAQUE, ormsgpack.packb([kind.__module__, kind.__qualname__, _shown(value)]))


def _of_extension(tag: int, data: bytes) -> Any:
    if tag == _MESSAGE:
        kind, fields = unpack(data)
        try:
            return messages_from_dict([{"type": kind, "data": fields}])[0]
        except (ValueError, TypeError, KeyError):  # of a kind that this end doesn't know
            return fields
    if tag == _SERIALIZED:
        return Serialized(*ormsgpack.unpackb(data))
    if tag == _BIG_INTEGER:
        return int(data)
    if tag == _OPAQUE:
        module, name, shown = ormsgpack.unpackb(data)
        return type(name.rpartition(".")[2], (Opaque,), {"__module__": module, "__qualname__": name})(shown)
    raise ValueError(f"the extension {tag} is unknown")


def _shown(value: Any) -> str:
    try:
        return repr(value)[:200].encode("utf-8", "replace").decode()
    except Exception:  # a user's own __repr__ may raise anything
        return f"<{type(value).__qualname__}>"


def _simplified(value: Any, depth: int) -> Any:
    """A copy without what makes msgpack refuse all of a value: halves of surrogate pairs, and keys of odd types."""
    if depth == 0:
        raise ValueError("it is nested too deep, or contains itself")
    if isinstance(value, str):
        return str(value).encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {
            _simplified(key, depth - 1)
            if isinstance(key, str | int | float | bool | None)
            else _shown(key): _simplified(part, depth - 1)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple | Set | deque):
        return [_simplified(part, depth - 1) for part in value]
    return value
