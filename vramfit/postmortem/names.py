"""Names of files, functions and processes, or numbers in their place where they are to be kept private."""

from dataclasses import dataclass, field, replace

from vramfit.postmortem.outside import Outside
from vramfit.postmortem.recording import Held, Recording
from vramfit.postmortem.stacks import Line, Origin, is_library


@dataclass
class Names:
    """Shows names as they are, or numbers them in the order in which they are met; libraries keep theirs."""

    shown: bool = True
    _known: dict[tuple[str, str], str] = field(default_factory=dict)

    def of_recording(self, recording: Recording) -> Recording:
        """A recording whose lines are named as they may be."""
        if self.shown:
            return recording
        held = tuple(self._held(block) for block in recording.moment.held)
        origins = tuple(None if origin is None else self._origin(origin) for origin in recording.origins)
        return replace(recording, origins=origins, moment=replace(recording.moment, held=held))

    def of_outside(self, outside: Outside) -> Outside:
        """Other processes, named as they may be."""
        if self.shown:
            return outside
        return replace(
            outside, processes=tuple((self._number("process", name), size) for name, size in outside.processes)
        )

    def _held(self, block: Held) -> Held:
        return replace(block, origin=self._origin(block.origin))

    def _origin(self, origin: Origin) -> Origin:
        outside = tuple(line for line in map(self._line, origin.outside) if line is not None)
        return replace(origin, line=self._line(origin.line), outside=outside)

    def _line(self, line: Line | None) -> Line | None:
        if line is None or is_library(line.file):
            return line
        return replace(line, alias=(self._number("file", line.file), self._number("function", line.function)))

    def _number(self, what: str, name: str) -> str:
        key = (what, name)
        if key not in self._known:
            self._known[key] = f"{what} {1 + sum(kind == what for kind, _ in self._known)}"
        return self._known[key]
