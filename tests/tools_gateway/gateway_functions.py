"""Functions that are tools in tests."""


def double(number: int) -> int:
    """Twice a number.

    Args:
        number: What to double.
    """
    return 2 * number


def shout(text: str) -> str:
    """A text in capitals."""
    print("this must not get into the protocol")
    return text.upper()
