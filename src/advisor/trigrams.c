/*
 * trigrams.c
 *		A GIN index with gin_trgm_ops where pg_trgm is not installed, but could be.
 *
 * Without the extension there is no operator class that the planner could match
 * conditions to, nor functions that it could call.  So trigrams are found here,
 * much as pg_trgm does it: words in lower case, with two blanks before and one
 * behind, in pieces of three characters.  And the path that the planner would
 * make for patterns is made here, a bitmap scan, with the cost that the server's
 * formula gives.
 *
 * Of regular expressions only words that must be there are looked for.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"
#include "advisor/trigrams.h"

#include <math.h>
#include <sys/stat.h>

#include "catalog/pg_am.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/lsyscache.h"
#include "utils/spccache.h"

/* Characters of a word that are looked at. */
#define MOST_CHARS		200

/*
 * Is the extension at hand, and not installed?  Only the server's own directory
 * is looked at.
 */
bool
perfopt_trigrams_missing(void)
{
	char		directory[MAXPGPATH];
	char		path[MAXPGPATH + 40];
	struct stat status;

	if (OidIsValid(get_extension_oid("pg_trgm", true)))
		return false;
	get_share_path(my_exec_path, directory);
	snprintf(path, sizeof(path), "%s/extension/pg_trgm.control", directory);
	return stat(path, &status) == 0;
}

bool
perfopt_trigram_operator(Oid opno)
{
	return opno == OID_TEXT_LIKE_OP || opno == OID_TEXT_ICLIKE_OP ||
		opno == OID_TEXT_REGEXEQ_OP || opno == OID_TEXT_ICREGEXEQ_OP;
}

/*
 * Finding them
 */
typedef struct Trigrams
{
	int			num;
	int			most;
	uint64	   *hashes;
} Trigrams;

static bool
is_word_char(const char *c)
{
	return IS_HIGHBIT_SET(*c) || isalnum((unsigned char) *c);
}

/* Those of a word that is open where a pattern may have other characters. */
static void
add_word(Trigrams *trigrams, const char *word, size_t len, bool open_left, bool open_right)
{
	char		padded[MOST_CHARS * MAX_MULTIBYTE_CHAR_LEN + 4];
	int			starts[MOST_CHARS + 4];
	int			num = 0;
	size_t		size = 0;

	for (int i = 0; i < 2 && !open_left; i++)
	{
		starts[num++] = size;
		padded[size++] = ' ';
	}
	for (size_t at = 0; at < len && num < MOST_CHARS;)
	{
		int			width = Min(pg_encoding_mblen(GetDatabaseEncoding(), word + at), len - at);

		starts[num++] = size;
		memcpy(padded + size, word + at, width);
		size += width;
		at += width;
	}
	if (!open_right)
	{
		starts[num++] = size;
		padded[size++] = ' ';
	}
	starts[num] = size;
	for (int i = 0; i + 3 <= num; i++)
	{
		if (trigrams->num == trigrams->most)
		{
			trigrams->most = Max(64, trigrams->most * 2);
			trigrams->hashes = trigrams->hashes == NULL ?
				palloc(sizeof(uint64) * trigrams->most) :
				repalloc(trigrams->hashes, sizeof(uint64) * trigrams->most);
		}
		trigrams->hashes[trigrams->num++] =
			hash_bytes_extended((unsigned char *) padded + starts[i],
								starts[i + 3] - starts[i], 0);
	}
}

static int
compare_hashes(const void *a, const void *b)
{
	uint64		left = *(const uint64 *) a;
	uint64		right = *(const uint64 *) b;

	return left < right ? -1 : left > right ? 1 : 0;
}

static void
remove_doubles(Trigrams *trigrams)
{
	int			distinct = 0;

	qsort(trigrams->hashes, trigrams->num, sizeof(uint64), compare_hashes);
	for (int i = 0; i < trigrams->num; i++)
		if (i == 0 || trigrams->hashes[i] != trigrams->hashes[distinct - 1])
			trigrams->hashes[distinct++] = trigrams->hashes[i];
	trigrams->num = distinct;
}

/* Words of a text, or of LIKE's pattern. */
static void
add_words(Trigrams *trigrams, const char *string, size_t len, bool pattern)
{
	bool		open_left = false;

	for (size_t at = 0; at < len;)
	{
		const char *c = string + at;
		size_t		end = at;

		if (!is_word_char(c))
		{
			open_left = pattern && (*c == '%' || *c == '_');
			at++;
			continue;
		}
		while (end < len && is_word_char(string + end))
			end += Min(pg_encoding_mblen(GetDatabaseEncoding(), string + end), len - end);
		add_word(trigrams, c, end - at, open_left,
				 pattern && end < len && (string[end] == '%' || string[end] == '_'));
		open_left = false;
		at = end;
	}
}

static void
add_words_of_regex(Trigrams *trigrams, const char *string, size_t len)
{
	if (memchr(string, '|', len))
		return;
	for (size_t at = 0; at < len;)
	{
		size_t		end = at;
		size_t		last = at;

		if (string[at] == '\\')
			at += 2;
		else if (string[at] == '[' || string[at] == '{')
		{
			char		close = string[at] == '[' ? ']' : '}';

			while (at < len && string[at] != close)
				at++;
			at++;
		}
		else if (!is_word_char(string + at))
			at++;
		else
		{
			while (end < len && is_word_char(string + end))
			{
				last = end;
				end += Min(pg_encoding_mblen(GetDatabaseEncoding(), string + end), len - end);
			}

			/* its last character may be there never, or several times */
			add_word(trigrams, string + at,
					 (end < len && strchr("*?{", string[end]) ? last : end) - at, true, true);
			at = end;
		}
	}
}

int
perfopt_trigrams_of_text(Datum value, uint64 **hashes)
{
	text	   *string = DatumGetTextPP(value);
	char	   *lower = str_tolower(VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string),
									DEFAULT_COLLATION_OID);
	Trigrams	trigrams = {0};

	add_words(&trigrams, lower, strlen(lower), false);
	remove_doubles(&trigrams);
	pfree(lower);
	*hashes = trigrams.hashes;
	return trigrams.num;
}

/* Their number; not 0 only if an index can look for the pattern. */
static int
trigrams_of_pattern(Oid opno, Node *pattern)
{
	Trigrams	trigrams = {0};
	char	   *lower;

	/* one that is not known yet is taken to have a few */
	if (!IsA(pattern, Const))
		return 3;
	if (((Const *) pattern)->constisnull || ((Const *) pattern)->consttype != TEXTOID)
		return 0;
	lower = TextDatumGetCString(((Const *) pattern)->constvalue);
	lower = str_tolower(lower, strlen(lower), DEFAULT_COLLATION_OID);
	if (opno == OID_TEXT_LIKE_OP || opno == OID_TEXT_ICLIKE_OP)
		add_words(&trigrams, lower, strlen(lower), true);
	else
		add_words_of_regex(&trigrams, lower, strlen(lower));
	remove_doubles(&trigrams);
	return trigrams.num;
}

/*
 * Paths
 */
static int
count_trigrams(PlannerInfo *root, const RestrictInfo *rinfo)
{
	OpExpr	   *op = (OpExpr *) rinfo->clause;

	return trigrams_of_pattern(op->opno, estimate_expression_value(root, lsecond(op->args)));
}

/* The number of the key that the clause is about, or -1. */
static int
matching_key(PlannerInfo *root, IndexOptInfo *index, RestrictInfo *rinfo)
{
	OpExpr	   *op = (OpExpr *) rinfo->clause;

	if (rinfo->pseudoconstant || !IsA(op, OpExpr) || !perfopt_trigram_operator(op->opno) ||
		bms_is_member(index->rel->relid, pull_varnos(root, lsecond(op->args))) ||
		contain_volatile_functions(lsecond(op->args)))
		return -1;
	for (int i = 0; i < index->nkeycolumns; i++)
		if (match_index_to_operand(linitial(op->args), i, index))
			return count_trigrams(root, rinfo) > 0 ? i : -1;
	return -1;
}

/* A bitmap scan of an index of which the planner can make none itself. */
void
perfopt_trigram_paths(PlannerInfo *root, RelOptInfo *rel)
{
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, rel->indexlist)
	{
		IndexOptInfo *index = lfirst(lc);
		List	   *clauses = NIL;
		IndexPath  *path;

		if (!index->hypothetical || index->relam != GIN_AM_OID ||
			OidIsValid(index->opfamily[0]) || (index->indpred && !index->predOK))
			continue;
		foreach(lc2, rel->baserestrictinfo)
		{
			RestrictInfo *rinfo = lfirst_node(RestrictInfo, lc2);
			int			key = matching_key(root, index, rinfo);
			IndexClause *clause;

			if (key < 0)
				continue;
			clause = makeNode(IndexClause);
			clause->rinfo = rinfo;
			clause->indexquals = list_make1(rinfo);
			clause->lossy = true;
			clause->indexcol = key;
			clauses = lappend(clauses, clause);
		}
		if (clauses == NIL)
			continue;
		path = create_index_path(root, index, clauses, NIL, NIL, NIL, ForwardScanDirection, false,
								 NULL, 1.0, false);
		add_path(rel, (Path *) create_bitmap_heap_path(root, rel, (Path *) path, NULL, 1.0, 0));
	}
}

/* Of such an index, as the server would price it if the extension were there. */
void
perfopt_trigram_cost(PlannerInfo *root, IndexPath * path, const IndexSize *size,
					 Cost *startup_cost, Cost *total_cost, Selectivity * selectivity,
					 double *pages)
{
	IndexOptInfo *index = path->indexinfo;
	List	   *quals = NIL;
	double		searched = 0;
	double		key_pages = Max(size->pages - 1 - size->data_pages, 1);
	double		data;
	double		page_cost;
	ListCell   *lc;

	foreach(lc, path->indexclauses)
	{
		IndexClause *clause = lfirst_node(IndexClause, lc);

		quals = list_concat(quals, clause->indexquals);
		searched += count_trigrams(root, clause->rinfo);
	}
	*selectivity = clauselist_selectivity(root, quals, index->rel->relid, JOIN_INNER, NULL);
	data = Max(ceil(size->data_pages * searched / Max(size->keys, 1)),
			   ceil(*selectivity * (index->tuples / (BLCKSZ / 3))));
	get_tablespace_page_costs(index->reltablespace, &page_cost, NULL);
	*startup_cost = ceil(searched * rint(pow(key_pages, 0.15))) * page_cost;
	*total_cost = *startup_cost + data * page_cost + index->tuples * *selectivity *
		(cpu_index_tuple_cost + cpu_operator_cost * list_length(quals));
	*pages = data;
}
