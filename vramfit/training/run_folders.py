"""Where a run leaves its files, and what becomes of those of the run before."""

from datetime import datetime
from pathlib import Path

from vramfit.errors import CannotWrite
from vramfit.training.checkpoint import LATEST

PROFILE = "profile.json"
RUN_FILE = "run.yaml"
# Checkpoints, and what `vramfit export` made of them.
_OURS = (*(f"checkpoint_*{suffix}" for suffix in (".pth", ".onnx", ".pt2", ".safetensors")), PROFILE, RUN_FILE)


def resume_file(resume: str | None, save_dir: Path) -> Path | None:
    """The checkpoint that `--resume` means: a file, or the folder's latest."""
    if resume is None:
        return None
    return save_dir / LATEST if resume == "latest" else Path(resume)


def log_folder(log_dir: Path, name: str, now: datetime) -> Path:
    """A new folder for one run's logs, such as `hrnet_20261123_061500`."""
    return _unused(log_dir / f"{name}_{now:%Y%m%d_%H%M%S}")


def require_folders(*folders: Path) -> None:
    """Refuse, before anything is done, a folder to write to that is or lies in a file.

    Raises:
        CannotWrite: names the file.

    """
    for folder in folders:
        first = next((place for place in (folder, *folder.parents) if place.exists()), None)
        if first is not None and not first.is_dir():
            raise CannotWrite(f"{first} is a file, and the run's files need a folder; name another one.")


def make_room(save_dir: Path, resumed: Path | None, now: datetime) -> str | None:
    """Move the files of an earlier run to `previous_DATE/`; one sentence if any were.

    Where it is that run which goes on, only checkpoints later than the resumed one: the new ones would replace them,
    and some of them may be better.

    Raises:
        CannotWrite: a file cannot be moved.

    """
    for pattern in _OURS:
        for half in save_dir.glob(f".{pattern}.*.partial"):
            half.unlink(missing_ok=True)  # left by a run that was killed while it wrote
    ours = sorted(path for pattern in _OURS for path in save_dir.glob(pattern))
    goes_on = resumed is not None and resumed.resolve().parent == save_dir.resolve()
    if resumed is not None and goes_on:
        ours = _later(ours, resumed)
    if not ours:
        return None
    target = _unused(save_dir / f"previous_{now:%Y%m%d_%H%M%S}")
    try:
        target.mkdir(parents=True)
        for path in ours:
            path.rename(target / path.name)
    except OSError as error:
        raise CannotWrite(f"{save_dir}: the earlier run there could not be moved ({error.strerror}).") from error
    if resumed is not None and goes_on:
        return f"Files later than {resumed.name}: {len(ours)}, now in {target}."
    files = "file is" if len(ours) == 1 else f"{len(ours)} files are"
    return f"{save_dir} held an earlier run: its {files} now in {target}."


def _later(ours: list[Path], resumed: Path) -> list[Path]:
    """Checkpoints written after the resumed one, and their exports; none after the latest, the last of its save."""
    if resumed.name == LATEST:
        return []
    since = resumed.stat().st_mtime_ns
    later = {path.stem for path in ours if path.suffix == ".pth" and path.stat().st_mtime_ns > since}
    return [path for path in ours if path.stem in later]


def _unused(path: Path) -> Path:
    names = [path, *(path.with_name(f"{path.name}_{number}") for number in range(2, 1000))]
    return next(name for name in names if not name.exists())
