"""How a model is asked: whether it streams its answers, and how it is asked for a structured answer.

An agent's configuration, an Airflow connection and the settings may each say so; where none does, the model's server
decides by what it refuses (`backend/models/adaptation.py`).
"""

from typing import Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError, model_validator

OutputMethod = Literal["json_schema", "function_calling", "json_mode", "prompt"]
"""Ways to a structured answer, from the strictest: the server enforces a schema, the model fills a tool's arguments,
the server enforces JSON, or the prompt asks for it."""
OUTPUT_METHODS: tuple[OutputMethod, ...] = get_args(OutputMethod)


class ModelModes(BaseModel):
    """How a model is asked. None leaves it to others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    streaming: StrictBool | None = None
    output_method: OutputMethod | None = None

    @model_validator(mode="after")
    def _says_what_it_can(self) -> Self:
        if not self.model_fields_set:
            raise ValueError(f"give streaming, output_method ({', '.join(OUTPUT_METHODS)}) or both")
        return self

    def over(self, other: "ModelModes | None") -> "ModelModes":
        """These modes, and those of `other` where these leave it open."""
        if other is None:
            return self
        return ModelModes(
            streaming=other.streaming if self.streaming is None else self.streaming,
            output_method=self.output_method or other.output_method,
        )


UNDECIDED = ModelModes(streaming=None)


def read_streaming(value: Any) -> bool | None:
    """A boolean, or its text, which is what templates and forms yield. Raises `ValueError`."""
    if value is None or isinstance(value, bool):
        return value
    named = {"true": True, "false": False}.get(str(value).strip().lower())
    if named is None:
        raise ValueError("streaming has to be true or false")
    return named


def read_output_method(value: Any) -> OutputMethod | None:
    """One of `OUTPUT_METHODS`. Raises `ValueError`."""
    if value is None or value == "":
        return None
    try:
        return ModelModes(output_method=value).output_method
    except ValidationError:
        raise ValueError(f"output_method has to be one of {', '.join(OUTPUT_METHODS)}") from None
