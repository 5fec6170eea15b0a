#!/usr/bin/env bash
# Looks up the digest of every image that is named by tag, and writes it beside the tag: make image-pins
# The tag says which release is meant, the digest that nobody has put another in its place. Needs docker with buildx, and
# the registry; looks at every file that names an image, and changes only the digests.
set -euo pipefail
cd "$(dirname "$0")/.."

files=(compose.yaml images/Dockerfile)
while IFS= read -r file; do files+=("$file"); done < <(find kubernetes -name '*.yaml')
pattern='[a-z0-9./_-]+:[A-Za-z0-9._-]+@sha256:[0-9a-f]{64}'
mapfile -t images < <(grep -hoE "$pattern" "${files[@]}" | sort -u)
for pinned in "${images[@]}"; do
  tag=${pinned%@*}
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$tag")
  if [[ ! $digest =~ ^sha256:[0-9a-f]{64}$ ]]; then
    echo "$tag: got $digest, wanted a digest: see whether the registry can be reached" >&2
    exit 1
  fi
  if [ "$tag@$digest" != "$pinned" ]; then
    echo "$tag: ${pinned#*@} -> $digest"
    sed -i "s|$pinned|$tag@$digest|g" "${files[@]}"
  fi
done
