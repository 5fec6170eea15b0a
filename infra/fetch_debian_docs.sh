#!/usr/bin/env bash
# Fetches documentation sites that Debian packages: real, linked HTML in many languages.
# Usage: infra/fetch_debian_docs.sh FOLDER [PACKAGE...]     (needs a Debian or Ubuntu machine with apt; no root)
set -euo pipefail

if [ $# -lt 1 ]; then
  echo "got no folder, wanted one to unpack into: infra/fetch_debian_docs.sh FOLDER [PACKAGE...]" >&2
  exit 2
fi
if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
  echo "got a machine without apt-get and dpkg-deb, wanted Debian or Ubuntu: run this there and copy the folder" >&2
  exit 1
fi
folder=$1
shift
packages=("$@")
if [ ${#packages[@]} -eq 0 ]; then
  packages=(debian-handbook debian-reference-en debian-reference-zh-cn debian-reference-de developers-reference
    debian-faq debian-faq-zh-cn maint-guide-zh-cn python3.11-doc postgresql-doc-15 libreoffice-help-zh-cn)
fi

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
for package in "${packages[@]}"; do
  if [ -d "$folder/$package" ]; then
    echo "$package: already there"
    continue
  fi
  if ! apt-get download -q "$package" >download.log 2>&1; then
    echo "$package: apt-get could not fetch it ($(tail -n 1 download.log)); run 'apt-get update' first. Skipped." >&2
    continue
  fi
  dpkg-deb -x ./"$package"_*.deb unpacked
  # Only what a documentation site consists of; symbolic links out of the package are left behind.
  mkdir -p "$folder/.$package"
  for root in unpacked/usr/share/*; do
    if [ -n "$(find "$root" -name '*.html' -type f -print -quit)" ]; then
      cp -r --no-dereference "$root"/. "$folder/.$package"/
    fi
  done
  mv "$folder/.$package" "$folder/$package"
  rm -rf unpacked ./"$package"_*.deb
  echo "$package: $(find "$folder/$package" -name '*.html' -type f | wc -l) pages"
done
