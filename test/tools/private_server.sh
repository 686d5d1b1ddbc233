#!/bin/bash
# private_server.sh PG_CONFIG DEST
#
# Copies the PostgreSQL installation that PG_CONFIG names to DEST, keeping its
# absolute paths below it (DEST/usr/lib/postgresql/15/bin, ...), so that
# "make install DESTDIR=DEST" adds the extension to the copy and to nothing
# else.  PostgreSQL finds its files relative to its own binary; nothing in the
# copy refers back.  Prints the copy's bin directory.
set -euo pipefail
pg_config=$1 dest=$(realpath -m "$2")
bindir=$(realpath "$("$pg_config" --bindir)")
pkglibdir=$("$pg_config" --pkglibdir)
sharedir=$("$pg_config" --sharedir)

# copied again when packages have changed the original
state=$(stat -c '%n %s %Z' "$bindir/postgres" "$pkglibdir" "$sharedir/extension")
if [ "$state" != "$(cat "$dest/.complete" 2>/dev/null)" ]; then
  rm -rf "$dest"
  mkdir -p "$dest"
  for dir in "$bindir" "$pkglibdir" "$sharedir"; do
    mkdir -p "$dest$dir"
    # the PGXS tree is not needed to run a server, and bitcode is large
    tar -C "$dir" --exclude=./pgxs --exclude=./bitcode --exclude='./llvmjit*' --exclude=./man -cf - . |
      tar -C "$dest$dir" -xf - --no-same-owner
  done
  echo "$state" >"$dest/.complete"
fi
echo "$dest$bindir"
