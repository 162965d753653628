"""What a model call costs, and how much a model holds, by the table that genai-prices carries (no network)."""

from decimal import Decimal

GENAI_PRICES_NAMES = {
    "azure_openai": "azure",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistralai": "mistral",
    "xai": "x-ai",
}
"""Where the price table calls a provider differently than LangChain does."""


def cost_usd(
    model: str,
    input_tokens: int,
    output_tokens: int,
    *,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
) -> Decimal | None:
    """The price of a call to "provider:model" in US dollars; None when the table doesn't know the model.

    `input_tokens` counts all of the input, with those read from or written to the provider's cache, as
    LangChain's `usage_metadata` does. Offline models cost nothing; of a model on one's own hardware the cost
    is unknown.
    """
    provider, colon, name = model.partition(":")
    if not colon or provider == "ft":  # a bare name is OpenAI's
        provider, name = "openai", model
    if provider == "local":
        return Decimal(0)
    # Half a second's worth of tables that only a process that runs models needs.
    from genai_prices import Usage, calc_price

    usage = Usage(
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cache_read_tokens=cache_read_tokens or None,
        cache_write_tokens=cache_write_tokens or None,
    )
    try:
        price = calc_price(usage, name, provider_id=GENAI_PRICES_NAMES.get(provider, provider))
    except (LookupError, ValueError):
        return None
    return price.total_price


def context_window(model: str) -> int | None:
    """How many tokens "provider:model" holds, prompt and answer; None when the table doesn't know."""
    provider, colon, name = model.partition(":")
    if not colon or provider in ("ft", "local"):
        return None
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(), name, provider_id=GENAI_PRICES_NAMES.get(provider, provider))
    except (LookupError, ValueError):
        return None
    return found.model.context_window
