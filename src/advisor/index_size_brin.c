/*
 * index_size_brin.c
 *		How large a BRIN index that does not exist would be when freshly built:
 *		the meta page, the map of ranges, and a tuple a range with the least and
 *		the greatest value of each column.
 *
 * Entries of the sample have the size of such a tuple, as if both values were
 * the row's.
 */
#include "postgres.h"

#include "advisor/advisor_internal.h"

#include <math.h>

#include "access/brin.h"
#include "access/brin_page.h"
#include "storage/bufmgr.h"
#include "storage/bufpage.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#define PAGE_SPACE \
	((int) (BLCKSZ - MAXALIGN(SizeOfPageHeaderData) - MAXALIGN(sizeof(BrinSpecialSpace))))

void
perfopt_brin_size(Relation relation, const IndexSpec *spec, const IndexEntries *entries,
				  IndexSize *size)
{
	double		ranges = ceil((double) RelationGetNumberOfBlocks(relation) /
							  BRIN_DEFAULT_PAGES_PER_RANGE);
	double		width = 0;
	double		map_pages = ceil(Max(ranges, 1) / REVMAP_PAGE_MAXITEMS);

	if (entries && entries->num > 0)
	{
		for (int i = 0; i < entries->num; i++)
			width += entries->entries[i].size;
		width /= entries->num;
	}
	else
	{
		width = 8;
		for (int i = 0; i < spec->num_keys; i++)
			width += 2 * get_typavgwidth(spec->columns[i].type, spec->columns[i].typmod);
		width = MAXALIGN((int) width);
	}
	size->tree_height = -1;
	size->row_entries = 0;
	size->pages = 1 + map_pages +
		Max(ceil(ranges / floor(PAGE_SPACE / (width + sizeof(ItemIdData)))), 1);
}
