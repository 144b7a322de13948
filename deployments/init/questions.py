"""What init asks for, as a table. Plain data: the command line is built from it, and must stay instant."""

from dataclasses import dataclass

KINDS = ("haproxy", "none")


@dataclass(frozen=True)
class Question:
    """One answer that init cannot find out.

    Attributes:
        path: key of the site file, dotted.
        text: what is asked.
        default: taken for an empty answer; `{a.b}` is the answer to another question. Some are found out
            (`deployments.init.defaults`).
        file: the secret is kept in this file beside the site file; empty: it stands in the site file.
        optional: an empty answer leaves the key out.
        choices: the only answers, where there are so few.
        number: the answer is a number.
        words: the answer is a program with its arguments.
        when: path and value of another answer without which this is not asked.
        alias: a shorter name of the option.
    """

    path: str
    text: str
    default: str = ""
    file: str = ""
    optional: bool = False
    choices: tuple[str, ...] = ()
    number: bool = False
    words: bool = False
    when: tuple[str, str] | None = None
    alias: str = ""

    @property
    def option(self) -> str:
        """Name of the option that answers it; a secret is read from a file, never from the command line."""
        name = self.alias or "--" + self.path.replace(".", "-").replace("_", "-")
        return f"{name}-file" if self.file else name


@dataclass(frozen=True)
class Topic:
    """Questions that are tested together, and asked again together.

    Attributes:
        trial: name of the test in `deployments.init.trials`; empty: the answers cannot be tried.
        needs: without an answer to this question nothing of the topic is written, as for a site without a bucket.
    """

    title: str
    questions: tuple[Question, ...]
    trial: str = ""
    needs: str = ""


HAPROXY = ("balancer.kind", "haproxy")

SITE = Topic("The site", (Question("name", "Short name of the site", "main", alias="--name"),))

TOPICS = (
    Topic(
        "Clients and the load balancer",
        (
            Question("harbor.hostname", "Host name that clients use for Harbor", alias="--hostname"),
            Question("balancer.address", "Address of the load balancer", "{harbor.hostname}"),
            Question("balancer.kind", "Kind of load balancer", "haproxy", choices=KINDS),
            Question("balancer.admin_host", "Address of its runtime API", "{balancer.address}", when=HAPROXY),
            Question("balancer.admin_port", "Port of it", "9999", number=True, when=HAPROXY),
        ),
        trial="balancer",
    ),
    Topic(
        "The shared Redis",
        (
            Question("redis.host", "Address of Redis, as the nodes reach it"),
            Question("redis.port", "Port of Redis", "6379", number=True),
            Question("redis.password", "Password of Redis", file="secrets/redis"),
        ),
        trial="redis",
    ),
    Topic(
        "The NAS",
        (
            Question("nas.path", "Where the NAS is mounted on every node", "/mnt/harbor"),
            Question(
                "nas.source",
                "What to mount there, such as nas.example.com:/harbor; empty: it is mounted already",
                optional=True,
            ),
        ),
        trial="nas",
    ),
    Topic(
        "The bucket for backups",
        (
            Question("oss.bucket", "Name of the OSS bucket; empty: no backups", optional=True),
            Question("oss.region", "Region of the bucket, such as cn-shanghai"),
            Question("oss.endpoint", "Endpoint", "https://oss-{oss.region}-internal.aliyuncs.com"),
            Question("oss.access_key_id", "AccessKey ID"),
            Question("oss.access_key_secret", "AccessKey secret", file="secrets/oss-access-key-secret"),
        ),
        trial="oss",
        needs="oss.bucket",
    ),
    Topic(
        "The schedules",
        (Question("backup.timezone", "Time zone of the schedules", alias="--timezone"),),
    ),
    Topic(
        "Fencing",
        (
            Question(
                "failover.fence_command",
                "Command that switches a machine off, with {node} or {address}; empty: none yet",
                optional=True,
                words=True,
            ),
        ),
    ),
)

RELEASE = Topic(
    "Harbor's release",
    (
        Question("harbor.installer", "Harbor's offline installer: a file, or an https:// address"),
        Question("harbor.sha256", "Its SHA-256 checksum"),
        Question("harbor.version", "Its version, such as v2.12.4"),
    ),
)

QUESTIONS = tuple(question for topic in (SITE, *TOPICS, RELEASE) for question in topic.questions)
