"""The process in which a script runs: `python -m vramfit.script.child SCRATCH`."""

import pickle
import sys
from pathlib import Path

from vramfit.script.outcome import REQUEST

if __name__ == "__main__":
    with (Path(sys.argv[1]) / REQUEST).open("rb") as opened:
        asked = pickle.load(opened)
    if asked.on_card is None:
        from vramfit.script.believing import BelievingScript

        BelievingScript(asked).run()
    from vramfit.script.measuring import MeasuredScript

    MeasuredScript(asked).run()
