"""How a webhook's receiver knows that a notification is ours, whole, and new."""

import hashlib
import hmac

ID_HEADER = "X-Visual-AI-Id"
"""The notification's id, the same in all attempts: what comes twice is known by it."""

EVENT_HEADER = "X-Visual-AI-Event"
SIGNATURE_HEADER = "X-Visual-AI-Signature"


def signature(secret: str, body: bytes, at: int) -> str:
    """The value of `SIGNATURE_HEADER`: `t=<at>,v1=<hex HMAC-SHA256 of "<at>.<body>">`, `at` in seconds since 1970.

    The time is part of what is signed, so that a receiver may refuse what is old.
    """
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"
