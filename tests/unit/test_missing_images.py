"""How many images may be gone before a night is no backup any more: a share that the site states."""

from collections.abc import Callable
from pathlib import Path

import pytest

from blocks import HarborSite
from flows.nightly_backup import ImagesElsewhere, _require_images
from tasks.outcome import Outcome, unchanged
from tests.unit.harbor_site import make_site

Allowing = Callable[[int], HarborSite]


@pytest.fixture
def allowing(tmp_path: Path) -> Allowing:
    """The site, of whose images so many percent may be missing."""
    site = make_site(tmp_path)
    return lambda percent: site.model_copy(
        update={"backup": site.backup.model_copy(update={"missing_percent": percent})}
    )


def closure(missing: int, *, present: int = 0, follow: int = 0, wrong: int = 0) -> Outcome:
    """What the check of the closure tells of images: gone at the source, in the bucket, not yet, and wrong in it."""
    return unchanged(
        "checked",
        present=present,
        missing_in_bucket_count=follow,
        wrong_count=wrong,
        missing_at_source_count=missing,
        missing_at_source=[f"sha256:{number:064x}" for number in range(min(missing, 20))],
    )


def test_a_fifth_may_be_missing_unless_the_site_says_otherwise(tmp_path: Path) -> None:
    """A directory of the NAS that is not mounted takes some of the images with it, and hardly ever all."""
    site = make_site(tmp_path)
    _require_images(site, closure(20, present=80))
    with pytest.raises(ImagesElsewhere):
        _require_images(site, closure(21, present=79))


@pytest.mark.parametrize(
    ("percent", "missing", "of", "enough"),
    [
        (0, 0, 1000, True),
        (0, 1, 1000, False),
        (5, 50, 1000, True),
        (5, 51, 1000, False),
        (50, 1, 2, True),
        (50, 2, 3, False),
        (99, 1, 1, False),
        (100, 1000, 1000, True),
    ],
)
def test_the_share_is_the_sites_own(
    allowing: Allowing, percent: int, missing: int, of: int, enough: bool
) -> None:
    found = closure(missing, present=of - missing)
    if enough:
        _require_images(allowing(percent), found)
    else:
        with pytest.raises(ImagesElsewhere, match=f"{missing:,} of {of:,} blobs"):
            _require_images(allowing(percent), found)


def test_images_that_follow_the_next_night_are_not_missing_and_count_among_all(allowing: Allowing) -> None:
    """The first night of a large Harbor ends when its time is used up: most images are at their source still."""
    _require_images(allowing(10), closure(10, present=5, follow=85))
    with pytest.raises(ImagesElsewhere, match="11 of 100"):
        _require_images(allowing(10), closure(11, present=5, follow=84))


def test_what_is_wrong_in_the_bucket_is_there_at_the_source(allowing: Allowing) -> None:
    _require_images(allowing(10), closure(1, present=8, wrong=1))


def test_a_harbor_without_images_has_lost_none(allowing: Allowing) -> None:
    _require_images(allowing(0), closure(0))


def test_the_refusal_says_how_many_the_limit_some_of_them_and_where_to_look(allowing: Allowing) -> None:
    site = allowing(20)
    with pytest.raises(ImagesElsewhere) as refused:
        _require_images(site, closure(1500, present=500))
    told = str(refused.value)
    assert "1,500 of 2,000 blobs are missing at the source, more than 20 %" in told
    assert f"sha256:{2:064x} among them" in told
    assert f"sha256:{3:064x}" not in told
    assert site.nas.registry in told
    assert "backup.missing_percent" in told
