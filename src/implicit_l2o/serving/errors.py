"""What can be wrong with a saved layer and with what it is asked."""


class LayerError(ValueError):
    """A folder that holds no sound layer, or a layer that cannot be saved; the message says what is wrong, in one line."""


class InputError(ValueError):
    """Samples that the layer does not take; the message says what it takes."""


class LimitError(ValueError):
    """A bound of the server that is no bound."""
