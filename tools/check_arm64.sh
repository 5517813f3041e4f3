#!/bin/sh
# Decode the golden files under an emulated ARM processor, and compare symbols and pixels with this machine's.
#
#     tools/check_arm64.sh [FOLDER [RESULT]]
#
# Needs Debian or Ubuntu, root for apt-get (qemu-user-static is installed if it is missing), 3 GB in FOLDER, and some ten
# minutes. Python comes from Debian's arm64 packages, everything else from PyPI's wheels for Linux on ARM: the base
# dependencies that pyproject.toml names for that machine. ONNX Runtime is not among them; it does not run under QEMU.
set -eu
folder=$(realpath -m "${1:-arm64}")
project=$(realpath "$(dirname "$0")/..")
result=$(realpath -m "${2:-$project/results/arm64.json}")
python=${PYTHON:-python3}
archive="$folder/apt"
mkdir -p "$folder/root" "$folder/site" "$archive/lists/partial" "$archive/archives/partial"

command -v qemu-aarch64-static >/dev/null || apt-get install -y qemu-user-static

if [ ! -x "$folder/root/usr/bin/python3.11" ]; then
    touch "$archive/status"
    cat >"$archive/apt.conf" <<EOF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Install-Recommends "false";
Dir::State "$archive";
Dir::State::status "$archive/status";
Dir::Cache "$archive";
EOF
    APT_CONFIG="$archive/apt.conf" apt-get -q update
    APT_CONFIG="$archive/apt.conf" apt-get -q install -y --download-only python3.11 libgomp1 libstdc++6
    for package in "$archive"/archives/*.deb; do dpkg -x "$package" "$folder/root"; done
fi

if [ ! -d "$folder/site/torch" ]; then
    # Markers of dependencies are evaluated for this machine, so the packages are named one by one.
    PIP_CONSTRAINT='' "$python" -m pip install -q --no-deps --target "$folder/site" --upgrade \
        --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 \
        --python-version 3.11 --implementation cp --abi cp311 --abi abi3 --abi none --only-binary=:all: \
        torch==2.6.0 sympy==1.13.1 mpmath networkx jinja2 MarkupSafe fsspec typing-extensions \
        numpy Pillow safetensors click numba llvmlite filelock
fi

export OMP_NUM_THREADS=1
PYTHONPATH="$project/src" "$python" "$project/tools/check_arm64.py" "$folder/here.json"
qemu-aarch64-static -cpu max -L "$folder/root" \
    -E PYTHONPATH="$folder/site:$project/src" -E NUMBA_CACHE_DIR="$folder/numba" \
    "$folder/root/usr/bin/python3.11" "$project/tools/check_arm64.py" "$folder/there.json" --compare "$folder/here.json"

# The files that were compressed there are decoded here as well; the result keeps neither files nor pixels.
PYTHONPATH="$project/src" "$python" "$project/tools/check_arm64.py" "$folder/back.json" --compare "$folder/there.json"
"$python" - "$folder" "$result" <<'EOF'
import json, pathlib, subprocess, sys
folder, result = map(pathlib.Path, sys.argv[1:])
there, back = (json.loads((folder / name).read_text()) for name in ("there.json", "back.json"))
for row in (*there["files"].values(), *back["files"].values()):
    row.pop("file", None), row.pop("pixels", None)
qemu = subprocess.run(["qemu-aarch64-static", "--version"], capture_output=True, text=True).stdout.splitlines()[0]
crossed = {name: row for name, row in back["files"].items() if name.endswith("there")}
content = {"emulator": qemu, "emulated": there["versions"], "native": there["other_versions"], "files": there["files"]}
content |= {"decoded_natively": crossed, "differ": there["differ"] + back["differ"]}
result.write_text(json.dumps(content, indent=1) + "\n")
print(f"{result}: {len(there['files'])} files, {len(content['differ'])} differ")
EOF
