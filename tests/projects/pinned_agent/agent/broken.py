"""Needs what the project doesn't depend on."""

import something_that_is_not_installed  # noqa: F401
