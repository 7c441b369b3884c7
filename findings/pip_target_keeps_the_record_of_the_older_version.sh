#!/usr/bin/env bash
# Guess: `pip install --target FOLDER --upgrade PACKAGE` replaces the older version that lies in the folder.
# What happens: the package's own folder is replaced, but the older version's record (NAME-VERSION.dist-info) stays beside
#   the new one. Without --upgrade it is the other way round: pip warns, leaves the
#   older code where it is, exits with 0, and writes no new code but the new version's record.
# Version: pip 23.2.1. Source: pip/_internal/commands/install.py, _handle_target_dir. A distribution that takes
#   over the name of another can see by these records that its files may be mixed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/environment"
pip=("$folder/environment/bin/pip" install --quiet --no-deps --disable-pip-version-check)
records() { (cd "$1" && echo six-*.dist-info); }
version() { PYTHONPATH="$1" python3 -c "import six; print(six.__file__.startswith('$1'), six.__version__)"; }

"${pip[@]}" --target "$folder/upgraded" six==1.15.0
"${pip[@]}" --target "$folder/upgraded" --upgrade six==1.16.0
echo "upgraded: $(records "$folder/upgraded"); imported: $(version "$folder/upgraded")"
test "$(records "$folder/upgraded")" = "six-1.15.0.dist-info six-1.16.0.dist-info"
test "$(version "$folder/upgraded")" = "True 1.16.0"

"${pip[@]}" --target "$folder/kept" six==1.15.0
"${pip[@]}" --target "$folder/kept" six==1.16.0
echo "not upgraded: $(records "$folder/kept"); imported: $(version "$folder/kept")"
test "$(records "$folder/kept")" = "six-1.15.0.dist-info six-1.16.0.dist-info"
test "$(version "$folder/kept")" = "True 1.15.0"
