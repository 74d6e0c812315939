"""Amounts as people read them, everywhere in one way. A place (a position, an offset, an id) isn't an amount:
it is written plainly, so that it can be pasted."""


def count(number: int) -> str:
    """1 204 331: how much there is of something."""
    return f"{number:,}".replace(",", " ")


def counted(number: int, noun: str) -> str:
    """1 record, 1 204 records."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"
