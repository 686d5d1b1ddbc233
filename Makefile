# perfopt: see README.md; "make help" lists the targets.

EXTENSION = perfopt
EXTVERSION = 1.0
MODULE_big = perfopt
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c $(srcdir)/src/*/*.c)))

# The order in which the capabilities' SQL is put together: a file may use
# what an earlier one made.
SQL_PARTS = common worker monitor advisor
DATA_built = perfopt--$(EXTVERSION).sql
DATA = $(wildcard $(srcdir)/src/upgrade/perfopt--*--*.sql)

PG_CPPFLAGS = -I$(srcdir)/src
ifdef STOP_POINTS
PG_CPPFLAGS += -DPERFOPT_STOP_POINTS
endif
COPT ?= -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers
EXTRA_CLEAN = perfopt--$(EXTVERSION).sql

srcdir ?= $(if $(VPATH),$(VPATH),.)
PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

perfopt--$(EXTVERSION).sql: $(foreach p,$(SQL_PARTS),$(srcdir)/src/$(p)/$(p).sql)
	cat $^ >$@

# ---- test/demo, test/bench, core's suite, sanitizers
.PHONY: demo bench-overhead check-core check-sanitize
demo: ; @test/demo/run
bench-overhead: ; @test/bench/overhead
check-core: ; @test/tools/check_core
check-sanitize: ; @test/tools/check_sanitize
