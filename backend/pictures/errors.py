"""The errors of loading a picture.

InputError
    ImageInputError           the picture or its address is wrong; a retry doesn't help
InputUnavailableError
    ImageFetchError           the picture's server failed; a retry may help
"""

from backend.core.errors.input_error import InputError, InputUnavailableError


class ImageInputError(InputError):
    """The picture, or the address given for it, can't be used. A retry doesn't help."""

    field = "image_url"


class ImageFetchError(InputUnavailableError):
    """The picture's server did not respond, or responded that it can't serve the picture now. A retry may help."""

    field = "image_url"
