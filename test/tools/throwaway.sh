# shellcheck shell=bash
# throwaway.sh: a build and a server of one's own, for scripts to source.
#
# Everything happens below one work directory, as an unprivileged user, and
# nothing outside it is written: no system cluster is touched, nothing is
# installed into the system's PostgreSQL.
#
#   throwaway_init NAME           work directory tmp_NAME in the tree (or under
#                                 /tmp, where the server's user cannot reach the tree)
#   throwaway_build [VAR=VALUE]   a fresh build of the tree and a private copy of
#                                 the server that has it; arguments go to make
#   as_server COMMAND...          runs it as the user that owns the server
#   throwaway_initdb DATADIR      a cluster that listens on a Unix socket only
#   throwaway_start DATADIR, throwaway_stop DATADIR [MODE]
#   throwaway_remove              removes the work directory and the socket's
#
# Set by these: ROOT (the tree), WORK, test_user, SOCKETS (directory of the
# sockets), BIN (binaries of the private copy).  PG_CONFIG is honoured.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# shellcheck source=test/tools/unprivileged.sh
. "$ROOT/test/tools/unprivileged.sh"
export PGUSER=postgres PGDATABASE=postgres PGOPTIONS='' PGAPPNAME=perfopt LC_MESSAGES=C
unset PGHOST PGPORT PGHOSTADDR PGSERVICE PGPASSFILE PGSSLMODE PGDATA

as_server() { (cd "$WORK" && as_user "$@"); }

throwaway_init() {
  umask 022
  WORK=$ROOT/tmp_$1
  rm -rf "$WORK"
  # A tree below a directory closed to the server's user (say, /root) cannot
  # hold its data.
  if ! { mkdir -p "$WORK" && chown "$test_user" "$WORK" && as_server test -w "$WORK"; } 2>/dev/null; then
    rm -rf "$WORK"
    WORK=$(mktemp -d "/tmp/perfopt-$1.XXXXXX")
    chmod 755 "$WORK"
    chown "$test_user" "$WORK"
  fi
  # The path of a socket may have 107 bytes only, so it is not below $WORK.
  SOCKETS=$(mktemp -d /tmp/perfopt.XXXXXX)
  chown "$test_user" "$SOCKETS"
  export PGHOST=$SOCKETS
}

throwaway_pg_config() {
  : "${PG_CONFIG:=$(command -v pg_config || true)}"
  [ -n "$PG_CONFIG" ] || { echo "no pg_config found: set PG_CONFIG" >&2; return 1; }
  BIN=$WORK/server$(realpath "$("$PG_CONFIG" --bindir)")
}

throwaway_build() {
  throwaway_pg_config
  rm -rf "$WORK/build"
  mkdir -p "$WORK/build"
  # Sources only: objects in the tree may be of another build.
  (cd "$ROOT" && tar -cf - --exclude='*.o' --exclude='*.bc' Makefile ./*.control src) |
    tar -C "$WORK/build" -xf - --no-same-owner
  mkdir -p "$WORK/build/test"
  "$ROOT/test/tools/private_server.sh" "$PG_CONFIG" "$WORK/server"
  # MAKEFLAGS of a calling make would bring its targets and variables along
  (unset MAKEFLAGS MAKELEVEL MFLAGS
    cd "$WORK/build" &&
    make -s -j2 PG_CONFIG="$PG_CONFIG" with_llvm=no "$@" &&
    make -s install PG_CONFIG="$PG_CONFIG" with_llvm=no DESTDIR="$WORK/server" "$@")
}

throwaway_initdb() {
  as_server "$BIN/initdb" --auth=trust --username=postgres --encoding=UTF8 --no-locale \
    --no-sync --pgdata="$1"
  as_server tee -a "$1/postgresql.conf" >/dev/null <<CONF
listen_addresses = ''
unix_socket_directories = '$SOCKETS'
CONF
}

throwaway_start() {
  as_server "$BIN/pg_ctl" --wait --silent --log="$1.log" --pgdata="$1" start
}

throwaway_stop() {
  if [ -e "$1/postmaster.pid" ]; then
    as_server "$BIN/pg_ctl" --wait --silent --pgdata="$1" --mode="${2:-fast}" stop
  fi
}

throwaway_remove() {
  rm -rf "$WORK" "$SOCKETS"
}
