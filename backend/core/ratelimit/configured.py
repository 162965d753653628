"""Configured rate limits of models (`VISUAL_AI_MODEL_LIMITS`)."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, model_validator

ANY_MODEL = "*"


class ModelLimit(BaseModel):
    """What a provider allows for one model and one key. None means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_minute: float | None = Field(None, gt=0, allow_inf_nan=False)
    tokens_per_minute: float | None = Field(None, gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _limits_something(self) -> "ModelLimit":
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise ValueError("give requests_per_minute, tokens_per_minute or both")
        return self

    @property
    def requests_per_second(self) -> float | None:
        """The request limit per second."""
        return None if self.requests_per_minute is None else self.requests_per_minute / 60

    @property
    def tokens_per_second(self) -> float | None:
        """The token limit per second."""
        return None if self.tokens_per_minute is None else self.tokens_per_minute / 60


def check_names(limits: Mapping[str, ModelLimit]) -> None:
    """Raise `ValueError` for a key that is not a model name."""
    for name in limits:
        provider, colon, model = name.partition(":")
        if name != name.strip() or not provider or (colon and not model):
            raise ValueError(
                f"“{name}” is not a model name: write provider:name, or provider:{ANY_MODEL} for all other models"
            )


def limit_of(limits: Mapping[str, ModelLimit], model: str) -> ModelLimit | None:
    """The limit of "provider:name@scope": the one for its name, else the one for its provider's other models.

    A key without a provider stands for a model of OpenAI.
    """
    name = model.rpartition("@")[0] or model
    provider, _, bare = name.partition(":")
    for key in (name, bare if provider == "openai" else None, f"{provider}:{ANY_MODEL}"):
        if key is not None and key in limits:
            return limits[key]
    return None
