import pytest

from ohmq.evaluation.bd_rate import bd_rate
from ohmq.evaluation.published import published_curve, published_names, published_table

MNIST = "mnist-ohm-c0-16-lambda0.95-0.999"


def test_all_tables_are_there() -> None:
    points = {name: len(published_curve(name).psnr_db) for name in published_names()}
    assert points == {
        "mnist-ohm-c0-16-lambda0.85-0.9": 16,
        "mnist-ohm-c0-16-lambda0.9-0.999": 16,
        "mnist-ohm-c0-16-lambda0.95-0.999": 16,
        "mnist-ohm-c8-16-lambda0.85-0.9": 9,
        "mnist-ohm-c8-16-lambda0.9-0.999": 9,
        "mnist-ohm-c8-16-lambda0.95-0.999": 9,
        "kodak-ohm": 17,
        "kodak-int": 17,
        "kodak-jpeg": 9,
        "kodak-jpeg2000": 9,
        "kodak-webp": 8,
        "kodak-bpg444": 5,
        "kodak-av1": 8,
        "kodak-vtm": 5,
        "kodak-bmshj2018-factorized": 6,
        "kodak-bmshj2018-hyperprior": 6,
        "kodak-mbt2018-mean": 6,
        "kodak-cheng2020-anchor": 6,
        "kodak-jpeg-pillow": 9,
        "kodak-webp-pillow": 9,
        "kodak-avif-pillow": 7,
    }


@pytest.mark.parametrize(
    ("name", "row", "values"),
    [
        ("mnist-ohm-c0-16-lambda0.85-0.9", 0, (0.0625, 0.0178, 0.0230, 12.732, 0.2938)),
        ("mnist-ohm-c0-16-lambda0.9-0.999", 8, (0.5625, 0.2493, 0.2557, 21.794, 0.9122)),
        (MNIST, 15, (1.0, 0.5764, 0.5832, 23.256, 0.9404)),
        ("mnist-ohm-c8-16-lambda0.85-0.9", 8, (1.0, 0.1593, 0.1661, 21.127, 0.8994)),
        ("mnist-ohm-c8-16-lambda0.9-0.999", 0, (0.0, 0.1701, 0.1765, 19.555, 0.8363)),
        ("mnist-ohm-c8-16-lambda0.95-0.999", 4, (0.5, 0.3397, 0.3463, 22.924, 0.9324)),
        ("kodak-ohm", 16, (480, 0.8094, 0.8107, 28.915, 0.9584)),
        ("kodak-int", 8, (64, 0.3950, 0.3927, 28.475, 0.9585)),
        ("kodak-cheng2020-anchor", 3, (0.417, 33.39)),
        ("kodak-avif-pillow", 6, (1.009, 36.43)),
    ],
)
def test_rows_as_printed(name: str, row: int, values: tuple[float, ...]) -> None:
    assert tuple(column[row] for column in published_table(name).columns.values()) == values


@pytest.mark.parametrize("name", published_names())
def test_tables_are_plausible(name: str) -> None:
    table = published_table(name)
    assert len({len(column) for column in table.columns.values()}) == 1
    assert set(table.definitions) == set(table.columns)
    assert table.source
    assert table.label
    assert table.data == ("MNIST, 10,000 test images" if name.startswith("mnist") else "Kodak, 24 images")
    rates = published_curve(name).rates_bpp
    assert list(rates) == sorted(rates)
    assert rates[0] >= 0
    assert rates[-1] < 2
    assert all(8 < psnr < 40 for psnr in published_curve(name).psnr_db)


def test_curves_say_which_rate_they_hold() -> None:
    assert published_curve(MNIST).rate == "payload_bpp"
    assert published_curve(MNIST).rates_bpp[0] == 0.0443
    assert published_curve("kodak-jpeg").rate == "file_bpp"
    assert "ifnspaml/OHMQ" in published_curve("kodak-ohm").source


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(
        ValueError, match=r"unknown published curve 'kodak-hevc'; known: mnist-ohm-c0.*kodak-avif-pillow"
    ):
        published_curve("kodak-hevc")


def test_curves_can_be_compared() -> None:
    anchor, test = published_curve("kodak-jpeg-pillow"), published_curve("kodak-webp-pillow")
    result = bd_rate(anchor.rates_bpp, anchor.psnr_db, test.rates_bpp, test.psnr_db)
    assert -45 < result.percent < -20
    ohm = published_curve("kodak-ohm")  # begins with a rate of 0
    assert bd_rate(ohm.rates_bpp, ohm.psnr_db, ohm.rates_bpp, ohm.psnr_db).percent == 0
