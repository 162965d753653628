"""What can go wrong with a picture.

InputError
    ImageInputError           the picture or its address is wrong; a retry doesn't help
InputUnavailableError
    ImageFetchError           the server could not deliver it just now; a retry may help
"""

from backend.core.errors.input_error import InputError, InputUnavailableError


class ImageInputError(InputError):
    """The picture, or the address given for it, can't be used. A retry doesn't help."""

    field = "image_url"


class ImageFetchError(InputUnavailableError):
    """The picture's server did not answer, or answered that it can't right now. A retry may help."""

    field = "image_url"
