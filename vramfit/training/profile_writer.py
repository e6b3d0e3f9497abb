"""The profile that a run leaves beside its checkpoints: written when it begins, and again with whatever happens."""

from pathlib import Path

from vramfit.files import write_atomically
from vramfit.records import GrowBack, OomEvent, Profile
from vramfit.training.listeners import Listener, RunStart


class ProfileWriter(Listener):
    """Writes `profile` to a file, so that a run that is killed has said what happened until then."""

    def __init__(self, profile: Profile, path: Path) -> None:
        self.profile = profile
        self._path = path

    def on_start(self, start: RunStart) -> None:  # noqa: ARG002  # the listener's signature
        """Write the plan, with the events of the run that is resumed."""
        self._write({})

    def on_event(self, event: OomEvent) -> None:
        """Add an OOM."""
        self._write({"oom_events": (*self.profile.oom_events, event)})

    def on_grow_back(self, growth: GrowBack) -> None:
        """Add larger micro-batches."""
        self._write({"grow_backs": (*self.profile.grow_backs, growth)})

    def _write(self, update: dict[str, object]) -> None:
        self.profile = self.profile.model_copy(update=update)
        write_atomically(self._path, self.profile.to_json())
