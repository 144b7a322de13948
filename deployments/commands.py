"""What each command of `harbor-ha` does; each takes the parsed arguments and returns the exit status.

Imports that take seconds (prefect, the flows) are inside of the functions, so that `--help` is instant.
"""

import argparse
import sys
from typing import TYPE_CHECKING

from deployments.exits import DEGRADED, DONE, FAILED, NOT_ENDED, REFUSED

if TYPE_CHECKING:
    from deployments.runs import FlowRun


def apply(arguments: argparse.Namespace) -> int:
    from blocks import save_site
    from blocks.prefect_api import prefect_api
    from blocks.signing import with_signing_secret
    from blocks.site_file import inspect_site_file
    from deployments.choices import update_choices
    from deployments.events import expect_backups
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
        expect_backups(api, [site])
    for line in handover.without_what_follows(lines, site.name) if handed_on else lines:
        print(line)
    return DONE


def sites(_: argparse.Namespace) -> int:
    from deployments.sites import list_sites

    for line in list_sites():
        print(line)
    return DONE


def status(arguments: argparse.Namespace) -> int:
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


def doctor(arguments: argparse.Namespace) -> int:
    from blocks import load_site
    from deployments.doctor.command import examine
    from deployments.doctor.links import Holds, worst

    found = []
    site = load_site(arguments.site)
    for link in examine(site, arguments.metrics_port, arguments.prometheus, arguments.alertmanager):
        print(link, flush=True)
        found.append(link)
    return {Holds.WARNING: DEGRADED, Holds.BROKEN: FAILED}.get(worst(found), DONE)


def logs(arguments: argparse.Namespace) -> int:
    from deployments.logs import run_lines

    for line in run_lines(arguments.run):
        print(line)
    return DONE


def backups(arguments: argparse.Namespace) -> int:
    from blocks import load_site
    from deployments.status import backup_lines

    for line in backup_lines(load_site(arguments.site)):
        print(line)
    return DONE


def remove(arguments: argparse.Namespace) -> int:
    from deployments.sites import forget_site

    for line in forget_site(arguments.site, confirmed=arguments.yes):
        print(line)
    return DONE


def setup(arguments: argparse.Namespace) -> int:
    _answering()
    from deployments import notifications
    from deployments.setup import setup

    setup()
    print("Block types and automation are in place")
    for line in notifications.install(arguments.notify) if arguments.notify else ():
        print(line)
    return DONE


def serve(arguments: argparse.Namespace) -> int:
    _answering()
    from deployments.serve import serve_all

    serve_all(arguments.site, arguments.limit, None if arguments.no_watch else arguments.metrics_port)
    return DONE


def watch(arguments: argparse.Namespace) -> int:
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


def run(arguments: argparse.Namespace) -> int:
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
        return complain(f"{run.name} is still {run.state} after {timeout:.0f} s; it goes on", NOT_ENDED)
    if run.state == "COMPLETED":
        return DEGRADED if run.ending == "Degraded" else DONE
    return complain(
        f"{run.name}: {run.ending}: {run.message}", REFUSED if run.ending == "Refused" else FAILED
    )


def _tell(run: object) -> None:
    print(f"{getattr(run, 'name', '')}: {getattr(run, 'ending', '')}", file=sys.stderr)


def receive(arguments: argparse.Namespace) -> int:
    import uvicorn

    from deployments.receiver import create_app, read_receiver_file

    uvicorn.run(create_app(read_receiver_file(arguments.config)), host=arguments.host, port=arguments.port)
    return DONE


def complain(text: str, status: int) -> int:
    """Print to standard error, and return the exit status."""
    print(text, file=sys.stderr)
    return status
