"""harbor-ha: save sites, serve the flows, run one.

Imports that take seconds (prefect, the flows) are inside of the functions, so that `--help` is instant.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.runs import FlowRun

from deployments.init.options import add_init

DONE, FAILED, USAGE, INVALID, NO_PREFECT, REFUSED, NOT_ENDED, DEGRADED = range(8)

# Where the watcher's /metrics listens on loopback.
METRICS_PORT = 9096

EPILOG = """\
exit status:
  0  done
  1  the flow failed, crashed or was cancelled; --watch of check, and status: it is down, or nobody can tell;
     doctor: a link is broken
  2  wrong usage
  3  the site file has mistakes; nothing was changed
  4  Prefect does not answer
  5  refused: no such site, flow or parameter, and nothing was started; or, with --watch, by the flow itself
  6  --watch: the flow has not ended in time; it goes on
  7  --watch of check, and status: the site is served, and something is wrong with it; doctor: likewise

environment:
  PREFECT_API_URL           the server, http://127.0.0.1:4200/api
  PREFECT_API_AUTH_STRING   user:password, when the server asks for it
  HARBOR_HA_HOME            local copies of the sites, ~/.harbor-ha by default
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process unless given) and return its exit status."""
    from deployments.serve import prepare_environment

    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    prepare_environment()
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return _explained(command, arguments)
    except KeyboardInterrupt:
        return 130


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0.5 <= pace <= 60.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.5 and 60 seconds")
    return pace


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="harbor-ha",
        description="Run Harbor on two machines, with flows for what an operator does.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_init(commands)

    apply = commands.add_parser("apply", help="check a site file and save the site")
    apply.add_argument("site_file", metavar="SITE.yml")
    apply.add_argument("--check", action="store_true", help="check only, save nothing")
    apply.set_defaults(command=_apply)

    setup = commands.add_parser("setup", help="register Block types and the automation for killed flows")
    setup.add_argument(
        "--notify",
        metavar="TYPE/NAME",
        help="notification Block that people are told through: custom-webhook/ops",
    )
    setup.set_defaults(command=_setup)

    serve = commands.add_parser("serve", help="serve all flows until stopped")
    serve.add_argument(
        "--site", action="append", default=[], help="run the schedules for this site; repeatable"
    )
    serve.add_argument("--limit", type=int, help="how many runs at once")
    serve.add_argument("--no-watch", action="store_true", help="the watcher is a service of its own, or none")
    serve.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="of the watcher")
    serve.set_defaults(command=_serve)

    watch = commands.add_parser(
        "watch", help="look at sites all the time, and start failover when one is needed"
    )
    watch.add_argument("--site", action="append", required=True, help="repeatable")
    watch.add_argument("--host", default="127.0.0.1", help="where /metrics listens")
    watch.add_argument("--port", type=int, default=METRICS_PORT, help="likewise; 0: no metrics")
    watch.add_argument(
        "--pace", type=_pace, default=1.0, help="seconds between two lines of a node, 0.5 to 60 (default: 1)"
    )
    watch.add_argument(
        "--no-calls", action="store_true", help="start no failover; Prometheus' rules and people decide"
    )
    watch.add_argument("--with-input", action="store_true", help="end when the standard input does")
    watch.set_defaults(command=_watch)

    run = commands.add_parser("run", help="start a flow through its deployment")
    run.add_argument("flow", metavar="FLOW", help="name of the deployment, such as bootstrap")
    run.add_argument("--site", required=True)
    run.add_argument("--param", action="append", default=[], metavar="KEY=VALUE", help="repeatable")
    run.add_argument("--watch", action="store_true", help="wait for the end and print the report")
    run.add_argument("--timeout", type=float, default=6 * 3600, help="seconds to watch (default: 6 hours)")
    run.add_argument(
        "--without-prefect",
        action="store_true",
        help="run the flow in this process, when Prefect is dead; exit status as with --watch",
    )
    run.set_defaults(command=_run)

    sites = commands.add_parser("sites", help="list the saved sites")
    sites.set_defaults(command=_sites)

    status = commands.add_parser(
        "status", help="look at a site, or at all, without Prefect: nodes, verdict, backup"
    )
    status.add_argument("site", metavar="SITE", nargs="?")
    status.set_defaults(command=_status)

    doctor = commands.add_parser(
        "doctor", help="try every link of the chain that makes a failover by itself, without harm"
    )
    doctor.add_argument("site", metavar="SITE")
    doctor.add_argument("--metrics-port", type=int, default=METRICS_PORT, help="of the watcher, on loopback")
    doctor.add_argument("--prometheus", default="", metavar="URL", help="ask it for its rules and its target")
    doctor.add_argument("--alertmanager", default="", metavar="URL", help="tell it an alert of a sound site")
    doctor.set_defaults(command=_doctor)

    logs = commands.add_parser("logs", help="print what the newest run of a site, or a run, has told")
    logs.add_argument("run", metavar="SITE|RUN", nargs="?", help="a site, or the id or name of a run")
    logs.set_defaults(command=_logs)

    backups = commands.add_parser("backups", help="list the backups in a site's bucket, the newest first")
    backups.add_argument("site", metavar="SITE")
    backups.set_defaults(command=_backups)

    remove = commands.add_parser("remove", help="forget a site: its schedules, its Blocks and its local copy")
    remove.add_argument("site", metavar="SITE")
    remove.add_argument("--yes", action="store_true", help="do it; without this it is only said")
    remove.set_defaults(command=_remove)

    receive = commands.add_parser("receive", help="start flows for the alerts of Alertmanager")
    receive.add_argument("--config", required=True, metavar="RECEIVER.yml")
    receive.add_argument("--host", default="127.0.0.1")
    receive.add_argument("--port", type=int, default=9095)
    receive.set_defaults(command=_receive)
    return parser


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
        return _complain(str(invalid), INVALID)
    except (RunRefused, SiteUnknown, Refused) as refused:
        return _complain(str(refused), REFUSED)
    except HarborHaError as error:
        return _complain(str(error), FAILED)
    except PrefectAddressMissing as missing:
        return _complain(f"{missing}: export PREFECT_API_URL=http://127.0.0.1:4200/api", NO_PREFECT)
    except httpx.HTTPStatusError as error:
        return _complain(
            f"Prefect answers {error.response.status_code} to {error.request.url.path}", NO_PREFECT
        )
    except httpx.HTTPError as error:
        return _complain(f"Prefect does not answer: {str(error) or type(error).__name__}", NO_PREFECT)
    except OSError as error:
        return _complain(str(error), FAILED)


def _complain(text: str, status: int) -> int:
    print(text, file=sys.stderr)
    return status


def _apply(arguments: argparse.Namespace) -> int:
    from blocks import save_site
    from blocks.prefect_api import prefect_api
    from blocks.signing import with_signing_secret
    from blocks.site_file import inspect_site_file
    from deployments.choices import update_choices
    from deployments.events import BACKUP_EXPECTED, tell
    from deployments.orchestrator import handover
    from deployments.schedules import drill_choice, update_schedules

    handed_on = arguments.site_file == handover.HANDED_ON
    if handed_on:
        site = handover.handed_on(sys.stdin.buffer)
    else:
        site, warnings = inspect_site_file(arguments.site_file)
        for warning in warnings:
            print(f"warning: {warning}", file=sys.stderr)
        if choice := drill_choice(site):
            print(choice)
    if arguments.check:
        print(f"{arguments.site_file} describes site {site.name} without a mistake; nothing was saved")
        return DONE
    if not handed_on and (user := handover.services_user()):
        return handover.hand_on(site, user)
    with prefect_api(timeout=10) as api:
        # Asked once here: saving would try for minutes before it says that nobody listens.
        api.get("health").raise_for_status()
    site, made = with_signing_secret(site)
    save_site(site)
    if made is not None:
        print(
            f"a secret that signs the backups was made: put a copy of {made} into your safe", file=sys.stderr
        )
    nodes = ", ".join(node.name for node in site.nodes)
    print(f"site {site.name} is saved: {nodes}")
    with prefect_api(timeout=30) as api:
        # The choices first: the server refuses a schedule for a site that its form does not offer.
        update_choices(api)
        lines = update_schedules(api, site)
        if site.oss is not None:
            tell(api, site.name, BACKUP_EXPECTED, {})
    for line in handover.without_what_follows(lines, site.name) if handed_on else lines:
        print(line)
    return DONE


def _sites(_: argparse.Namespace) -> int:
    from deployments.sites import list_sites

    for line in list_sites():
        print(line)
    return DONE


def _status(arguments: argparse.Namespace) -> int:
    from blocks import load_site
    from deployments.sites import site_names
    from deployments.status import next_runs, site_status
    from flows.check import ALARMING
    from flows.rules.verdict import Verdict

    worst = DONE
    for name in [arguments.site] if arguments.site else site_names():
        judged, lines = site_status(load_site(name))
        print("\n".join([*lines, next_runs(name)]))
        if judged.kind in ALARMING:
            worst = FAILED
        elif judged.kind is Verdict.DEGRADED and worst == DONE:
            worst = DEGRADED
    return worst


def _doctor(arguments: argparse.Namespace) -> int:
    from blocks import load_site
    from deployments.doctor.command import examine
    from deployments.doctor.links import Holds, worst

    found = []
    site = load_site(arguments.site)
    for link in examine(site, arguments.metrics_port, arguments.prometheus, arguments.alertmanager):
        print(link, flush=True)
        found.append(link)
    return {Holds.WARNING: DEGRADED, Holds.BROKEN: FAILED}.get(worst(found), DONE)


def _logs(arguments: argparse.Namespace) -> int:
    from deployments.logs import run_lines

    for line in run_lines(arguments.run):
        print(line)
    return DONE


def _backups(arguments: argparse.Namespace) -> int:
    from blocks import load_site
    from deployments.status import backup_lines

    for line in backup_lines(load_site(arguments.site)):
        print(line)
    return DONE


def _remove(arguments: argparse.Namespace) -> int:
    from deployments.sites import forget_site

    for line in forget_site(arguments.site, confirmed=arguments.yes):
        print(line)
    return DONE


def _setup(arguments: argparse.Namespace) -> int:
    _answering()
    from deployments import notifications
    from deployments.setup import setup

    setup()
    print("Block types and automation are in place")
    for line in notifications.install(arguments.notify) if arguments.notify else ():
        print(line)
    return DONE


def _serve(arguments: argparse.Namespace) -> int:
    _answering()
    from deployments.serve import serve_all

    serve_all(arguments.site, arguments.limit, None if arguments.no_watch else arguments.metrics_port)
    return DONE


def _watch(arguments: argparse.Namespace) -> int:
    from deployments.watch.service import watch_sites

    watch_sites(
        arguments.site,
        arguments.host,
        arguments.port,
        arguments.pace,
        with_input=arguments.with_input,
        calls=not arguments.no_calls,
    )
    return DONE


def _answering() -> None:
    from blocks.prefect_api import prefect_api
    from deployments.kept_runs import publish_kept

    with prefect_api(timeout=10) as api:
        api.get("health").raise_for_status()
        publish_kept(api)


def _run(arguments: argparse.Namespace) -> int:
    from blocks.prefect_api import prefect_api
    from deployments import runs
    from deployments.choices import CONFIRMATION
    from deployments.kept_runs import publish_kept

    if arguments.without_prefect:
        from deployments.break_glass import run_without_prefect

        return _ended(run_without_prefect(arguments.flow, arguments.site, arguments.param), arguments.timeout)
    with prefect_api(timeout=30) as api:
        deployment = runs.find_deployment(api, arguments.flow)
        given = [f"site={arguments.site}", *arguments.param]
        if CONFIRMATION in deployment.properties:
            # Typed with --site; the form asks for it because there the site is one click among many.
            given.insert(0, f"{CONFIRMATION}={arguments.site}")
        parameters = runs.parse_parameters(deployment, given)
        run = runs.start(api, deployment, parameters)
        publish_kept(api)
        if not arguments.watch:
            print(f"{deployment.name} is started: flow run {run.name} ({run.id})")
            return DONE
        run = runs.wait(api, run, arguments.timeout, _tell)
        for report in runs.reports(api, run.id):
            print(report)
    return _ended(run, arguments.timeout)


def _ended(run: "FlowRun", timeout: float) -> int:
    if not run.ended:
        return _complain(f"{run.name} is still {run.state} after {timeout:.0f} s; it goes on", NOT_ENDED)
    if run.state == "COMPLETED":
        return DEGRADED if run.ending == "Degraded" else DONE
    return _complain(
        f"{run.name}: {run.ending}: {run.message}", REFUSED if run.ending == "Refused" else FAILED
    )


def _tell(run: object) -> None:
    print(f"{getattr(run, 'name', '')}: {getattr(run, 'ending', '')}", file=sys.stderr)


def _receive(arguments: argparse.Namespace) -> int:
    import uvicorn

    from deployments.receiver import create_app, read_receiver_file

    uvicorn.run(create_app(read_receiver_file(arguments.config)), host=arguments.host, port=arguments.port)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
