#!/usr/bin/env bash
# Build the wheel, install it into an empty environment, and run the CLI outside the checkout.
# Dependencies are borrowed from the given interpreter's environment; babelscope itself must come from the wheel.
set -euo pipefail
python=$1
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m build --wheel --no-isolation --outdir "$work/dist" "$root" >/dev/null
if "$python" -m zipfile -l "$work"/dist/*.whl | awk 'NR>1 {print $1}' | grep -v -e '^babelscope' ; then
  echo "the wheel holds more than babelscope/" >&2; exit 1
fi
"$python" -m venv --without-pip "$work/venv"
site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
"$python" -m pip --python "$work/venv/bin/python" install --quiet --disable-pip-version-check --no-deps "$work"/dist/*.whl
# A .pth file appends the dependencies, but editable installs in there must not shadow the wheel.
echo "$site" > "$work/venv/lib/$(ls "$work/venv/lib")/site-packages/borrowed.pth"
cd "$work"
"$work/venv/bin/babelscope" ls models
where=$("$work/venv/bin/python" -c 'import babelscope; print(babelscope.__file__)')
case "$where" in "$work"/venv/*) ;; *) echo "imported $where, not the wheel" >&2; exit 1 ;; esac
"$work/venv/bin/python" -m babelscope capture run.acts --model organism --prompts kfrd-arithmetic --languages en,sw \
  --limit 8 --site resid.post@-1 2>/dev/null
"$work/venv/bin/babelscope" inspect run.acts
echo "wheel: ok"
