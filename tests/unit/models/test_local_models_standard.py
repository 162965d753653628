"""LangChain's own conformance tests, run against the two offline models with what they declare to be able to do."""

from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from backend.models.offline.text import LocalText
from backend.models.offline.vision import LocalVision
from tests.kit.pictures import encode, photo


class _Declared:
    """Neither model calls tools, follows a schema or has another model behind it."""

    @property
    def supports_model_override(self) -> bool:
        return False


class TestLocalVisionUnit(_Declared, ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return LocalVision

    @property
    def supports_image_inputs(self) -> bool:
        return True


class TestLocalTextUnit(_Declared, ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return LocalText


class TestLocalVisionIntegration(_Declared, ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def picture_without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kit downloads its one picture itself; here it gets one of ours."""
        response = httpx.Response(200, content=encode(photo(), "PNG"))

        def get(url: str, **_: Any) -> httpx.Response:
            return response

        monkeypatch.setattr(httpx, "get", get)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return LocalVision

    @property
    def supports_image_inputs(self) -> bool:
        return True


class TestLocalTextIntegration(_Declared, ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return LocalText
