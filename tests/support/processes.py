"""Python in another process."""

import os
import subprocess
import sys


def run_python(script: str, **environment: str) -> str:
    """Return the output of a script, or the last line of its error."""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    return (done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]).strip()
