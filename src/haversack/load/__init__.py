"""Load: from a job file, a reference, a saved program or a checkpoint to a checked Job, its Model and a preflight.

Open ``opening.py`` first: it says how a source is written. What a user's code raises is told at the user's line
(``user_code.py``); nothing of a file is unpickled or run unless the user allows it (``archive.py``).
"""

from __future__ import annotations

from haversack.load.architectures import architectures
from haversack.load.exporting import export
from haversack.load.forecast import Preflight, Preflights, Work, preflight
from haversack.load.opening import open_job

__all__ = ["Preflight", "Preflights", "Work", "architectures", "export", "open_job", "preflight"]
