"""What people type, put into the words the parser knows, before any parsing."""

from collections.abc import Iterable, MutableMapping

from vramfit.errors import UsageError

LATEST = "latest"
IMAGE_SIZE = ("--image-size", "--imgsz")
DEVICE = "--device"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


def normalise(arguments: Iterable[str]) -> tuple[list[str], bool]:
    """Arguments as the parser takes them, and whether `--debug` was among them.

    `--debug` is taken out wherever it stands; `--image_size` becomes `--image-size`, and its two numbers one word; a
    bare `--resume`, whose value is optional, becomes `--resume latest`. Nothing after a lone `--` is touched.
    """
    left, right = _cut_at_double_dash(list(arguments))
    debug = "--debug" in left
    words = [_hyphens(word) for word in left if word != "--debug"]
    return [*_give_resume_its_value(_join_image_size(words)), *right], debug


def choose_card(words: list[str], environment: MutableMapping[str, str]) -> list[str]:
    """`--device 0` or `cuda:0` as `--device cuda`, with that card alone to be seen in the environment.

    Before torch is loaded, so that every process of the command sees the same card.

    Raises:
        UsageError: CUDA_VISIBLE_DEVICES, which is set, has no such card.

    """
    left, right = _cut_at_double_dash(words)
    left = [part for word in left for part in (word.split("=", 1) if word.startswith(f"{DEVICE}=") else [word])]
    for place, word in enumerate(left[1:], start=1):
        index = word.removeprefix("cuda:")
        if left[place - 1] == DEVICE and index.isdecimal():
            environment[_VISIBLE] = _card_of(int(index), environment.get(_VISIBLE))
            left[place] = "cuda"
    return [*left, *right]


def _card_of(index: int, visible: str | None) -> str:
    if visible is None:
        return str(index)
    cards = visible.split(",")
    if index >= len(cards):
        raise UsageError(f"{DEVICE} {index}: {_VISIBLE} shows {visible or 'none'}; name one of its places, from 0.")
    return cards[index]


def _cut_at_double_dash(words: list[str]) -> tuple[list[str], list[str]]:
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut:]


def _hyphens(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, sign, value = word.partition("=")
    return name.replace("_", "-") + sign + value


def _join_image_size(words: list[str]) -> list[str]:
    """`--image-size 512 640` as `--image-size 512x640`."""
    result: list[str] = []
    for word in words:
        if word.isdecimal() and result[-2:-1] and result[-2] in IMAGE_SIZE and result[-1].isdecimal():
            result[-1] += f"x{word}"
        else:
            result.append(word)
    return result


def _give_resume_its_value(words: list[str]) -> list[str]:
    result = []
    for place, word in enumerate(words):
        result.append(word)
        bare = place + 1 == len(words) or words[place + 1].startswith("-")
        if word == "--resume" and bare:
            result.append(LATEST)
    return result
