# shellcheck shell=bash
# unprivileged.sh, to be sourced: servers refuse to run as root, so root runs
# them as "postgres" where that user exists, else as "nobody".
#
#   test_user           the user's name
#   as_user COMMAND...  runs it as that user
#   reachable FILE      whether that user can read it
#   node_of_test_user   prints a node, 18 or later, that the user can run: the
#                       one on the PATH, or the distribution's
test_user=$(id -un)
as_user() { "$@"; }
if [ "$(id -u)" = 0 ]; then
  test_user=postgres
  id -u "$test_user" >/dev/null 2>&1 || test_user=nobody
  as_user() { runuser -u "$test_user" -- "$@"; }
fi
reachable() { (cd / && as_user test -r "$1"); }
node_of_test_user() {
  local node
  for node in "$(command -v node)" /usr/bin/node; do
    [ -n "$node" ] && (cd / && as_user "$node" -e 'process.exit(parseInt(process.versions.node) < 18 ? 1 : 0)') 2>/dev/null || continue
    echo "$node"
    return
  done
  return 1
}
