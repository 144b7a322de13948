"""What the world does badly on purpose, and a write that it acknowledged."""

from dataclasses import dataclass, field

from tests.simulation.world.machines import Branch


@dataclass(eq=False)
class Write:
    """A write that was acknowledged: to whom, where, on which line and position, and when."""

    by: str  # `client` or `job`
    node: str
    branch: Branch
    lsn: int
    at: float
    origin: str


@dataclass
class Noise:
    """What the world does badly on purpose, until it is healed."""

    fence: str = "truthful"  # `truthful`, `fails`, `times out after acting`, `lies`
    late_program: dict[str, float] = field(default_factory=dict)  # by node: the next program comes so late
    lag: set[str] = field(default_factory=set)  # standbys that receive keep-alives and no WAL
    no_threads: set[str] = field(default_factory=set)  # nodes whose guard cannot start a thread
    symptoms: set[tuple[str, str]] = field(
        default_factory=set
    )  # by node and name: what looks show, see symptoms.py
    read_only: bool = False  # Harbor was put into read-only mode, and refuses clients by policy
