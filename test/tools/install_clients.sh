#!/bin/bash
# install_clients.sh DEST: the npm packages of test/clients/package-lock.json
# into DEST/node_modules, exactly those versions, without their install
# scripts.  Kept, and nothing is asked of the registry, while the lock file and
# the version of node stay the same.
#
# Exits with 3 when the registry cannot be reached, and with 1 when something
# is wrong with the packages; DEST/npm.log says more.
set -uo pipefail
here=$(cd "$(dirname "$0")/../clients" && pwd)
dest=$(realpath -m "${1:?where to}")
umask 022
mkdir -p "$dest" || exit 1

state=$(node --version && cat "$here/package.json" "$here/package-lock.json") || exit 1
[ "$state" != "$(cat "$dest/.complete" 2>/dev/null)" ] || exit 0
rm -rf "$dest/node_modules" "$dest/.complete"
cp "$here/package.json" "$here/package-lock.json" "$dest/" || exit 1
if (cd "$dest" && npm_config_cache=$dest/cache npm_config_update_notifier=false \
  npm_config_fetch_retries=1 npm_config_fetch_timeout=60000 \
  npm ci --ignore-scripts --no-audit --no-fund) >"$dest/npm.log" 2>&1 </dev/null
then
  # root's npm keeps the archives' owners and modes
  chmod -R go+rX "$dest/node_modules"
  echo "$state" >"$dest/.complete"
  exit 0
fi
rm -rf "$dest/node_modules"
if grep -qE 'E(NOTFOUND|AI_AGAIN|CONNREFUSED|CONNRESET|TIMEDOUT|HOSTUNREACH|NETUNREACH|503|502|504)|network' "$dest/npm.log"; then exit 3; fi
exit 1
