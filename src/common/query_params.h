/*
 * query_params.h
 *		What functions that are given a query and a record of its parameters
 *		have in common.
 *
 * Inline, as it is on the path of each answer from the cache.
 */
#ifndef PERFOPT_QUERY_PARAMS_H
#define PERFOPT_QUERY_PARAMS_H

#include "postgres.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/typcache.h"

/* To be deformed by the descriptor, which is to be released. */
static inline TupleDesc
perfopt_params_open(HeapTupleHeader record, HeapTupleData *tuple)
{
	tuple->t_len = HeapTupleHeaderGetDatumLength(record);
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	tuple->t_data = record;
	return lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(record),
								  HeapTupleHeaderGetTypMod(record));
}

/* A field as a parameter: text where it has no type, and not toasted. */
static inline Datum
perfopt_param_of_field(Form_pg_attribute field, Datum value, bool isnull, Oid *type)
{
	*type = field->atttypid == UNKNOWNOID ? TEXTOID : field->atttypid;
	if (isnull)
		return value;
	if (field->atttypid == UNKNOWNOID)
		return CStringGetTextDatum(DatumGetCString(value));
	if (field->attlen == -1)
		return PointerGetDatum(PG_DETOAST_DATUM(value));
	return value;
}

/*
 * Error context callback: where an error stands in this text, not in the
 * statement that calls us.
 */
static inline void
perfopt_error_in_text(void *text)
{
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(text);
	}
}

#endif							/* PERFOPT_QUERY_PARAMS_H */
