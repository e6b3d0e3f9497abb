"""What people type, put into the words the parser knows, before any parsing."""

from collections.abc import Iterable

LATEST = "latest"


def normalise(arguments: Iterable[str]) -> tuple[list[str], bool]:
    """Arguments as the parser takes them, and whether `--debug` was among them.

    `--debug` is taken out wherever it stands; `--image_size` becomes `--image-size`; a bare `--resume`, whose value
    is optional, becomes `--resume latest`. Nothing after a lone `--` is touched.
    """
    left, right = _cut_at_double_dash(list(arguments))
    debug = "--debug" in left
    words = [_hyphens(word) for word in left if word != "--debug"]
    return [*_give_resume_its_value(words), *right], debug


def _cut_at_double_dash(words: list[str]) -> tuple[list[str], list[str]]:
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut:]


def _hyphens(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, sign, value = word.partition("=")
    return name.replace("_", "-") + sign + value


def _give_resume_its_value(words: list[str]) -> list[str]:
    result = []
    for place, word in enumerate(words):
        result.append(word)
        bare = place + 1 == len(words) or words[place + 1].startswith("-")
        if word == "--resume" and bare:
            result.append(LATEST)
    return result
