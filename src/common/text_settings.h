/*
 * text_settings.h
 *		Settings as lines, and those under which values are written as text.
 */
#ifndef PERFOPT_TEXT_SETTINGS_H
#define PERFOPT_TEXT_SETTINGS_H

#include "postgres.h"

#include "utils/guc.h"

/*
 * Under these a value is written as text that is read as the same value, and
 * our own statements mean what they say whatever the user's are.
 */
#define PERFOPT_TEXT_SETTINGS \
	"search_path=pg_catalog, pg_temp\n" \
	"datestyle=ISO, YMD\n" \
	"intervalstyle=postgres\n" \
	"extra_float_digits=1\n" \
	"bytea_output=hex\n" \
	"row_security=on\n"

/*
 * Apply "name=value" lines with the privileges of the current role, in a
 * transaction: until its end (GUC_ACTION_LOCAL), that of a nest level
 * (GUC_ACTION_SAVE), or for good (GUC_ACTION_SET).
 */
extern void perfopt_apply_settings(const char *lines, GucAction action);

/* Between these they are PERFOPT_TEXT_SETTINGS; an error ends that, too. */
extern int	perfopt_text_settings_enter(void);
extern void perfopt_text_settings_leave(int level);

#endif							/* PERFOPT_TEXT_SETTINGS_H */
