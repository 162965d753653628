"""Keeps secrets unreadable where they are stored or carried, with a key made of the backend's own secret."""

import base64
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken


class UnreadableError(ValueError):
    """What was sealed was sealed with another secret, for another purpose, or is no sealed text at all."""


class SecretBox:
    """Seals texts for one purpose; a box of another purpose can't open them."""

    def __init__(self, secret: str, purpose: str) -> None:
        key = sha256(f"{purpose}\0{secret}".encode()).digest()
        self._cipher = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, text: str) -> str:
        """The text, encrypted and signed."""
        return self._cipher.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """The text that was sealed. Raises `UnreadableError`."""
        try:
            return self._cipher.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise UnreadableError("this was sealed with another secret") from None
