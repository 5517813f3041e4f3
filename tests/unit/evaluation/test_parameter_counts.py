import json

import pytest

from ohmq.cli import main
from ohmq.evaluation.parameter_counts import count_parameters, variants
from ohmq.models import MnistConfig, OpenImagesConfig, PhotoConfig


@pytest.mark.parametrize(
    ("config", "ours"),
    [
        (MnistConfig(), (7120, 7865, 266288, 135488, 16, 416777)),
        (MnistConfig(channels_max=32), (7120, 7865, 532544, 270656, 32, 818217)),
        (MnistConfig(num_symbols=16), (7120, 7865, 16688, 8768, 16, 40457)),
        (MnistConfig(quantizer="integer"), (4800, 5561, 0, 704, 0, 11065)),
        (MnistConfig(quantizer="integer", channels_max=32), (7120, 7865, 0, 1408, 0, 16393)),
        (OpenImagesConfig(), (3447360, 36646563, 14761920, 18916800, 480, 73773123)),
        (OpenImagesConfig(quantizer="integer"), (3447360, 36646563, 0, 21120, 0, 40115043)),
        # Counted by hand: the published tables leave it out.
        (OpenImagesConfig(quantizer="integer", channels_max=960), (5522400, 138276003, 0, 42240, 0, 143840643)),
        (OpenImagesConfig(channels_max=16), (1441488, 1479075, 16928, 4647872, 16, 7585379)),
    ],
)
def test_counts_are_the_published_ones(config: MnistConfig | OpenImagesConfig, ours: tuple[int, ...]) -> None:
    counts = count_parameters(config)
    assert tuple(counts.ours) == ours
    assert sum(counts.ours[:5]) == counts.ours.total
    assert counts.published is not None
    assert sum(counts.published[:5]) == counts.published.total == counts.ours.total
    assert counts.published.prior == counts.ours.prior


def test_the_published_split_moves_two_layers() -> None:
    published = count_parameters(MnistConfig()).published
    assert published is not None
    last, first = 16 * 32 * 9 + 32, 32 * 16 * 9 + 16
    assert published[:3] == (7120 - last, 7865 - first, 266288 + last + first)
    photos = count_parameters(OpenImagesConfig(channels_max=16)).published
    assert photos is not None
    last, first = (480 * 16 * 9 + 16) + 2 * 16, (16 * 16 * 9 + 16) + 2 * 16
    assert photos[:3] == (1441488 - last, 1479075 - first, 16928 + last + first)
    assert count_parameters(PhotoConfig()).published is None


def test_one_row_where_s_changes_nothing() -> None:
    made = variants("mnist", ["ohm", "integer"], [8, 16], [4, 16, 64], "static")
    assert [(c.quantizer, c.channels_max, c.num_symbols) for c in made] == [
        *(("ohm", 8, s) for s in (4, 16, 64)),
        *(("ohm", 16, s) for s in (4, 16, 64)),
        ("integer", 8, 256),
        ("integer", 16, 256),
    ]


def run(arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stop:
        main(["parameters", *arguments.split()])
    streams = capsys.readouterr()
    return int(stop.value.code or 0), streams.out + streams.err


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = run("", capsys)
    assert code == 0
    assert "openimages ohm 480 32 3,447,360 36,646,563 14,761,920 18,916,800 480 73,773,123" in " ".join(text.split())
    rows = [tuple(line.split()[:3]) for line in text.splitlines()]
    assert rows[-2:] == [("openimages", "integer", "480"), ("openimages", "integer", "960")]
    assert ("openimages", "ohm", "960") not in rows  # no published run
    assert text.splitlines()[-1].split()[4:6] == ["5,522,400", "138,276,003"]
    code, text = run("--split published --channels 16", capsys)
    assert "275,552" in text
    assert "266,288" not in text
    (row,) = json.loads(run("--family mnist --channels 4 --num-symbols 8 --quantizer ohm --json", capsys)[1])
    assert row["model"]["num_symbols"] == 8
    assert row["ours"]["total"] == row["published"]["total"]
    assert run("--family photo", capsys)[1].splitlines()[1].startswith("photo")
    for wrong in ("--family photo --split published", "--family photo --quantizer integer"):
        code, text = run(wrong, capsys)
        assert code == 2
        assert "photo codec" in text
