#!/usr/bin/env bash
# What users install works: build the wheel, install it into an empty environment, run a job of a new project from there.
set -euo pipefail
cd "$(dirname "$0")/.."
sources=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

rm -rf build dist
make --no-print-directory wheel
.venv/bin/python -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/runtime.txt
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps dist/kstate-*.whl
"$work/venv/bin/python" -m pip check

cd "$work" # away from the sources: what is imported is what was installed
installed=$("$work/venv/bin/python" -c 'import kstate; print(kstate.__file__)')
case $installed in
  "$work"/*) ;;
  *) echo "kstate was imported from $installed, not from the wheel" >&2; exit 1 ;;
esac
mkdir project
(cd project && "$work/venv/bin/python" "$sources/.ci/wheel_job.py")

# A new project passes its own tests and type checks with what was installed.
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$sources/requirements/dev.txt"
"$work/venv/bin/kstate" new first-job
(cd first-job && "$work/venv/bin/pytest" -q && "$work/venv/bin/mypy")
