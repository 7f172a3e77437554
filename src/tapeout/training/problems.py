"""What a user may get wrong about a run: one sentence that names what would do."""

from tapeout.errors import TapeoutError


class TrainingError(TapeoutError, ValueError):
    """A model, fleet, plan or table of runs that cannot be used; the message says why and what would do."""
