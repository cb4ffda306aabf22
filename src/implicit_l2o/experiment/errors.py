"""What is wrong with a configuration, in words that name the key and the valid ones."""


class ConfigurationError(ValueError):
    """A configuration that cannot be run; its message is for the user."""


def explain(message: str, parser: object) -> str:
    """The parser's complaint without its wrapping."""
    return " ".join(message.split())
