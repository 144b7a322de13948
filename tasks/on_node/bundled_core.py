"""Whether a Harbor's core has its rows in the database container that Harbor brings along."""

# Harbor's own names for that container, in every version; without a host it is the default.
BUNDLED_NAMES = ("", "postgresql", "harbor-db")
# What a core was made with, and what the next one would be made with.
ASK_CORE = (
    "docker",
    "inspect",
    "--type",
    "container",
    "--format",
    "{{range .Config.Env}}{{println .}}{{end}}",
    "harbor-core",
)
CORE_FILE = "/common/config/core/env"


def uses_bundled(environment: str) -> bool:
    """Tell whether core's environment names the bundled database.

    Args:
        environment: its lines; what does not name any database says nothing.
    """
    hosts = [
        line.partition("=")[2].strip()
        for line in environment.splitlines()
        if line.startswith("POSTGRESQL_HOST=")
    ]
    return bool(hosts) and hosts[-1] in BUNDLED_NAMES
