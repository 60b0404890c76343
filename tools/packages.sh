#!/usr/bin/env bash
# As root, installs the Debian packages that the test suites need besides what
# the product needs, if one of their programs is missing. Without root it does
# nothing: the suites say what they could not run.
set -euo pipefail
[ "$(id -u)" = 0 ] || exit 0
PATH=$PATH:/usr/sbin:/sbin

missing=()
need() { # need PACKAGE PROGRAM
  command -v "$2" >/dev/null || missing+=("$1")
}
need gcc gcc # for go test -race
need iproute2 ip
need iptables iptables
need xfsprogs mkfs.xfs
need openssl openssl
need curl curl
need util-linux setpriv
need softhsm2 softhsm2-util # a PKCS #11 token
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install --yes --no-install-recommends "${missing[@]}" >&2
