#!/usr/bin/env bash
# Check coding and training on this machine's GPU, in under ten minutes: tools/check_gpu.sh
# Exit code 0: all is well; 1: a check failed; 3: torch finds no GPU here.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
device=$("$PYTHON" -c 'from ohmq.runtime.devices import available_devices; print(available_devices()[-1])') || exit 1
if [ "$device" = cpu ]; then
    echo "no GPU: torch $("$PYTHON" -c 'import torch; print(torch.__version__)') finds the CPU alone; nothing was checked" >&2
    exit 3
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

check() { # check NAME COMMAND...: run a command; show its output only if it fails
    local name=$1 start=$SECONDS
    shift
    if timeout 400 "$@" >"$work/log" 2>&1; then
        echo "ok    $name ($((SECONDS - start)) s)"
    else
        echo "FAIL  $name ($((SECONDS - start)) s): $*"
        tail -n 40 "$work/log"
        failed=1
    fi
}
ohmq() { "$PYTHON" -m ohmq "$@"; }
export -f ohmq
export PYTHON

echo "device $device, torch $("$PYTHON" -c 'import torch; print(torch.__version__)')"
for place in cpu "$device"; do
    check "compress on $place" bash -c "ohmq compress examples/photos/coffee.png -o '$work/$place.ohm' --device $place"
done
for made in cpu "$device"; do
    for shown in cpu "$device"; do
        check "file of $made on $shown" \
            bash -c "ohmq decompress '$work/$made.ohm' -o '$work/$made-$shown.png' --device $shown"
    done
    check "pixels of the file of $made" "$PYTHON" - "$work/$made-cpu.png" "$work/$made-$device.png" <<'PIXELS'
import sys
import numpy as np
from PIL import Image
first, second = (np.asarray(Image.open(name), int) for name in sys.argv[1:])
other = np.abs(first - second)
print(f"{(other > 0).mean():.2e} of the values differ, {(other > 1).mean():.2e} by more than 1, at most by {other.max()}")
sys.exit(int((other > 0).mean() > 0.01 or (other > 1).mean() > 1e-4))
PIXELS
    tail -n 1 "$work/log"
done
check "evaluate" bash -c "ohmq evaluate examples/photos/chelsea.png --channels 100 --device $device"
check "published command line" "$PYTHON" compress.py --image_path examples/digits --checkpoint mnist-ohm \
    --output_dir "$work/published" --device "$device"
check "GPU tests: coding, ambient state, training" "$PYTHON" -m pytest -q -m gpu tests/end_to_end/test_gpu.py
tail -n 1 "$work/log"
[ $failed = 0 ] && echo "all checks passed on $device in $SECONDS s" || echo "checks failed on $device" >&2
exit $failed
