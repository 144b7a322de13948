"""What the operator had in harbor.yml and in the override, back onto a node that has neither."""

from collections.abc import Iterator

import yaml

from blocks import HarborSite
from tasks.backup.night.configuration import named_files
from tasks.backup.restore.restore_config import Configuration
from tasks.harbor import config, override
from tasks.hosts.connection import Host
from tasks.outcome import Outcome, changed, unchanged


def put_back_settings(site: HarborSite, host: Host, configuration: Configuration) -> Outcome:
    """Write the backup's harbor.yml, its override and the files that it names, where the node has none.

    Before `configure`, which writes the site's settings into them and keeps the others: rendered from the template, a
    proxy, a metric's port or a log server would be lost with the site. What this version cannot live with is left out
    and told; a site that is lost does not wait for that.

    Args:
        site: its directories and version.
        host: the node that becomes Harbor.
        configuration: of a backup that the site's key signed: an override is as good as root on the node.
    """
    put, left_out = [], []
    text = _text(configuration, "/harbor.yml")
    problems = config.objections(text, site)
    if text is not None and not problems:
        put += [
            path for path in _named(text) if _put_missing(host, path, configuration.files.get(path), 0o644)
        ]
        path = f"{site.harbor.install_dir.rstrip('/')}/harbor.yml"
        put += [path] if _put_missing(host, path, text.encode("utf-8", "surrogateescape"), 0o600) else []
    left_out += [f"harbor.yml: {problem}" for problem in problems]
    extra = _text(configuration, "/docker-compose.override.yml")
    problems = override.objections(extra, site)
    if extra is not None and not problems:
        path = override.path(site)
        put += [path] if _put_missing(host, path, extra.encode(), 0o600) else []
    left_out += [f"the override: {problem}" for problem in problems]
    told = f"; not taken from the backup: {'; '.join(left_out)}" if left_out else ""
    if put:
        return changed(f"put back {', '.join(put)}{told}", left_out=left_out)
    return unchanged(f"nothing to put back{told}", left_out=left_out)


def _text(configuration: Configuration, ending: str) -> str | None:
    data = configuration.ending(ending)
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _named(text: str) -> Iterator[str]:
    # It was just rendered, so it can be read; certificate and key of Harbor itself are the site file's.
    document = yaml.safe_load(text)
    yield from (path for path in named_files(document) if path.startswith("/"))


def _put_missing(host: Host, path: str, content: bytes | None, mode: int) -> bool:
    return content is not None and host.read(path) is None and host.put(path, content, mode=mode)
