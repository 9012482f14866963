#!/usr/bin/env bash
# Makes a folder in which programs for ARM64 run under qemu-user: Debian's Python 3.11 and its libraries, and the
# runtimes as wheels, in the versions that the Python given here has. Nothing is done when it is there already.
#
#   system/arm64.sh PYTHON        FOLDER: $HAVERSACK_SYSROOT, or ~/.cache/haversack/arm64
#
# The packages are unpacked, never installed: no foreign architecture is added to this machine. Only qemu-user is
# installed (root), and only where it is missing.
set -euo pipefail

PYTHON=${1:-python3}
FOLDER=${HAVERSACK_SYSROOT:-$HOME/.cache/haversack/arm64}
SUITE=bookworm
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
DEBIAN=(python3.11 libstdc++6 libgomp1)
WHEELS=(numpy onnxruntime ai-edge-litert flatbuffers ml_dtypes protobuf packaging psutil safetensors cattrs attrs typing_extensions)

fail() { echo "arm64.sh: $1" >&2; exit 6; }

pins=$("$PYTHON" - "${WHEELS[@]}" <<'PINS'
import sys
from importlib.metadata import PackageNotFoundError, version

for name in sys.argv[1:]:
    try:
        print(f"{name}=={version(name)}")
    except PackageNotFoundError:
        sys.exit(f"arm64.sh: {sys.executable} has no {name}; install 'haversack[pack]' first")
PINS
) || exit 6
stamp=$({ cat "${BASH_SOURCE[0]}"; echo "$pins"; } | sha256sum | cut -d' ' -f1)

if ! command -v qemu-aarch64 > /dev/null; then
    [ "$(id -u)" = 0 ] || fail "qemu-aarch64 is missing; as root: apt-get install qemu-user"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends qemu-user > /dev/null
    echo "installed: qemu-user"
fi
if [ "$(cat "$FOLDER/stamp" 2> /dev/null)" = "$stamp" ]; then echo "nothing to do: $FOLDER"; exit; fi
[ -r "$KEYRING" ] || fail "$KEYRING is missing; as root: apt-get install debian-archive-keyring"

mkdir -p "$(dirname "$FOLDER")"
made=$(mktemp -d "$FOLDER.XXXXXX")
trap 'rm -rf "$made"' EXIT
mkdir -p "$made"/{root,site} "$made"/apt/{state/lists/partial,cache/archives/partial,etc/{sources.list.d,preferences.d}}
: > "$made/apt/state/status"
echo "deb [signed-by=$KEYRING] http://deb.debian.org/debian $SUITE main" > "$made/apt/etc/sources.list"
apt=(apt-get -qq -o Dir::State="$made/apt/state" -o Dir::State::status="$made/apt/state/status"
    -o Dir::Cache="$made/apt/cache" -o Dir::Etc="$made/apt/etc" -o Dir::Etc::sourcelist="$made/apt/etc/sources.list"
    -o Dir::Etc::sourceparts="$made/apt/etc/sources.list.d" -o APT::Architecture=arm64 -o APT::Architectures=arm64
    -o APT::Sandbox::User= -o Debug::NoLocking=1)
"${apt[@]}" update
"${apt[@]}" -y --download-only --no-install-recommends install "${DEBIAN[@]}" > /dev/null
for package in "$made"/apt/cache/archives/*.deb; do dpkg-deb --extract "$package" "$made/root"; done
rm -rf "$made/apt"
# shellcheck disable=SC2086 # one word for each pin
"$PYTHON" -m pip install -qq --disable-pip-version-check --no-deps --no-compile --target "$made/site" \
    --only-binary=:all: --implementation cp --python-version 3.11 --platform manylinux_2_34_aarch64 \
    --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux_2_17_aarch64 \
    --platform manylinux2014_aarch64 $pins
find "$made/site" -type d -name tests -prune -exec rm -rf {} +
echo "$pins" > "$made/versions"
echo "$stamp" > "$made/stamp"
chmod 755 "$made"
rm -rf "$FOLDER"
mv "$made" "$FOLDER"
trap - EXIT
echo "made: $FOLDER, $(du -sh "$FOLDER" | cut -f1)"
