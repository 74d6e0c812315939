"""What is printed to be pasted: command lines whose words are quoted where a shell would act on them."""

from shlex import quote


def command(verb: str, *given: object) -> str:
    """`stockledger VERB ...` with what others named: quoted, and never taken for an option."""
    words = [quote(str(word)) for word in given]
    is_option = verb.rpartition(" ")[2].startswith("--")  # which takes the next word, whatever it is
    guard = ["--"] if not is_option and any(word.startswith("-") for word in words) else []
    return " ".join(["stockledger", verb, *guard, *words])
