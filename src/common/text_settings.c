/*
 * text_settings.c
 *		Settings as lines, and those under which values are written as text.
 */
#include "postgres.h"

#include "common/text_settings.h"
#include "miscadmin.h"

void
perfopt_apply_settings(const char *lines, GucAction action)
{
	char	   *copy = pstrdup(lines);
	char	   *rest = copy;
	char	   *line;

	while ((line = strsep(&rest, "\n")) != NULL)
	{
		char	   *value = strchr(line, '=');

		if (value == NULL)
			continue;
		*value++ = '\0';
		/* a line can change the role */
		(void) set_config_option(line, value, superuser() ? PGC_SUSET : PGC_USERSET,
								 PGC_S_SESSION, action, true, 0, false);
	}
	pfree(copy);
}

int
perfopt_text_settings_enter(void)
{
	int			level = NewGUCNestLevel();

	perfopt_apply_settings(PERFOPT_TEXT_SETTINGS, GUC_ACTION_SAVE);
	return level;
}

void
perfopt_text_settings_leave(int level)
{
	AtEOXact_GUC(true, level);
}
