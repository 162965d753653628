"""The prices and context windows of models, from the table in the package genai-prices. Uses no network."""

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
"""The price table's names of providers, where they differ from LangChain's."""


def cost_usd(
    model: str,
    input_tokens: int,
    output_tokens: int,
    *,
    cache_read_tokens: int = 0,
    cache_write_tokens: int = 0,
) -> Decimal | None:
    """The price of a call to "provider:model" in US dollars; None if the table doesn't know the model.

    `input_tokens` counts the whole input, including tokens read from or written to the provider's cache, as LangChain's
    `usage_metadata` does. Offline models cost nothing; the cost of a model on one's own hardware is unknown.
    """
    provider, colon, name = model.partition(":")
    if not colon or provider == "ft":  # a bare name is OpenAI's
        provider, name = "openai", model
    if provider == "local":
        return Decimal(0)
    # Loading the table takes half a second, which only a process that runs models should spend.
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
    """The context window of "provider:model" in tokens, for prompt and answer; None if the table doesn't know it."""
    provider, colon, name = model.partition(":")
    if not colon or provider in ("ft", "local"):
        return None
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(), name, provider_id=GENAI_PRICES_NAMES.get(provider, provider))
    except (LookupError, ValueError):
        return None
    return found.model.context_window
