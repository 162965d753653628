"""Encrypts secrets that are stored or handed out, with a key derived from the backend's own secret."""

import base64
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken


class UnreadableError(ValueError):
    """The text was encrypted with another secret or for another purpose, or isn't an encrypted text."""


class SecretBox:
    """Encrypts texts for one purpose; a box for another purpose can't decrypt them."""

    def __init__(self, secret: str, purpose: str) -> None:
        key = sha256(f"{purpose}\0{secret}".encode()).digest()
        self._cipher = Fernet(base64.urlsafe_b64encode(key))

    def seal(self, text: str) -> str:
        """Encrypt and sign a text."""
        return self._cipher.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        """Decrypt a text. Raises `UnreadableError`."""
        try:
            return self._cipher.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise UnreadableError("this was encrypted with another secret") from None
