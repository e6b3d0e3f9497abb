"""Finding a profile by the name of one that vramfit ships, or by the path of a file.

Shipped profiles lie in `profiles/` of a checkout and in `vramfit/_profiles` of an installed wheel, one JSON for each
card and image size: `rtx3070ti-768`.
"""

from difflib import get_close_matches
from pathlib import Path

from vramfit.errors import ProfileError
from vramfit.records import Profile

_PACKAGE = Path(__file__).resolve().parent


def shipped_folder() -> Path:
    """Where the shipped profiles are: inside the wheel, or at the root of the checkout."""
    inside = _PACKAGE / "_profiles"
    return inside if inside.is_dir() else _PACKAGE.parent / "profiles"


def shipped_profiles() -> dict[str, Path]:
    """Name and file of every shipped profile, by card and then by image size."""
    files = sorted(shipped_folder().glob("*.json"), key=_card_then_size)
    return {file.stem: file for file in files}


def load_profile(name_or_file: str | Path) -> Profile:
    """A shipped profile by its name, or any profile by its file.

    Raises:
        ProfileError: neither a shipped name nor a readable file, or damaged; names the nearest shipped ones.

    """
    path = find_profile(name_or_file)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ProfileError(
            f"{path}: the profile cannot be read ({reason}); make it anew with `probe --export`."
        ) from None
    return Profile.from_json(text, where=path)


def find_profile(name_or_file: str | Path) -> Path:
    """The file of a shipped profile's name, or the path itself if there is such a file.

    Raises:
        ProfileError: neither.

    """
    path = Path(name_or_file)
    if path.is_file():
        return path
    shipped = shipped_profiles()
    if str(name_or_file) in shipped:
        return shipped[str(name_or_file)]
    nearest = get_close_matches(str(name_or_file), shipped, n=3, cutoff=0.4) or list(shipped)
    known = ", ".join(nearest) or "none"
    raise ProfileError(
        f"no profile '{name_or_file}': there is no such file, and the nearest shipped names are: {known}."
    )


def _card_then_size(file: Path) -> tuple[str, int, str]:
    card, _, size = file.stem.rpartition("-")
    return (card, int(size) if size.isdecimal() else 0, size)
