"""harbor-ha: save sites, serve the flows, run one."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence

from deployments.arguments import make_parser
from deployments.commands import complain
from deployments.exits import FAILED, INVALID, NO_PREFECT, REFUSED


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process unless given) and return its exit status."""
    from deployments.serve import prepare_environment

    arguments = make_parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    prepare_environment()
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return _explained(command, arguments)
    except KeyboardInterrupt:
        return 130


def _explained(command: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; what an operator can put right becomes one message and an exit status."""
    import httpx

    from blocks.prefect_api import PrefectAddressMissing
    from blocks.problems import SiteFileInvalid, SiteUnknown
    from deployments.runs import RunRefused
    from tasks.errors import HarborHaError, Refused

    try:
        return command(arguments)
    except SiteFileInvalid as invalid:
        return complain(str(invalid), INVALID)
    except (RunRefused, SiteUnknown, Refused) as refused:
        return complain(str(refused), REFUSED)
    except HarborHaError as error:
        return complain(str(error), FAILED)
    except PrefectAddressMissing as missing:
        return complain(f"{missing}: export PREFECT_API_URL=http://127.0.0.1:4200/api", NO_PREFECT)
    except httpx.HTTPStatusError as error:
        return complain(
            f"Prefect answers {error.response.status_code} to {error.request.url.path}", NO_PREFECT
        )
    except httpx.HTTPError as error:
        return complain(f"Prefect does not answer: {str(error) or type(error).__name__}", NO_PREFECT)
    except OSError as error:
        return complain(str(error), FAILED)


if __name__ == "__main__":
    sys.exit(main())
