"""Programs for a node, made of our own modules: checked like all others, sent as one text."""

import inspect
from types import ModuleType

# Imports between our modules mean nothing on the node, where the modules are one text.
_LOCAL_IMPORT = "from tasks."
_MAIN = '\nif __name__ == "__main__":'


def source_of(*modules: ModuleType) -> str:
    """Join modules into one program for `Host.python`.

    Args:
        modules: the library modules first, the one with `if __name__ == "__main__"` last. They use Python 3.6
            and the standard library only (Ubuntu 18.04 is the oldest node), and import each other with
            one-line `from tasks.… import …` statements.

    Returns:
        The program's text.
    """
    texts = [inspect.getsource(module) for module in modules]
    # Only the last one is run; the others lend their functions.
    texts[:-1] = [text.partition(_MAIN)[0] for text in texts[:-1]]
    lines = [line for text in texts for line in text.splitlines()]
    return "\n".join(line for line in lines if not line.startswith(_LOCAL_IMPORT)) + "\n"
