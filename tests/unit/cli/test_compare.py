"""Published curves that ``ohmq compare --reference`` draws."""

import pytest

from ohmq.cli.compare import check_kodak_sizes, reference_curves
from ohmq.errors import ConfigError


def test_references_by_name() -> None:
    names = [curve.name for curve in reference_curves(("kodak", "kodak-vtm", "kodak-ohm"))]
    assert names[:5] == [
        f"kodak-{name}" for name in ("bmshj2018-factorized", "bmshj2018-hyperprior", "mbt2018-mean", "bpg444", "vtm")
    ]
    assert names[5:] == ["kodak-ohm"]
    assert reference_curves(("kodak-ohm",))[0].label.endswith(", payload")  # among rates of whole files
    check_kodak_sizes([(512, 768)] * 18 + [(768, 512)] * 6)
    for shapes in ([(512, 768)] * 23, [(512, 768)] * 23 + [(512, 512)]):
        with pytest.raises(ConfigError, match="24 Kodak images"):
            check_kodak_sizes(shapes)
