"""What the receiver of alerts needs to be told, and refuses to start without."""

from pathlib import Path

import pytest

from blocks import SiteFileInvalid
from deployments.receiver import (
    Route,
    read_receiver_file,
)
from tests.unit.test_alert_receiver import TOKEN


class TestSettings:
    """The receiver's own file."""

    def write(self, tmp_path: Path, text: str, token: str = TOKEN, mode: int = 0o600) -> Path:
        (tmp_path / "token").write_text(f"{token}\n")
        (tmp_path / "token").chmod(mode)
        (tmp_path / "receiver.yml").write_text(text)
        return tmp_path / "receiver.yml"

    GOOD = "token_file: token\nroutes:\n  - {alert: A, deployment: failover, parameters: {site: '{site}'}}\n"

    def test_a_correct_file_is_read_and_its_token_not_shown(self, tmp_path: Path) -> None:
        settings = read_receiver_file(self.write(tmp_path, self.GOOD))
        assert settings.token == TOKEN
        assert settings.routes == (Route("A", "failover", {"site": "{site}"}),)
        assert TOKEN not in repr(settings)

    def test_every_mistake_is_reported(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "token_file: token\nroute: []\nroutes: [{alert: A}]\n", "short", 0o644)
        with pytest.raises(SiteFileInvalid) as caught:
            read_receiver_file(path)
        text = str(caught.value)
        for expected in ("route: is not a known key", "routes.0: is not a route", "chmod 600", "short token"):
            assert expected in text

    def test_a_missing_token_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(SiteFileInvalid, match="token_file: is missing"):
            read_receiver_file(self.write(tmp_path, "routes: [{alert: A, deployment: b}]\n"))
