"""Configured rate limits of models (`VISUAL_AI_MODEL_LIMITS`)."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
