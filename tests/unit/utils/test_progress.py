"""Progress reports: phases of known steps, and searches that may end early."""

import itertools

import pytest
from PIL import Image
from support.small_models import make_codec, photo_picture

from ohmq.codec import Codec
from ohmq.utils.progress import phase, steps, watch

Report = tuple[str, int, int]


def test_a_phase_may_end_early_and_hides_the_phases_inside() -> None:
    told: list[Report] = []
    with watch(lambda *report: told.append(report)):
        with phase("search", 4) as advance:
            list(steps([1, 2], "inside"))
            advance()
            advance()
        list(steps([1], "after"))
    assert told == [
        ("search", 0, 4),
        ("search", 1, 4),
        ("search", 2, 4),
        ("search", 4, 4),
        ("after", 0, 1),
        ("after", 1, 1),
    ]


def test_a_phase_ends_once_even_after_more_steps_than_expected() -> None:
    told: list[Report] = []
    with watch(lambda *report: told.append(report)), phase("search", 2) as advance:
        for _ in range(5):
            advance()
    assert told == [("search", 0, 2), ("search", 1, 2), ("search", 2, 2)]


def test_a_phase_that_fails_is_closed() -> None:
    told: list[Report] = []
    with watch(lambda *report: told.append(report)):
        with pytest.raises(ValueError, match="no"), phase("search", 3):
            raise ValueError("no")
        list(steps([1], "after"))
    assert told[1:] == [("search", 3, 3), ("after", 0, 1), ("after", 1, 1)]


def test_nobody_watches() -> None:
    with phase("search", 2) as advance:
        advance()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"psnr": 5.0}, "search for the PSNR"),
        ({"max_bytes": 10**6}, "search for the size"),
        ({"psnr_table": True, "layers": "all"}, "PSNR of the layers"),
    ],
)
def test_work_of_many_steps_is_reported(arguments: dict[str, object], name: str) -> None:
    codec: Codec = make_codec("photo")
    image: Image.Image = photo_picture(40, 50, 3)
    told: list[Report] = []
    with watch(lambda *report: told.append(report)):
        codec.compress(image, **arguments)  # type: ignore[arg-type]
    done = [done for phase_name, done, _ in told if phase_name == name]
    total = next(total for phase_name, _, total in told if phase_name == name)
    assert len(done) > 3 and (done[0], done[-1]) == (0, total)
    assert all(a < b for a, b in itertools.pairwise(done))
