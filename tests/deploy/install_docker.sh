#!/usr/bin/env bash
# Installs what the tests of the containers need, as far as it is missing: Docker Compose 2, and with --engine an engine
# and debootstrap. On Debian, as root; elsewhere it does nothing, and the tests say what they lack.
set -euo pipefail
[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || exit 0
export DEBIAN_FRONTEND=noninteractive

missing=()
command -v docker >/dev/null || missing+=(docker.io)
if [ "${1:-}" = --engine ]; then
    command -v dockerd >/dev/null || missing+=(docker.io)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
fi
if [ ${#missing[@]} -gt 0 ]; then
    apt-get update -q
    apt-get install -y -q --no-install-recommends "${missing[@]}"
fi

if ! docker compose version >/dev/null 2>&1; then
    # Debian 12 has only version 1; the package of Debian 13 runs there too.
    folder=$(mktemp -d)
    trap 'rm -r "$folder"' EXIT
    . /etc/os-release
    mkdir -p "$folder/sources" "$folder/lists/partial"
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
        [ ! -f "$file" ] || sed "s/$VERSION_CODENAME/trixie/g" "$file" >"$folder/sources/${file##*/}"
    done
    newer=(-o Dir::Etc::sourcelist=/dev/null -o "Dir::Etc::sourceparts=$folder/sources" -o "Dir::State::lists=$folder/lists")
    apt-get update -q "${newer[@]}"
    (cd "$folder" && apt-get download -q "${newer[@]}" docker-compose && dpkg-deb -x docker-compose_*.deb .)
    install -D "$folder/usr/libexec/docker/cli-plugins/docker-compose" /usr/local/lib/docker/cli-plugins/docker-compose
fi
