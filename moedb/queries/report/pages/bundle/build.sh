#!/bin/sh
# Fetches the libraries that pages carry from the npm registry, at the versions named here, and writes
# their checksums and licences beside them. Needs npm, tar and sha256sum; who uses moedb needs none.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

fetch() { # PACKAGE@VERSION: into a folder of its own, whose name is printed
    archive=$(npm pack --silent "$1")
    mkdir "${archive%.tgz}"
    tar -xzf "$archive" -C "${archive%.tgz}" --strip-components 1
    echo "${archive%.tgz}"
}

d3=$(fetch d3@7.9.0)
plot=$(fetch @observablehq/plot@0.6.17)
tabulator=$(fetch tabulator-tables@6.5.3)
# what the build of Plot has taken in
intervals=$(fetch interval-tree-1d@1.0.4)
search=$(fetch binary-search-bounds@2.0.5)
isoformat=$(fetch isoformat@0.2.1)

cp "$d3/dist/d3.min.js" "$plot/dist/plot.umd.min.js" "$here"
# the line that names the source map would have a browser look for it
for name in tabulator.min.js tabulator.min.css; do
    find "$tabulator/dist" -name "$name" -exec cat {} + | sed -e 's|^//# sourceMappingURL=.*||' \
        -e 's|/\*# sourceMappingURL=.*\*/||' > "$here/$name"
done
for package in "$d3" "$plot" "$tabulator" "$intervals" "$search" "$isoformat"; do
    printf '%s\n\n' "== $package"
    cat "$package/LICENSE"
    printf '\n'
done > "$here/LICENSES.txt"
cd "$here"
sha256sum d3.min.js plot.umd.min.js tabulator.min.js tabulator.min.css LICENSES.txt > sha256sums.txt
