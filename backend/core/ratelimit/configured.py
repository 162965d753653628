"""The limits of models that are known beforehand (`VISUAL_AI_MODEL_LIMITS`)."""

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, model_validator

ANY_MODEL = "*"


class ModelLimit(BaseModel):
    """What a provider allows of one model with one key. What isn't given is not limited."""

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
        """The same for a second."""
        return None if self.requests_per_minute is None else self.requests_per_minute / 60

    @property
    def tokens_per_second(self) -> float | None:
        """The same for a second."""
        return None if self.tokens_per_minute is None else self.tokens_per_minute / 60


def check_names(limits: Mapping[str, ModelLimit]) -> None:
    """Raise `ValueError` for a name that no model has."""
    for name in limits:
        provider, colon, model = name.partition(":")
        if name != name.strip() or not provider or (colon and not model):
            raise ValueError(
                f"“{name}” names no model: write provider:name, or provider:{ANY_MODEL} for all others of one"
            )


def limit_of(limits: Mapping[str, ModelLimit], model: str) -> ModelLimit | None:
    """The limit of "provider:name@scope": that of its name, or else of all its provider's models.

    A name without a provider is OpenAI's.
    """
    name = model.rpartition("@")[0] or model
    provider, _, bare = name.partition(":")
    for key in (name, bare if provider == "openai" else None, f"{provider}:{ANY_MODEL}"):
        if key is not None and key in limits:
            return limits[key]
    return None
