"""The examples of docs/scale.md: the array of Slurm codes a whole list, the cluster is one that Ray takes, costs add up."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.small_models import make_codec

from ohmq.bulk.manifest import read_manifest
from ohmq.model_files.frozen_model import save_model
from ohmq.storage.open_store import open_store

ROOT = Path(__file__).parents[2]


def test_the_tasks_of_an_array_code_the_whole_list(tmp_path: Path) -> None:
    save_model(make_codec("static").frozen, tmp_path / "static.safetensors")
    digits = sorted((ROOT / "examples" / "digits").glob("*.png"))[:5]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{path}\n" for path in digits))
    script = str(ROOT / "examples" / "scale" / "slurm_array.sh")
    options = ["--model", str(tmp_path / "static.safetensors"), "--no-compiled", "--quiet"]
    coded = []
    for task in ("0", "1"):
        environment = {**os.environ, "OHMQ_PYTHON": sys.executable, "SLURM_ARRAY_TASK_ID": task}
        environment |= {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1"}
        command = ["bash", script, str(listed), str(tmp_path / "out"), *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        coded += [row.source for row in read_manifest(open_store(str(tmp_path / "out" / f"part-00{task}")))]
    assert sorted(coded) == [str(path) for path in digits]
    refused = subprocess.run(["bash", script, str(listed)], capture_output=True, text=True)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (2, "usage")


def test_ray_takes_the_cluster() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    text = (ROOT / "examples" / "scale" / "cluster.yaml").read_text()
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    assert config["available_node_types"]["worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert not re.search(r"(?i)access_key|secret|password|token", text)


def test_costs_follow_from_the_rate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("scale_costs", ROOT / "tools" / "scale_costs.py")
    assert spec and spec.loader
    costs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(costs)
    results = tmp_path / "bulk.json"
    results.write_text(json.dumps({"runs": {"local-1": {"images": 1000, "seconds": 500}}}))
    assert costs.main([str(results)]) == 0
    row = capsys.readouterr().out.splitlines()[4]
    # 10^6 images, 2 a second: 139 hours of a core, at $0.085
    assert row.startswith("| 1 million of 512×512, 0.3 MP | 139 | $12 | $5.90 | $0.80 |")
    page = (ROOT / "docs" / "scale.md").read_text()
    copy = tmp_path / "scale.md"
    copy.write_text(page.replace("| 1 million of", "| 2 million of"))
    assert costs.main([str(ROOT / "results" / "bulk.json"), "--write", str(copy)]) == 0
    assert copy.read_text() == page
