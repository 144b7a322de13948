"""Who sees whom while all is well: kept on the nodes by `check`, and told where somebody does not."""

from dataclasses import replace

from blocks import HarborSite
from flows.machinery.operation import Operation
from tasks import clock
from tasks.balancer.states import Served
from tasks.observation.look import SiteLook
from tasks.observation.witnesses import Answers, note_of, witnesses_of
from tasks.operation import steps as operation
from tasks.operation.files import WITNESSED
from tasks.operation.sightings import BALANCER, REDIS, Sightings
from tasks.postgres.facts import NodeFacts


def sightings(site: HarborSite, seen: SiteLook, answers: Answers) -> Sightings:
    """Add this look to the note of who sees whom; what is known of a node that is not in service stays as it was."""
    note = replace(note_of(seen.every) or Sightings(0.0, {}), at=clock.now().wall)
    for facts in seen.every:
        if in_service(site, facts):
            found = witnesses_of(site, facts.name, answers, seen.every)
            addresses = answers.resolved.get(facts.name, frozenset()) | frozenset(facts.addresses)
            note = note.with_node(facts.name, found.seen_by, addresses)
    return note


def in_service(site: HarborSite, facts: NodeFacts) -> bool:
    """Whether everybody who deals with a node should see it: its server answers, its Harbor is healthy."""
    node = site.node(facts.name)
    serves = not node.runs_postgres or facts.accepting
    harbor = not node.runs_harbor or (facts.harbor is not None and facts.harbor.health == "healthy")
    return facts.reachable and serves and harbor


def remember(work: Operation, note: Sightings) -> None:
    """Keep the note on every database node that is reached."""
    paths = work.paths()
    if paths and note.nodes:
        work.run.try_each(operation.put_state, paths[:1], then=paths[1:], name=WITNESSED, text=note.to_json())


def blind(site: HarborSite, seen: SiteLook, answers: Answers, note: Sightings) -> list[str]:
    """Say which witnesses do not see a database node that is in service, each as a sentence.

    Of a node that was looked at for less than five minutes nothing is said yet.
    """
    told = (
        [f"the load balancer cannot be asked ({answers.problems[BALANCER]})"]
        if BALANCER in answers.problems
        else []
    )
    if REDIS in answers.problems:
        told.append(f"Redis does not tell its clients ({answers.problems[REDIS]})")
    reached = {facts.name for facts in seen.every if facts.reachable}
    for facts in seen.nodes:
        known = note.nodes.get(facts.name)
        if known is None or not known.settled or not in_service(site, facts):
            continue
        name, harbor = facts.name, site.node(facts.name).runs_harbor
        told += [
            f"{other} cannot open {name}'s PostgreSQL port" for other in sorted(reached - known.saw - {name})
        ]
        state = (answers.balancer or {}).get(name)
        drained = state is not None and state.served is Served.DRAINED
        if harbor and answers.balancer is not None and not drained and BALANCER not in known.saw:
            told.append(f"the load balancer's check does not see {name}")
        if harbor and answers.clients is not None and REDIS not in known.saw:
            told.append(f"Redis has no client at {name}'s addresses ({', '.join(sorted(known.addresses))})")
    return told
