"""Did you mean …?"""

import difflib
from collections.abc import Iterable


def did_you_mean(given: str, known: Iterable[str]) -> str | None:
    """Return the known word that `given` is probably a slip of, or None."""
    by_folded = {word.lower(): word for word in known}
    close = difflib.get_close_matches(given.lower().replace("-", "_"), by_folded, n=1, cutoff=0.6) or (
        difflib.get_close_matches(given.lower(), by_folded, n=1, cutoff=0.6)
    )
    return by_folded[close[0]] if close else None
