"""The nodes: addresses, host keys that somebody has confirmed, and a key that may log in."""

from collections.abc import Mapping

from blocks.keys import fingerprint, host_key_flaw, normal_host_key
from deployments.init import made
from deployments.init.answers import AGAIN, KEEP, Answers
from deployments.init.defaults import ASK_POSTGRES, postgres_major
from deployments.init.draft import Draft, reference
from deployments.init.judge import ADDRESS
from deployments.init.questions import Question
from deployments.init.trials import LIMIT_S, node_of, try_login
from tasks.errors import HarborHaError
from tasks.hosts.connection import connect
from tasks.hosts.ssh import read_host_key

SSH_KEY = "keys/id_ed25519"
NAMES = ("node-a", "node-b")
DEFAULT_MAJOR = 15


def ensure_key(draft: Draft, answers: Answers, own: str) -> str:
    """Have a key to log in with, and return its line for authorized_keys.

    Args:
        own: a private key of the operator's; empty: one is made.
    """
    if draft.write_new(SSH_KEY, own or made.ssh_key()):
        answers.tell(f"{draft.directory / SSH_KEY} is the key that the nodes are logged in to with")
    line = made.public_line((draft.directory / SSH_KEY).read_text(), "harbor-ha")
    draft.write_new(f"{SSH_KEY}.pub", f"{line}\n", mode=0o644)
    return line


def ask_nodes(draft: Draft, answers: Answers, given: Mapping[str, str]) -> None:
    """Put name and address of each node into the draft, unless nodes stand there."""
    if draft.value("nodes"):
        return
    draft.title(
        "nodes", "Two machines. host_key was confirmed when this was written; another one is refused."
    )
    for name, text in (given or dict.fromkeys(NAMES, "")).items():
        put_address(draft, name, text or _ask_address(answers, name, ""))


def settle_node(draft: Draft, name: str, answers: Answers, host_key: str, *, test: bool) -> None:
    """Pin a node's host key, and try to log in until it works or the operator goes on without.

    Args:
        host_key: a fingerprint or a key that the operator has from elsewhere; may be empty.
        test: whether to log in.
    """
    while True:
        problems = _pin(draft, name, answers, host_key)
        node = node_of(draft, name)
        if test and node is not None and not problems:
            problems = try_login(node)
        if not problems:
            return
        said = answers.trouble(name, problems)
        if said == KEEP:
            return
        if said == AGAIN:
            put_address(draft, name, _ask_address(answers, name, draft.text(f"nodes.{name}.address")))


def put_address(draft: Draft, name: str, text: str) -> None:
    """Put `[USER@]ADDRESS[:PORT]` into the draft; the key of another machine is forgotten."""
    parts = ADDRESS.fullmatch(text)
    assert parts is not None, "it was judged before"
    node = f"nodes.{name}"
    if draft.value(f"{node}.address") not in (None, parts["address"]):
        draft.value(node).pop("host_key", None)
    draft.put(f"{node}.address", parts["address"])
    if parts["port"]:
        draft.put(f"{node}.port", int(parts["port"]))
    draft.put(f"{node}.user", parts["user"] or "root", "root, or a user who may run sudo -n for everything")
    draft.put(f"{node}.private_key", reference(SSH_KEY))


def find_major(draft: Draft, answers: Answers) -> int:
    """Ask the nodes which PostgreSQL their release has."""
    found: dict[str, int] = {}
    for name in draft.value("nodes"):
        node = node_of(draft, name)
        try:
            said = (
                "" if node is None else connect(node).run(["sh", "-c", ASK_POSTGRES], timeout=LIMIT_S).stdout
            )
        except HarborHaError:
            continue  # was told when the login was tried
        if (major := postgres_major(said)) is not None:
            found[name] = major
    if len(set(found.values())) > 1:
        all_found = ", ".join(f"{name} has {major}" for name, major in found.items())
        answers.trouble("PostgreSQL", [f"{all_found} -> both nodes need the same: set postgres.major"])
    return min(found.values(), default=DEFAULT_MAJOR)


def _ask_address(answers: Answers, name: str, default: str) -> str:
    return answers.answer(Question(f"nodes.{name}", f"Address of {name}, as [USER@]ADDRESS[:PORT]"), default)


def _pin(draft: Draft, name: str, answers: Answers, given: str) -> list[str]:
    if draft.value(f"nodes.{name}.host_key"):
        return []
    line = normal_host_key(given)
    if given and not given.startswith("SHA256:"):
        flaw = host_key_flaw(line)
        if flaw:
            return [f"The host key {flaw} -> the line of /etc/ssh/ssh_host_ed25519_key.pub on {name}"]
        draft.put(f"nodes.{name}.host_key", line)
        return []
    address, port = draft.text(f"nodes.{name}.address"), int(draft.text(f"nodes.{name}.port") or 22)
    try:
        found = read_host_key(address, port)
    except HarborHaError as error:
        return [str(error)]
    shown = fingerprint(found)
    if given and given != shown:
        return [f"{address} answers with the host key {shown}, not {given} -> find out who answers there"]
    # On the machine itself, not over the network: that is what the question is about.
    compare = f"ssh-keygen -lf /etc/ssh/ssh_host_{_kind(found)}_key.pub"
    if not given and not answers.confirm(
        f"{name} ({address}) has the host key {shown}; `{compare}` there says the same?"
    ):
        return [f"The host key {shown} was not confirmed -> compare it on {name}: {compare}"]
    draft.put(f"nodes.{name}.host_key", found, shown)
    return []


def _kind(host_key: str) -> str:
    kind = host_key.split()[0]
    return "ed25519" if "ed25519" in kind else "ecdsa" if "ecdsa" in kind else "rsa"
