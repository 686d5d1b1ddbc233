# perfopt: "make help" lists the targets, README.md tells the rest.

# Where the sources are: this file's directory, also when it is built from
# another one with "make -f .../perfopt/Makefile".
top := $(or $(VPATH),$(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST)))))

EXTENSION = perfopt
MODULE_big = perfopt
# The version stands in perfopt.control and nowhere else.
EXTVERSION := $(shell sed -n "s/^default_version *= *'\(.*\)'/\1/p" $(top)/perfopt.control)
OBJS = $(patsubst $(top)/%.c,%.o,$(sort $(wildcard $(top)/src/*.c $(top)/src/*/*.c)))

# The order in which the capabilities' SQL is put together: a file may use
# what an earlier one made.
SQL_PARTS = common/common worker/worker monitor/monitor advisor/advisor advisor/survey cache/cache \
	batch/insert batch/buffer batch/chunks lookup/n_plus_one lookup/lookup bench/bench
DATA_built = perfopt--$(EXTVERSION).sql
DATA = $(patsubst $(top)/%,%,$(wildcard $(top)/src/upgrade/perfopt--*--*.sql))

# installcheck: the running server needs test/perfopt.conf's settings, that is
# shared_preload_libraries = 'pg_stat_statements, perfopt'.
REGRESS = $(patsubst $(top)/sql/%.sql,%,$(sort $(wildcard $(top)/sql/*.sql)))
REGRESS_OPTS = --load-extension=pg_stat_statements --load-extension=perfopt

PG_CPPFLAGS = -I$(top)/src
ifdef STOP_POINTS
PG_CPPFLAGS += -DPERFOPT_STOP_POINTS
endif
COPT ?= -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
EXTRA_CLEAN = perfopt--*.sql tmp_* .built_for

PG_CONFIG ?= pg_config
export PG_CONFIG
# Debian's server package has PGXS, but not the headers.
SERVER_HEADERS := $(wildcard $(shell $(PG_CONFIG) --includedir-server 2>/dev/null)/postgres.h)
PGXS := $(and $(SERVER_HEADERS),$(wildcard $(shell $(PG_CONFIG) --pgxs 2>/dev/null)))
.DEFAULT_GOAL := all

ifneq ($(PGXS),)
include $(PGXS)

perfopt--$(EXTVERSION).sql: $(SQL_PARTS:%=$(top)/src/%.sql)
	cat $^ >$@

# Everything is compiled again when a header changes (PGXS knows of none), or
# when the tree was last built for another server.
OBJECTS = $(OBJS) $(OBJS:.o=.bc)
$(OBJECTS): $(wildcard $(top)/src/*/*.h) .built_for
OBJDIRS = $(sort $(patsubst %/,$(CURDIR)/%,$(dir $(OBJS))))
$(OBJECTS): | $(OBJDIRS)
$(OBJDIRS):
	mkdir -p $@
.built_for: FORCE
	@echo '$(PGXS) $(VERSION)' | cmp -s - $@ || echo '$(PGXS) $(VERSION)' >$@
FORCE:

else
# No server to build for: say what to do, and leave the targets that install it.
all install uninstall installcheck:
	@$(top)/test/tools/install_deps.sh --explain build
	@exit 1
clean:
	rm -rf $(OBJS) $(OBJS:.o=.bc) perfopt.so perfopt.dylib results regression.* $(EXTRA_CLEAN)
endif

help:
	@echo 'make                 build for the server of PG_CONFIG (default: pg_config on the PATH)'
	@echo 'make install         install it there (usually with sudo)'
	@echo 'make installcheck    test the installed extension on the running server'
	@echo 'make demo            see it work, on a throw-away server; KEEP=1 leaves that running'
	@echo 'make test            run all tests, on servers of their own; T=name narrows'
	@echo 'make oracle          compare a million cached answers with the real ones; HITS= MINUTES='
	@echo 'make bench-overhead  measure what perfopt costs a statement'
	@echo 'make bench-cache     measure what a cached result saves, and what tracking costs'
	@echo 'make bench-batch     measure batched and buffered inserts, and chunked work'
	@echo 'make bench-lookup    measure look-ups of many keys, and what finding N+1 costs'
	@echo 'make bench-advisor   compare the index advisor with its rivals, on TPC-H and applications; DBGEN='
	@echo 'make bench-prices    compare hypothetical indexes with real ones: sizes and plan costs'
	@echo 'make check-core      run the regression suite of PostgreSQL with perfopt preloaded'
	@echo 'make check-sanitize  run the tests under the address and undefined behaviour sanitizers'
	@echo 'make indent          format the C sources; indent-check only looks'
	@echo 'make clean           remove everything made'
	@echo
	@echo 'All but build and install get the Debian or Ubuntu packages they miss.'

test:
	@$(top)/test/tools/install_deps.sh test
	@$(top)/test/tools/run_tests

demo: ; @$(top)/test/demo/run
oracle: ; @$(top)/test/oracle/run
bench-overhead: ; @$(top)/test/bench/overhead
bench-cache: ; @$(top)/test/bench/cache
bench-batch: ; @$(top)/test/bench/batch
bench-lookup: ; @$(top)/test/bench/lookup
bench-advisor: ; @$(top)/test/bench/advisor
bench-prices: ; @$(top)/test/bench/prices
check-core: ; @$(top)/test/tools/check_core
check-sanitize: ; @$(top)/test/tools/check_sanitize

# Not a part of "make test": versions of pg_bsd_indent differ in small things.
indent indent-check:
	@$(top)/test/tools/install_deps.sh indent
	@$(top)/test/tools/indent $(if $(filter %-check,$@),--check)

.PHONY: help demo test oracle bench-overhead bench-cache bench-batch bench-lookup bench-advisor bench-prices check-core check-sanitize indent indent-check FORCE
