#!/bin/sh -e
# The least that a shell provisioner needs: the host's shell and a few programs, with their libraries.
cd "$1"
for program in sh cat chmod rm mkdir env; do
    place=$(realpath "$(command -v $program)")
    cp --parents "$place" $(ldd "$place" | grep -o '/[^ ]*') .
    [ -e "usr/bin/$program" ] || ln -s "$(basename "$place")" "usr/bin/$program"
done
[ -e bin ] || ln -s usr/bin bin
mkdir -p tmp etc usr/sbin
echo filled >> filled
