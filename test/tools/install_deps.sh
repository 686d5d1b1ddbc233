#!/bin/bash
# install_deps.sh [--explain] build|demo|bench-cache|bench-lookup|bench-advisor|test|matrix|indent
#
# Installs what the purpose needs and this machine lacks, through apt: says
# first what that is, asks nothing, and leaves no cluster behind that was not
# there before.  Silent when nothing is missing.  On other systems, or with
# --explain, only says what to install.  PG_CONFIG chooses the server.
set -euo pipefail
explain=
if [ "${1:-}" = --explain ]; then explain=1; shift; fi
purpose=${1:?build, demo, bench-cache, bench-lookup, bench-advisor, test, matrix or indent}
pg_config=${PG_CONFIG:-pg_config}
# shellcheck source=test/tools/unprivileged.sh
. "$(dirname "$0")/unprivileged.sh"

pgxs() { "$pg_config" --pgxs 2>/dev/null || true; }
# Debian's server package has PGXS, but not the headers.
has_pgxs() { [ -f "$(pgxs)" ] && [ -f "$("$pg_config" --includedir-server)/postgres.h" ]; }
has_server_file() { [ -e "$("$pg_config" "$1" 2>/dev/null)/$2" ]; }
has_perl_module() { perl -M"$1" -e1 2>/dev/null; }
# Debian's python, whatever python3 the PATH has
has_python_module() { /usr/bin/python3 -c "import $1" 2>/dev/null; }

# The default major version of this distribution, or that of PG_CONFIG.
server_version() {
  if [ -f "$(pgxs)" ]; then
    "$pg_config" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'
  else
    apt-cache show postgresql 2>/dev/null |
      sed -n -E 's/^Depends:.*\bpostgresql-([0-9]+).*/\1/p' | sort -n | tail -1 || true
  fi
}

# What is missing, as names of Debian packages with NN for the version.
missing_packages() {
  if [ "$purpose" = indent ]; then
    command -v pg_bsd_indent >/dev/null || echo pg-bsd-indent
    return
  fi
  command -v make >/dev/null || echo make
  command -v "${CC:-gcc}" >/dev/null || command -v cc >/dev/null || echo gcc libc6-dev
  has_pgxs || echo postgresql-server-dev-NN
  [ "$purpose" = build ] && return
  command -v runuser >/dev/null || echo util-linux
  has_pgxs && has_server_file --bindir postgres || echo postgresql-NN
  [ "$purpose" = demo ] && return
  if [ "$purpose" = bench-cache ]; then
    # which has all binaries; the package redis-server starts a service
    command -v redis-benchmark >/dev/null || echo redis-tools
    return
  fi
  if [ "$purpose" = bench-lookup ]; then
    has_perl_module DBD::Pg || echo libdbd-pg-perl
    return
  fi
  if [ "$purpose" = bench-advisor ]; then
    has_perl_module DBD::Pg || echo libdbd-pg-perl
    # rivals: loaded into the benchmark's own server only
    has_server_file --sharedir extension/hypopg.control || echo postgresql-NN-hypopg
    has_server_file --sharedir extension/pg_qualstats.control || echo postgresql-NN-pg-qualstats
    return
  fi
  command -v prove >/dev/null || echo perl
  has_perl_module IPC::Run || echo libipc-run-perl
  has_perl_module TAP::Parser::SourceHandler::pgTAP || echo libtap-parser-sourcehandler-pgtap-perl
  has_pgxs && has_server_file --sharedir extension/pgtap.control || echo postgresql-NN-pgtap
  # the clients of test/clients
  has_python_module psycopg2 || echo python3-psycopg2
  has_python_module psycopg || echo python3-psycopg
  has_python_module sqlalchemy || echo python3-sqlalchemy
  has_python_module django || echo python3-django
  [ -x /usr/sbin/pgbouncer ] || command -v pgbouncer >/dev/null || echo pgbouncer
  node_of_test_user >/dev/null || echo nodejs
  command -v npm >/dev/null || echo npm
  [ "$purpose" = test ] && return
  command -v patchelf >/dev/null || echo patchelf
}

say_what_to_install() {
  cat >&2 <<TEXT
perfopt needs PostgreSQL 15 or later with its server headers, make and a C
compiler. "$pg_config" (PG_CONFIG) does not lead to them. Install
  Debian, Ubuntu    postgresql-NN postgresql-server-dev-NN make gcc
  Fedora, RHEL      postgresql-server postgresql-contrib postgresql-server-devel make gcc
  Arch              postgresql make gcc
  macOS, Homebrew   postgresql@17
or name another server: make PG_CONFIG=/path/to/its/bin/pg_config
TEXT
  [ "$purpose" = build ] || cat >&2 <<TEXT
The tests also need pgTAP (server extension), pg_prove, and the Perl module
IPC::Run; those of clients psycopg2, psycopg 3, SQLAlchemy and Django for
/usr/bin/python3, PgBouncer, node (18 or later) and npm:
  Debian, Ubuntu    postgresql-NN-pgtap libtap-parser-sourcehandler-pgtap-perl libipc-run-perl
                    python3-psycopg2 python3-psycopg python3-sqlalchemy python3-django pgbouncer nodejs npm
  Fedora, RHEL      pgtap perl-TAP-Parser-SourceHandler-pgTAP perl-IPC-Run perl-Test-Harness
  Arch, macOS       https://pgtap.org, and from CPAN: TAP::Parser::SourceHandler::pgTAP IPC::Run
TEXT
  [ "$purpose" != build ] || ! command -v apt-get >/dev/null ||
    echo '"make demo" and "make test" install all they need by themselves.' >&2
}

# A package of a server starts a cluster "main" when it is installed first,
# unless a file here says not to.
no_cluster=/etc/postgresql-common/createcluster.d/perfopt-no-main-cluster.conf
forbid_main_cluster() {
  made=$($as_root mkdir -pv "${no_cluster%/*}" | grep -c . || true)
  echo 'create_main_cluster = false' | $as_root tee "$no_cluster" >/dev/null
  trap allow_main_cluster EXIT
  trap 'exit 1' INT TERM HUP
}
allow_main_cluster() {
  allow_service
  $as_root rm -f "$no_cluster"
  # what mkdir made is taken away again, unless packages have put files there
  if [ "$made" != 0 ]; then
    $as_root rmdir --ignore-fail-on-non-empty "${no_cluster%/*}"
  fi
}

# PgBouncer's package starts a service, now and at each boot, that no test uses.
no_service=/usr/sbin/policy-rc.d
forbid_service() {
  [ ! -e "$no_service" ] || return 0
  printf '#!/bin/sh\nexit 101\n' | $as_root tee "$no_service" >/dev/null
  $as_root chmod 755 "$no_service"
  allow_service() { $as_root rm -f "$no_service"; }
}
allow_service() { :; }
disable_service() {
  if command -v update-rc.d >/dev/null; then $as_root update-rc.d pgbouncer disable >/dev/null 2>&1 || true; fi
}

if [ -n "$explain" ]; then say_what_to_install; exit 0; fi

# A path that leads nowhere is a slip of the pen, not a server to install.
if [[ $pg_config == */* ]] && [ ! -x "$pg_config" ]; then
  echo "There is no $pg_config (PG_CONFIG)." >&2
  exit 1
fi

mapfile -t packages < <(missing_packages | tr ' ' '\n')
[ ${#packages[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "Missing here (names of Debian packages): ${packages[*]}" >&2
  say_what_to_install
  exit 1
fi

# Puts the version for NN, if apt's lists tell which.
needs_version() { [[ " ${packages[*]} " == *NN* ]]; }
fill_in_version() {
  local version
  version=$(server_version)
  [ -n "$version" ] || return 0
  if [ "$version" -lt 15 ]; then
    echo "This distribution has PostgreSQL $version; perfopt needs 15 or later: see https://apt.postgresql.org" >&2
    exit 1
  fi
  packages=("${packages[@]//NN/$version}")
}
if needs_version; then fill_in_version; fi

echo "Missing here for $purpose, and to be installed through apt: ${packages[*]}"
as_root=
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || { echo "Not root, and no sudo: as root, apt-get install ${packages[*]}" >&2; exit 1; }
  if [ -t 0 ]; then as_root=sudo; else as_root="sudo -n"; fi
fi
apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120"
export LC_ALL=C.UTF-8

updated=
update_lists() { [ -n "$updated" ] || { echo "apt-get update"; $apt -qq update >&2 </dev/null; updated=1; }; }

if needs_version; then
  update_lists
  fill_in_version
  ! needs_version || { echo "apt knows of no package postgresql." >&2; exit 1; }
fi

echo "apt-get install ${packages[*]}"
known() { apt-cache show "${packages[@]}" >/dev/null 2>&1; }
known || update_lists
forbid_main_cluster
if [[ " ${packages[*]} " == *" pgbouncer "* ]]; then forbid_service; fi
install="$apt -qq install -y --no-install-recommends -o Dpkg::Use-Pty=0"
log=$(mktemp)
# the lists may be too old for the mirror: then once more with new ones
$install "${packages[@]}" </dev/null >"$log" 2>&1 ||
  { update_lists; $install "${packages[@]}" </dev/null >"$log" 2>&1; } ||
  { tail -20 "$log" >&2; echo "apt-get could not install ${packages[*]} (log: $log)" >&2; exit 1; }
rm -f "$log"
if [[ " ${packages[*]} " == *" pgbouncer "* ]]; then disable_service; fi
