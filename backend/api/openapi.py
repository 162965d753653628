"""The OpenAPI document as a file."""

import json

from fastapi import FastAPI


def document_text(app: FastAPI) -> str:
    """The document as it is kept in the repository, where the frontend's types are made from it."""
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"
