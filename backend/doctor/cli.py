"""The command `doctor`."""

import os
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit, urlunsplit

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command(rich_help_panel="Models")
def doctor(
    model: Annotated[
        str | None, typer.Argument(help="The model, as provider:name. Default: the configured one.", metavar="MODEL")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
    overflow: Annotated[
        bool, typer.Option("--overflow", help="Send a prompt that is too long, whatever it costs if it is taken.")
    ] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.", metavar="SECONDS", min=0.1)] = 60.0,
) -> None:
    """Try what a model's server supports, with a few small requests, and say what to set for it in .env.

    Exit code 1 if the model can't be used at all.
    """
    import asyncio
    import logging
    import warnings

    from pydantic import ValidationError

    from backend.core.errors.input_error import InputError
    from backend.core.redaction import hide, redact
    from backend.core.settings import Settings, SettingsError, get_settings
    from backend.doctor.examination import Examination
    from backend.doctor.report import Report, cleaned
    from backend.models.hidden_values import provider_keys
    from backend.models.resolve import LOCAL_MODELS, PROVIDERS, address_of, check_name, resolve_model

    logging.disable(logging.WARNING)  # the report says what is found
    warnings.simplefilter("ignore")
    read_keys()

    def examine(settings: Settings) -> Report:
        asked = (model or "").strip() or settings.default_model
        choice = resolve_model(
            asked, purpose="vision" if asked.lower() == LOCAL_MODELS["vision"] else "text", settings=settings
        )
        provider = check_name(asked)[0]
        if choice.local and model is not None and provider != "local":
            variables = " or ".join(PROVIDERS[provider].key_variables)
            why = f"{asked} needs a key: set {variables}. Without any provider's key, agents use {choice.name} instead."
            return Report(asked, local=False, notes=[why])
        address = address_of(choice.provider, settings)
        examination = Examination(choice, settings, _shown(address), timeout=timeout)
        report = asyncio.run(examination.run(overflow=overflow))
        if choice.notice is not None:
            report.notes.insert(0, choice.notice)
        return report

    keys: list[str] = []
    try:
        settings = get_settings()
        keys = provider_keys(settings)
        report = examine(settings)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        report = Report(model or "the configured model", local=False, notes=[f"The settings are wrong: {wrong}"])
    except (InputError, SettingsError) as error:
        report = Report(model or "the configured model", local=False, notes=[str(error)])
    report = cleaned(report, lambda value: redact(hide(value, keys)))
    typer.echo(report.as_json() if as_json else report.as_table())
    raise typer.Exit(0 if report.usable else 1)


def read_keys() -> None:
    """Take the keys of all providers from .env, as `make up` does. The environment takes precedence."""
    from dotenv import dotenv_values

    from backend.models.resolve import PROVIDERS

    file = dotenv_values(".env") if Path(".env").is_file() else {}
    for provider in PROVIDERS.values():
        for name in provider.key_variables:
            if file.get(name) and not os.environ.get(name):
                os.environ[name] = str(file[name])


def _shown(address: str | None) -> str | None:
    """An address without credentials and parameters."""
    if address is None:
        return None
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
